"""What a trace asks of an accelerator, counted on any machine: launches, waits, bytes, FLOPs.

    python benchmarks/launches.py
    python benchmarks/launches.py --out benchmarks/results/launches.md

Traces run on a made-up card (benchmarks/card.py).  Weights are random, and so are the
dictionaries: per layer, 40 features active per token and layer.  `roofline s` charges every launch
the longest of 6 µs, its bytes at 3 TB/s and its FLOPs at 40 TFLOP/s, and 25 µs for a wait: what a
card needs at least, and no measurement.  `done / needed` are the FLOPs of the sweep stage over
those that its rows need (circuits.attribution.cost).

Models that are too large for this machine run with the real number of layers and little width:
only launches and waits are those of the real one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import NamedTuple

from card import CARD, Watch, card, on_card
from random_dictionary import random_dictionary
from random_model import random_prompt, random_subject
from speed import rows_of

import circuits.attribution.groups
from circuits.attribution.cost import Costs
from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.rows import Expansion
from circuits.attribution.targets import TargetSettings
from circuits.pipe import TraceSettings, trace

D_DICT, ACTIVE = 2048, 40
ALL = 0


class Case(NamedTuple):
    """Model, tokens, features to expand, and whether the model is made narrow."""

    shape: str
    length: int
    features: int
    narrow: bool = False


CASES = (
    Case("270m", 10, ALL),
    Case("270m", 64, 4096),
    Case("270m", 256, 4096),
    Case("1b", 64, 4096),
    Case("4b", 64, 4096, narrow=True),
)
STAGES = ("record", "features", "sources", "sweep", "check", "label", "graph")
# What a narrow model's products are smaller by: groups are planned as for the real width.
NARROWER = 160


class Counted(NamedTuple):
    """One trace on the card."""

    watch: Watch
    needed: float  # FLOPs of the rows
    edges: int


def counted(case: Case) -> Counted:
    """Trace once, on a model that is warm: what a model asks for once is not counted."""
    subject = random_subject(case.shape, narrow=case.narrow)
    prompt = random_prompt(subject, case.length)
    dictionary = random_dictionary(subject, prompt, D_DICT, ACTIVE)
    expansion = Expansion(everything=True) if case.features == ALL else Expansion(case.features)
    rate = circuits.attribution.groups.RATE
    circuits.attribution.groups.RATE = rate / NARROWER if case.narrow else rate
    local = local_replacement(prompt, subject, dictionary, TargetSettings())
    with card() as watch:
        held, placed = on_card(subject), dictionary.on(CARD)
        watch.clear()
        graph = trace(prompt, held, placed, TraceSettings(expansion=expansion), watch.progress)
    circuits.attribution.groups.RATE = rate
    costs = Costs(local)
    return Counted(watch, costs.of_rows(rows_of(graph, local, costs)), graph.weights.nnz)


def by_stage(counts: Counter[tuple[str, str]]) -> Counter[str]:
    """Counts of all operations of each stage."""
    found: Counter[str] = Counter()
    for (stage, _), number in counts.items():
        found[stage] += number
    return found


def table(cases: list[Case]) -> str:
    """Launches and waits by stage, and what they cost."""
    columns = ["model", "tokens", "features", *STAGES, "launches", "waits", "MB copied"]
    columns += ["sweep TFLOP", "done / needed", "GB moved", "roofline s", "of it sweep"]
    lines = [
        "# Launches of a trace",
        "",
        f"{date.today()} · counted on a made-up card, not measured on a real one · launches of "
        "each stage, then sums · narrow: layers as in the real model, width not",
        "",
        f"| {' | '.join(columns)} |",
        "|" + "--:|" * len(columns),
    ]
    for case in cases:
        start = time.perf_counter()
        watch, needed, edges = counted(case)
        launches, waits = by_stage(watch.launches), by_stage(watch.waits)
        name = f"{case.shape}, narrow" if case.narrow else case.shape
        cells = [name, f"{case.length:,}", f"{case.features:,}" if case.features else "all"]
        cells += [f"{launches[stage]:,}" for stage in STAGES]
        cells += [f"{sum(launches.values()):,}", f"{sum(waits.values()):,}"]
        cells.append(f"{sum(watch.copied.values()) / 1e6:,.0f}")
        wide = [
            f"{watch.flops['sweep'] / 1e12:.2f}",
            f"{watch.flops['sweep'] / needed:.2f}",
            f"{sum(watch.moved.values()) / 1e9:,.0f}",
            f"{sum(watch.seconds.values()):.3f}",
            f"{watch.seconds['sweep']:.3f}",
        ]
        cells += ["–"] * len(wide) if case.narrow else wide
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], f"{edges:,} edges, {time.perf_counter() - start:.0f} s", flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and write it."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)))
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args()
    found = table([CASES[number] for number in options.cases])
    print(found)
    if options.out is not None:
        options.out.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
