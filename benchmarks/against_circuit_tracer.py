"""The same attribution by headwater and by circuit-tracer: agreement, accuracy, time and memory.

    python benchmarks/against_circuit_tracer.py --environment FOLDER [--peer PATH_OR_URL]

circuit-tracer pins other versions of transformers and nnsight, so it has an environment of its
own, which is created in FOLDER if necessary, from its repository at the tag of its last release:
what PyPI has under its name is another project's fork.  Both trace Gemma 3 270M and SmolLM2-135M
with dictionaries written here in circuit-tracer's format: random per-layer transcoders, the
same with skip matrices, cross-layer transcoders.  Every case is a full attribution: all active
features have rows, and headwater keeps every edge, as circuit-tracer does.  Each side runs in a
process of its own, one after the other; the fastest of several runs counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from agreement import (
    compare_blocks,
    compare_pruned,
    placed,
    read_circuit_tracer,
    shared_features,
    true_values,
)
from circuit_tracer_files import MODELS, write_dictionary, write_model
from random_dictionary import Kind, random_dictionary
from speed import processor, prompt_of
from watch import Watch, anonymous

from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.features.files.reading import read_transcoders
from circuits.model.packaged import converted_folder
from circuits.model.prompt import prompt_from_ids
from circuits.model.subject import read_subject
from circuits.pipe import trace
from graphs import NodeKind, read_graph, write_graph

RESULTS = Path(__file__).with_name("results")
PEER, RELEASE = "https://github.com/decoderesearch/circuit-tracer", "v0.5.0"
TORCH = "torch==2.13.0"
KINDS: tuple[Kind, ...] = ("per layer", "skip", "cross-layer")
BACKENDS = ("nnsight", "transformerlens")
D_DICT = {"per layer": 4096, "skip": 4096, "cross-layer": 1024}
# Active features per token and layer, and circuit-tracer's batch, by prompt length: it stores the
# activations of batch × positions × layers and a matrix of all nodes, and takes minutes per case.
ACTIVE = {6: 20.0, 32: 3.0, 128: 1.0}
BATCH = {6: 512, 32: 512, 128: 64}
REPEATS = {6: 2, 32: 1, 128: 1}


def prepare(environment: Path, peer: str) -> Path:
    """The Python of circuit-tracer's environment, which is created if necessary."""
    python = environment / "bin/python"
    if not python.exists():
        venv.create(environment, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, TORCH], check=True)  # alone, so that a CPU build is accepted
        url = peer if "://" in peer else Path(peer).resolve().as_uri()
        requirement = f"git+{url}@{RELEASE}"
        subprocess.run([*install, TORCH, requirement], check=True)
    return python


def installed(python: Path) -> dict[str, str]:
    """The commit of circuit-tracer in an environment, and versions of what it runs on."""
    script = """
import importlib.metadata as m, json
origin = json.loads(m.distribution("circuit-tracer").read_text("direct_url.json") or "{}")
print(json.dumps({
    "commit": origin.get("vcs_info", {}).get("commit_id", "unknown"),
    **{name: m.version(name) for name in ("nnsight", "transformer-lens", "transformers", "torch")},
}))
"""
    done = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def run_ours(job: dict) -> dict[str, float]:
    """headwater's side of a job, in this process."""
    settings = TraceSettings(expansion=Expansion(everything=True, kept_share=1.0), labels=0)
    with Watch() as watch:
        subject = read_subject(job["name"], dtype=getattr(torch, job["dtype"]))
        prompt = prompt_from_ids(job["ids"], subject.tokenizer)
        dictionary = read_transcoders(job["dictionary"])
        before, seconds = anonymous(), []
        for _ in range(job["repeats"]):
            start = time.perf_counter()
            graph = trace(prompt, subject, dictionary, settings)
            seconds.append(time.perf_counter() - start)
    write_graph(graph, Path(job["out"]))
    return {"seconds": min(seconds), "loaded": before, "peak": watch.peak}


def run(command: list[object], job: dict, folder: Path) -> dict[str, float]:
    """Run one side in the folder that has the job's model."""
    file = folder / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    done = subprocess.run(
        [*map(str, command), str(file)],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(model: str, kind: Kind, length: int, python: Path, backends: list[str]) -> dict:
    """Both sides of one case."""
    subject = read_subject(model)
    prompt = prompt_of(length, subject)
    made = random_dictionary(subject, prompt, D_DICT[kind], ACTIVE[length], kind)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dictionary = folder / "dictionary"
        dictionary.mkdir()
        write_dictionary(made, kind, dictionary)
        job = {
            "name": model,
            "model": MODELS[model],
            "rotary_base": write_model(model, folder),
            "dictionary": str(dictionary),
            "kind": kind,
            "n_layers": subject.frozen.n_layers,
            "ids": list(prompt.ids),
            "batch_size": BATCH[length],
            "repeats": REPEATS[length],
        }

        def ours(dtype: str) -> tuple[dict[str, float], Path]:
            out = folder / f"{dtype}.safetensors"
            command = [sys.executable, Path(__file__).absolute(), "--ours"]
            return run(command, {**job, "dtype": dtype, "out": str(out)}, folder), out

        measured, file = ours("float32")
        graph = read_graph(file)
        exact = placed(read_graph(ours("float64")[1]), graph)
        values = true_values(graph, converted_folder(model)[0], made)
        case = {
            "model": model,
            "kind": kind,
            "length": length,
            "active": int(graph.nodes.is_kind(NodeKind.FEATURE).sum()),
            "edges": graph.weights.nnz,
            "headwater": measured,
        }
        for backend in backends:
            # nnsight's backend reads rows of the embedding matrix, which Gemma scales.
            scaled = backend == "nnsight" and model.startswith("gemma")
            factor = subject.frozen.d_model**0.5 if scaled else 1.0
            out = folder / f"{backend}.pt"
            side = {**job, "backend": backend, "out": str(out), "token_factor": factor}
            script = Path(__file__).absolute().with_name("circuit_tracer_run.py")
            seconds = run([python, script], side, folder)
            theirs = read_circuit_tracer(out, graph)
            case[backend] = {
                **seconds,
                "shared": shared_features(graph, theirs),
                "blocks": compare_blocks(graph, exact, theirs, values, factor),
                "pruned": compare_pruned(graph, theirs),
            }
    return case


def table(found: dict) -> str:
    """The results as Markdown."""
    cases, peer = found["cases"], found["peer"]
    lines = [
        "# Comparison with circuit-tracer",
        "",
        f"{found['machine']['date']} · {found['machine']['processor']}, {os.cpu_count()} cores · "
        f"circuit-tracer {RELEASE}, commit {peer['commit'][:7]} (nnsight {peer['nnsight']}, "
        f"transformer-lens {peer['transformer-lens']}, transformers {peer['transformers']}), "
        f"torch {peer['torch']} on both sides, float32",
        "",
        "Full attribution of the same prompt with the same random dictionary. Memory is the "
        "largest anonymous memory, loading included.",
        "",
        "| model | dictionary | tokens | active | backend | headwater s | circuit-tracer s | ratio "
        "| headwater MiB | circuit-tracer MiB | ratio | same features |",
        "|---|---|--:|--:|---|" + "--:|" * 7,
    ]
    for case, backend, theirs in _sides(cases):
        ours = case["headwater"]
        cells = [
            case["model"],
            case["kind"],
            str(case["length"]),
            f"{case['active']:,}",
            backend,
            f"{ours['seconds']:.2f}",
            f"{theirs['seconds']:.1f}",
            f"{theirs['seconds'] / ours['seconds']:.1f}",
            f"{ours['peak'] / 2**20:,.0f}",
            f"{theirs['peak'] / 2**20:,.0f}",
            f"{theirs['peak'] / ours['peak']:.1f}",
            f"{theirs['shared']:.2%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Relative difference (Frobenius) of each block of edges between the two tools, and of "
        "either from headwater in float64; then how far rows are from the target's own value in "
        "the model (transformers, float64), as the worst share of a row's absolute sum: with "
        "headwater's edges, with this block as circuit-tracer has it, and with its token edges "
        "corrected. Rows of features and logits that both have.",
        "",
        "| model | dictionary | tokens | backend | block | difference | headwater − float64 "
        "| circuit-tracer − float64 | miss: headwater | miss: circuit-tracer | corrected |",
        "|---|---|--:|---|---|" + "--:|" * 6,
    ]
    for case, backend, theirs in _sides(cases):
        for block, numbers in theirs["blocks"].items():
            names = ("difference", "ours to float64", "theirs to float64")
            misses = ("our miss", "raw miss", "their miss")
            cells = [case["model"], case["kind"], str(case["length"]), backend, block]
            cells += [f"{numbers[name]:.0e}" for name in (*names, *misses)]
            lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Nodes (features and errors) and edges of both pruned graphs at the default thresholds, as "
        "a share of those of either, token edges corrected: headwater's own rule, its "
        '`edge_scores="kept"`, which is the published rule, and headwater\'s rule on both.',
        "",
        "| model | dictionary | tokens | backend | nodes | edges | nodes, published rule "
        "| edges, published rule | nodes, one rule | edges, one rule |",
        "|---|---|--:|---|" + "--:|" * 6,
    ]
    for case, backend, theirs in _sides(cases):
        cells = [case["model"], case["kind"], str(case["length"]), backend]
        cells += [
            f"{theirs['pruned'][f'{part}, {rule}']:.2%}"
            for rule in ("full", "kept", "one rule")
            for part in ("nodes", "edges")
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _sides(cases: list[dict]) -> Iterator[tuple[dict, str, dict]]:
    for case in cases:
        for backend in BACKENDS:
            if backend in case:
                yield case, backend, case[backend]


def _key(case: dict) -> tuple[str, str, int]:
    return case["model"], case["kind"], case["length"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, default=Path(".circuit-tracer"))
    parser.add_argument("--peer", default=PEER, help="circuit-tracer's repository")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--lengths", type=int, nargs="+", default=list(ACTIVE))
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=list(BACKENDS))
    parser.add_argument("--out", type=Path, default=RESULTS / "against_circuit_tracer.md")
    parser.add_argument("--ours", type=Path, help="run headwater's side of one job here")
    arguments = parser.parse_args()
    if arguments.ours:
        print(json.dumps(run_ours(json.loads(arguments.ours.read_text(encoding="utf-8")))))
        return
    python = prepare(arguments.environment.absolute(), arguments.peer)
    peer = installed(python)
    # Cases from an earlier run on the same day and machine are kept.
    kept = arguments.out.with_suffix(".json")
    machine = {"date": str(date.today()), "processor": processor(), "host": platform.node()}
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    same = found.get("machine") == machine and found.get("peer") == peer
    cases = found["cases"] if same else []
    done = {_key(case) for case in cases if set(arguments.backends) <= set(case)}
    for length in arguments.lengths:
        for model in arguments.models:
            for kind in arguments.kinds:
                if (model, kind, length) in done:
                    continue
                cases = [case for case in cases if _key(case) != (model, kind, length)]
                cases.append(measure(model, kind, length, python, arguments.backends))
                print(json.dumps(cases[-1]), flush=True)
                found = {"machine": machine, "peer": peer, "cases": cases}
                kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    arguments.out.write_text(
        table({"machine": machine, "peer": peer, "cases": cases}), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
