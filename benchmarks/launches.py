"""What a trace asks of an accelerator, counted on any machine: launches, waits, bytes, FLOPs.

    python benchmarks/launches.py
    python benchmarks/launches.py --out benchmarks/results/launches.md

Traces run on a made-up card (benchmarks/card.py).  Weights are random, and so are the
dictionaries: per layer, 40 features active per token and layer.  `roofline s` charges every launch
the longest of 6 µs, its bytes at 3 TB/s and its FLOPs at 40 TFLOP/s (170 in TF32, 230 in bfloat16),
and 25 µs for a wait: what a card needs at least, and no measurement.  `done / needed` are the FLOPs
of the sweep stage over those that its rows need (circuits.attribution.cost).  `peak GB` is what
tensors held at most, the model included, and a dictionary of 16,384 features per layer.

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

import torch
from card import CARD, NAME, Watch, card, on_card
from random_dictionary import random_dictionary
from random_model import COMMON, SHAPES, random_prompt, random_subject
from speed import rows_of

import circuits.attribution.groups
import circuits.recording.attention
from circuits.attribution.cost import Costs
from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.trace_settings import Expansion, TargetSettings, TraceSettings
from circuits.machine import MOST_WORKING
from circuits.pipe import trace
from circuits.recording.precision import Precision

D_DICT, ACTIVE, PUBLISHED = 2048, 40, 16384
ALL = 0


class Case(NamedTuple):
    """One trace."""

    shape: str
    length: int
    features: int  # to expand
    narrow: bool = False
    dtype: torch.dtype = torch.float32
    precision: Precision = Precision.IEEE
    on_host: bool = False  # whether the dictionary is there

    @property
    def name(self) -> str:
        """What it is in the table."""
        kind = str(self.dtype).removeprefix("torch.")
        parts = [self.shape, kind if self.dtype != torch.float32 else "", self.precision]
        parts[2] = "" if self.precision == Precision.IEEE else parts[2]
        parts += ["narrow" if self.narrow else "", "dictionary on the host" if self.on_host else ""]
        return ", ".join(filter(None, parts))


CASES = (
    Case("270m", 10, ALL),
    Case("270m", 64, 4096),
    Case("270m", 256, 4096),
    Case("270m", 1024, 4096),
    Case("270m", 64, 4096, precision=Precision.SPLIT),
    Case("1b", 64, 4096),
    Case("1b", 64, 4096, precision=Precision.SPLIT),
    Case("1b", 256, 4096),
    Case("4b", 64, 4096, dtype=torch.bfloat16),
    Case("27b", 64, 1024, narrow=True, dtype=torch.bfloat16, on_host=True),
)
LONG = (  # model, tokens, features, type of numbers
    ("270m", 5000, 4096, torch.float32),
    ("1b", 2300, 4096, torch.float32),
    ("4b", 2300, 4096, torch.bfloat16),
    ("27b", 64, 1024, torch.bfloat16),
)
CARD_BYTES = 80e9
STAGES = ("record", "features", "sources", "sweep", "check", "label", "graph")
# What a narrow model's products are smaller by: groups are planned as for the real width.
NARROWER = 160


class Counted(NamedTuple):
    """One trace on the card."""

    watch: Watch
    needed: float  # FLOPs of the rows
    edges: int
    peak: float  # bytes


def counted(case: Case) -> Counted:
    """Trace once, on a model that is warm: what a model asks for once is not counted."""
    subject = random_subject(case.shape, narrow=case.narrow, dtype=case.dtype)
    prompt = random_prompt(subject, case.length)
    dictionary = random_dictionary(subject, prompt, D_DICT, ACTIVE)
    expansion = Expansion(everything=True) if case.features == ALL else Expansion(case.features)
    rate = circuits.attribution.groups.RATE
    circuits.attribution.groups.RATE = rate / NARROWER if case.narrow else rate
    local = local_replacement(prompt, subject, dictionary, TargetSettings())
    with card() as watch:
        held = on_card(subject)
        placed = dictionary if case.on_host else dictionary.on(CARD)
        settings = TraceSettings(expansion=expansion, precision=case.precision)
        watch.clear()
        graph = trace(prompt, held, placed, settings, watch.progress)
        peak = watch.peak
    circuits.attribution.groups.RATE = rate
    costs = Costs(local)
    needed = costs.of_rows(rows_of(graph, local, costs))
    # A dictionary here is smaller than a published one.
    left_out = sum(one.encoder.nbytes * 2 for one in dictionary.layers) * (PUBLISHED / D_DICT - 1)
    return Counted(watch, needed, graph.weights.nnz, peak + left_out * (not case.on_host))


def bytes_needed(shape: str, length: int, features: int, size: int) -> dict[str, float]:
    """What a trace holds at its end, by part, for numbers of `size` bytes.

    Tiles have half as many slots again as vectors, which is what random prompts showed; rows are
    float32, and read half of all columns on average.
    """
    config = {**COMMON, **SHAPES[shape]}
    layers, d_model = config["num_hidden_layers"], config["hidden_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    through_heads = config["head_dim"] * (heads + kv_heads)
    of_layer = d_model * (2 * through_heads + 3 * config["intermediate_size"])
    columns = layers * length * (ACTIVE + 1)
    frozen = layers * d_model * through_heads  # W_O and W_V with gains folded in
    return {
        "model": size * (config["vocab_size"] * d_model + layers * of_layer + frozen),
        "dictionary": size * 2 * layers * PUBLISHED * d_model,
        "vectors": size * d_model * (1.5 * columns + 8 * layers * length),
        "patterns": size * 2 * layers * heads * length**2,
        "rows": 4 * features * columns / 2,
        "at work": float(MOST_WORKING),
    }


def memory_table() -> str:
    """Bytes of traces that are too large for this machine."""
    lines = [
        "",
        "# Memory of long prompts",
        "",
        f"Computed, not measured: GB of 4,096 rows (27b: 1,024) and {ACTIVE} active features per "
        f"token and layer, dictionaries of {PUBLISHED:,} features per layer; a dictionary that "
        "does not fit stays in its files.",
        "",
        "| model | numbers | tokens | model | dictionary | vectors | patterns | rows | at work "
        "| sum |",
        "|---|---|--:|" + "--:|" * 7,
    ]
    for shape, length, features, dtype in LONG:
        parts = bytes_needed(shape, length, features, dtype.itemsize)
        whole = sum(parts.values())
        if whole > CARD_BYTES:
            parts["dictionary"] = 0.0
        cells = [shape, str(dtype).removeprefix("torch."), f"{length:,}"]
        cells += [f"{part / 1e9:.1f}" if part else "on the host" for part in parts.values()]
        cells.append(f"{sum(parts.values()) / 1e9:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def by_stage(counts: Counter[tuple[str, str]]) -> Counter[str]:
    """Counts of all operations of each stage."""
    found: Counter[str] = Counter()
    for (stage, _), number in counts.items():
        found[stage] += number
    return found


def table(cases: list[Case]) -> str:
    """Launches and waits by stage, and what they cost."""
    columns = ["model", "tokens", "features", *STAGES, "launches", "waits", "MB copied"]
    columns += ["sweep TFLOP", "done / needed", "GB moved", "peak GB", "roofline s", "of it sweep"]
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
        watch, needed, edges, peak = counted(case)
        launches, waits = by_stage(watch.launches), by_stage(watch.waits)
        cells = [case.name, f"{case.length:,}", f"{case.features:,}" if case.features else "all"]
        cells += [f"{launches[stage]:,}" for stage in STAGES]
        cells += [f"{sum(launches.values()):,}", f"{sum(waits.values()):,}"]
        cells.append(f"{sum(watch.copied.values()) / 1e6:,.0f}")
        wide = [
            f"{watch.flops['sweep'] / 1e12:.2f}",
            f"{watch.flops['sweep'] / needed:.2f}",
            f"{sum(watch.moved.values()) / 1e9:,.0f}",
            f"{peak / 1e9:.1f}",
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
    circuits.recording.attention.TENSOR_CORES.add(NAME)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)))
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args()
    found = table([CASES[number] for number in options.cases]) + memory_table()
    print(found)
    if options.out is not None:
        options.out.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
