"""Accuracy of `headwater estimate`: predicted and measured seconds and memory of traces.

    python benchmarks/estimates.py --out benchmarks/results/estimates.md

Each case runs in a process of its own: first the estimate, then the trace.  Memory is anonymous
memory, the model included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from random_dictionary import random_dictionary
from speed import conditions, prompt_of
from watch import Watch

from circuits.atlas.shipped import atlas_transcoders
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.features.files.reading import read_transcoders
from circuits.features.neurons import Neurons
from circuits.model.prompt import read_prompt
from circuits.model.subject import read_subject
from circuits.pipe import estimate_trace, trace

D_DICT = {"per layer": 4096, "skip": 4096, "cross-layer": 1024}


@dataclass(frozen=True)
class Case:
    """One trace; `active` is features per token and layer of a random dictionary."""

    model: str
    source: str  # a kind of random dictionary, neurons, or shipped
    tokens: int
    active: int = 40
    everything: bool = False
    kept_share: float = Expansion.kept_share


CASES = (
    Case("gemma-3-270m", "per layer", 6, everything=True),
    Case("gemma-3-270m", "per layer", 32),
    Case("gemma-3-270m", "per layer", 128),
    Case("gemma-3-270m", "per layer", 512),
    Case("gemma-3-270m", "per layer", 32, active=10),
    Case("gemma-3-270m", "skip", 6, active=20, everything=True, kept_share=1.0),
    Case("gemma-3-270m", "skip", 32, active=20),
    Case("gemma-3-270m", "cross-layer", 6, active=20, everything=True, kept_share=1.0),
    Case("gemma-3-270m", "cross-layer", 32, active=10),
    Case("gemma-3-270m", "cross-layer", 128, active=10),
    Case("gemma-3-270m", "neurons", 6),
    Case("gemma-3-270m", "neurons", 32),
    Case("gemma-3-270m", "neurons", 256),
    Case("smollm2-135m", "per layer", 6, active=20, everything=True),
    Case("smollm2-135m", "per layer", 128, active=20),
    Case("smollm2-135m", "neurons", 32),
    Case("atlas-large", "shipped", 8),
)


def measure(case: Case) -> dict[str, float]:
    """An estimate, and the fastest of a few traces with the largest memory of the first."""
    subject = read_subject(case.model)
    if case.source == "shipped":
        prompt = read_prompt("The capital of the state containing Dallas is", subject.tokenizer)
        source = read_transcoders(str(atlas_transcoders(case.model)))
    else:
        prompt = prompt_of(case.tokens, subject)
        source = Neurons()
        if case.source != "neurons":
            kind = case.source
            source = random_dictionary(subject, prompt, D_DICT[kind], case.active, kind)  # pyright: ignore[reportArgumentType]
    torch.mm(torch.ones(1, 1), torch.ones(1, 1))  # threads start now
    settings = TraceSettings(
        expansion=Expansion(everything=case.everything, kept_share=case.kept_share)
    )
    predicted = estimate_trace(prompt, subject, source, settings)
    seconds: list[float] = []
    with Watch() as watch:
        start = time.perf_counter()
        graph = trace(prompt, subject, source, settings)
        seconds.append(time.perf_counter() - start)
    while sum(seconds) < 5 and len(seconds) < 5:
        start = time.perf_counter()
        trace(prompt, subject, source, settings)
        seconds.append(time.perf_counter() - start)
    return {
        "active": predicted.active_features,
        "rows": predicted.rows,
        "predicted edges": predicted.edges,
        "edges": graph.weights.nnz,
        "predicted seconds": predicted.seconds,
        "seconds": min(seconds),
        "predicted peak": predicted.peak_bytes,
        "peak": watch.peak,
    }


def table(found: list[tuple[Case, dict[str, float]]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Estimates and measurements of traces",
        "",
        f"{conditions()}, float32",
        "",
        "| model | features | tokens | active | rows | edges, M | s | estimated s | ratio "
        "| peak MiB | estimated MiB | ratio |",
        "|---|---|" + "--:|" * 10,
    ]
    for case, numbers in found:
        cells = [
            case.model,
            case.source,
            str(case.tokens),
            f"{numbers['active']:,}",
            f"{numbers['rows']:,}",
            f"{numbers['edges'] / 1e6:.2f}",
            f"{numbers['seconds']:.2f}",
            f"{numbers['predicted seconds']:.2f}",
            f"{numbers['predicted seconds'] / numbers['seconds']:.2f}",
            f"{numbers['peak'] / 2**20:,.0f}",
            f"{numbers['predicted peak'] / 2**20:,.0f}",
            f"{numbers['predicted peak'] / numbers['peak']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=int, help="run one case here and print it as JSON")
    parser.add_argument("--only", type=int, nargs="+", help="cases by number")
    parser.add_argument("--out", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(CASES[arguments.case])))
        return
    found: list[tuple[Case, dict[str, float]]] = []
    for number, case in enumerate(CASES):
        if arguments.only and number not in arguments.only:
            continue
        command = [sys.executable, __file__, "--case", str(number)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append((case, json.loads(done.stdout.splitlines()[-1])))
        print(case, found[-1][1], file=sys.stderr, flush=True)
    print(table(found))
    if arguments.out:
        arguments.out.write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
