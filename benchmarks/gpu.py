"""Traces on a GPU: seconds, memory and exactness, beside the card's own rates and circuit-tracer.

    python benchmarks/gpu.py --out results                  everything, in at most 400 s
    python benchmarks/gpu.py --out results --peer PYTHON    also circuit-tracer, with this Python
    python benchmarks/gpu.py --out results --tiny --device cpu    a rehearsal

Models and dictionaries are random, in the shapes of Gemma 3, and are made on the card.  Every case
is one line of `gpu.jsonl`, written at once; `gpu.md` has the table.  A case that would not end in
time is left out.  PYTHON belongs to an environment that benchmarks/against_circuit_tracer.py made;
it traces the same prompts with the same dictionaries and number of features.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from circuit_tracer_files import write_dictionary, write_random_model
from random_dictionary import random_dictionary
from random_model import random_prompt, random_subject

from circuits.attribution.estimate import Stages
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.features.transcoder_set import TranscoderSet
from circuits.machine import float32_products, wait_for
from circuits.model.subject import Subject
from circuits.pipe import estimate_trace, trace
from circuits.recording.precision import Precision

D_DICT, ACTIVE = 16384, 40
SECONDS = 400.0
LEAST_LEFT = 20.0  # seconds that must be left to begin a case
ENOUGH, REPEATS = 5.0, 5  # seconds or runs after which a case is measured
PEER_BATCH = {10: 512, 64: 256, 256: 64, 1024: 16}
ROOFLINES = Path(__file__).with_name("results") / "launches.md"


@dataclass(frozen=True)
class Case:
    """Traces of one prompt; `features` 0: all."""

    shape: str
    length: int
    features: int
    dtype: torch.dtype = torch.float32
    precisions: tuple[Precision, ...] = (Precision.IEEE,)


FLOAT32 = tuple(Precision)
CASES = (  # the most informative first
    Case("270m", 64, 4096, precisions=FLOAT32),
    Case("270m", 10, 0),
    Case("1b", 64, 4096, precisions=FLOAT32),
    Case("270m", 256, 4096, precisions=FLOAT32),
    Case("1b", 256, 4096, precisions=FLOAT32),
    Case("270m", 1024, 4096, precisions=FLOAT32),
    Case("4b", 64, 4096, torch.bfloat16),
)
WITH_PEER = ("270m", "1b")


class Results:
    """Lines of results, each in the file as soon as it is known."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.rows = folder / "gpu.jsonl", list[dict[str, Any]]()
        self.file.write_text("", encoding="utf-8")

    def add(self, **row: object) -> None:
        self.rows.append(row)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def rates(device: torch.device, size: int) -> dict[str, float]:
    """TFLOP/s of square products by type of numbers, and GB/s of a copy on the device."""
    found: dict[str, float] = {}
    kinds = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
    for name, dtype in kinds.items():
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        with float32_products(tensor_cores=name == "tf32"):
            seconds = _fastest(lambda: left @ right, device)  # noqa: B023
        found[name] = 2 * size**3 / seconds / 1e12
    block = torch.empty(size * size * 4, dtype=torch.uint8, device=device)
    found["copy"] = 2 * block.numel() / _fastest(block.clone, device) / 1e9
    return found


def _fastest(work: Any, device: torch.device, runs: int = 5) -> float:
    best = float("inf")
    for _ in range(runs):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return best


def measured(
    subject: Subject, dictionary: TranscoderSet, case: Case, precision: Precision
) -> dict[str, Any]:
    """The fastest of some traces, after one that warms up, and what an estimate says."""
    device, prompt = subject.frozen.device, random_prompt(subject, case.length)
    expansion = Expansion(case.features) if case.features else Expansion(everything=True)
    settings = TraceSettings(expansion=expansion, precision=precision)
    graph = trace(prompt, subject, dictionary, settings)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    runs: list[dict[str, float]] = []
    while len(runs) < REPEATS and sum(sum(run.values()) for run in runs) < ENOUGH:
        stages = Stages(device)
        graph = trace(prompt, subject, dictionary, settings, stages)
        stages("end", 0, 1)
        runs.append(dict(stages.seconds))
    best = min(runs, key=lambda run: sum(run.values()))
    checks = graph.provenance.checks
    return {
        "seconds": sum(best.values()),
        "stages": best,
        "estimate": estimate_trace(prompt, subject, dictionary, settings).seconds,
        "peak": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        "conservation": checks.conservation_max,
        "failures": list(graph.provenance.failures),
        "rows": int(graph.expanded.sum()),
        "edges": graph.weights.nnz,
    }


def peer(
    python: Path, subject: Subject, dictionary: TranscoderSet, case: Case, left: float
) -> dict[str, Any]:
    """circuit-tracer on the same case, in a process of its own."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = folder / "dictionary"
        files.mkdir()
        write_dictionary(dictionary.on(torch.device("cpu")), "per layer", files)
        prompt = random_prompt(subject, case.length)
        job = {
            "model": write_random_model(subject, folder),
            "backend": "nnsight",
            "kind": "per layer",
            "dictionary": str(files),
            "n_layers": subject.frozen.n_layers,
            "ids": list(prompt.ids),
            "device": str(subject.frozen.device),
            "batch_size": PEER_BATCH[case.length],
            "max_feature_nodes": case.features or None,
            "repeats": 2,
            "token_factor": 1.0,
            "out": None,
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        script = Path(__file__).absolute().with_name("circuit_tracer_run.py")
        command = [str(python), str(script), "job.json"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=left
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def cases(results: Results, options: argparse.Namespace, end: float) -> Iterator[None]:
    """Measure all that time allows."""
    device, made = torch.device(options.device), dict[tuple[str, torch.dtype], Any]()
    for case in CASES:
        where = {"model": case.shape, "tokens": case.length, "features": case.features}
        where["dtype"] = str(case.dtype).removeprefix("torch.")
        if end - time.monotonic() < LEAST_LEFT:
            results.add(**where, skipped=True)
            continue
        key = case.shape, case.dtype
        if key not in made:
            made.clear()  # one model at a time
            subject = random_subject(
                case.shape, narrow=options.tiny, dtype=case.dtype, device=options.device
            )
            width = 512 if options.tiny else D_DICT
            prompt = random_prompt(subject, case.length)
            made[key] = subject, random_dictionary(subject, prompt, width, ACTIVE)
        subject, dictionary = made[key]
        for precision in case.precisions:
            if precision != Precision.IEEE and device.type != "cuda":
                continue
            found = measured(subject, dictionary, case, precision)
            results.add(**where, precision=precision, tool="headwater", **found)
            yield
        if options.peer is not None and case.shape in WITH_PEER:
            left = end - time.monotonic()
            try:
                found = peer(options.peer, subject, dictionary, case, max(1.0, left))
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                found = {"error": str(error)[-500:]}
            results.add(**where, tool="circuit-tracer", **found)
            yield


def rooflines() -> dict[tuple[str, str, str], str]:
    """Predicted seconds by model, tokens and features, from the table of launches."""
    found: dict[tuple[str, str, str], str] = {}
    head: list[str] = []
    for line in ROOFLINES.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "model":
            head = cells
        elif head and len(cells) == len(head) and not cells[0].startswith("--"):
            found[cells[0], cells[1], cells[2]] = cells[head.index("roofline s")]
    return found


def table(results: Results, name: str) -> str:
    """The results as Markdown."""
    known, predicted = [row for row in results.rows if "seconds" in row], rooflines()
    peers = {
        (row["model"], row["tokens"], row["features"]): row
        for row in known
        if row["tool"] == "circuit-tracer"
    }
    own = next((row["rates"] for row in results.rows if "rates" in row), {})
    lines = [
        "# Traces on a GPU",
        "",
        f"{date.today()} · {name} · torch {torch.__version__} · "
        + ", ".join(f"{kind} {rate:,.0f}" for kind, rate in own.items())
        + " (TFLOP/s of products, GB/s of a copy)",
        "",
        "| model | tokens | features | precision | s | roofline s | estimated s | peak GiB "
        "| conservation | circuit-tracer s | ratio |",
        "|---|--:|--:|---|" + "--:|" * 7,
    ]
    for row in known:
        if row["tool"] != "headwater":
            continue
        other = peers.get((row["model"], row["tokens"], row["features"]))
        features = f"{row['features']:,}" if row["features"] else "all"
        kinds = (row["dtype"], row["precision"])
        parts = [row["model"], *(k for k in kinds if k not in ("float32", "ieee"))]
        cells = [
            row["model"],
            f"{row['tokens']:,}",
            features,
            " ".join(kinds),
            f"{row['seconds']:.3f}",
            predicted.get((", ".join(parts), f"{row['tokens']:,}", features), "–"),
            f"{row['estimate']:.3f}",
            f"{row['peak'] / 2**30:.1f}",
            f"{row['conservation']:.0e}",
            f"{other['seconds']:.2f}" if other else "not measured",
            f"{other['seconds'] / row['seconds']:.1f}" if other else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="to stop after")
    parser.add_argument("--peer", type=Path, help="Python of circuit-tracer's environment")
    parser.add_argument("--tiny", action="store_true", help="narrow models, to rehearse")
    options = parser.parse_args()
    end, results = time.monotonic() + options.seconds, Results(options.out)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else options.device
    results.add(device=name, rates=rates(device, 256 if options.tiny else 8192))
    for _ in cases(results, options, end):
        (options.out / "gpu.md").write_text(table(results, name), encoding="utf-8")
    print(table(results, name))


if __name__ == "__main__":
    main()
