"""What a training step asks of an accelerator, counted on any machine, and its least time.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --out benchmarks/results/training_step.md

Steps run at full size on a made-up card (benchmarks/card.py) whose tensors have shapes and no
numbers: 18 layers × 640 as in Gemma 3 270M, 16,384 features per layer, about 20 active, features
chosen in bfloat16.  A kernel takes the longest of 6 µs, its bytes at 3 TB/s and its FLOPs at
400 TFLOP/s in bfloat16 and 45 in float32, what it launches and reads as benchmarks/kernels.py says.
(An H200 reached 778 and 51 with matrices of 8192², 230 and 43 with 2048 × 640 × 1024.)  No row is
read from a cache, and no launch is hidden by another.

A step is the mean of ten: nine plain ones, one that also normalises decoders, and a tenth of a
refresh.  `pool` is the forward pass that gives a batch its activations, 2 FLOPs per parameter and
token (embeddings are read and not multiplied) at the rate of TF32, 170 TFLOP/s, or of float32 where
features are chosen in float32, and what keeps them.  `dead` features are 800 per layer that are
revived.  `peak` counts parameters, gradients, moments and a batch, not the pool and not the model.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from card import BANDWIDTH, CARD, LAUNCH, TF32_RATE, WAIT, Watch, card
from kernels import kernel

from circuits.training import start
from circuits.training.activations import PASS_TOKENS, Activations
from circuits.training.checkpoint import RunState
from circuits.training.dictionary import TrainedDictionary
from circuits.training.encoding import Plan, made_plan
from circuits.training.settings import Kind, Sparsity, TrainSettings
from circuits.training.step import NORMALISE_EVERY, adam, advance

N_LAYERS, D_MODEL, D_DICT, L0 = 18, 640, 16_384, 20.0
RATES = MappingProxyType({torch.float32: 4.5e13, torch.bfloat16: 4e14})
PARAMETERS = 100e6  # of the model's blocks
MODEL_LAUNCHES = 1643  # of its forward pass with hooks: benchmarks/results/launches.md
PAGEABLE = 1.4e9  # bytes per second from a card to the host's memory, measured on an H200
WANTED = {Kind.PER_LAYER: 100_000, Kind.CROSS_LAYER: 40_000}
MEASURED = {Kind.PER_LAYER: "11,200 to 23,400", Kind.CROSS_LAYER: "3,400 to 8,600"}
PARTS = {
    "encoder": {"addmm"},
    "choice": {"topk", "amax", "sort", "gather"},
    "optimiser": {"_fused_adam_", "_foreach_norm", "_foreach_add_"},
    "rows": {
        "_embedding_bag",
        "_embedding_bag_forward_only",
        "_embedding_bag_per_sample_weights_backward",
    },
}


class Case(NamedTuple):
    """One kind of step."""

    kind: Kind
    sparsity: Sparsity
    batch: int  # tokens
    dead: int = 0  # features per layer
    bfloat16: bool = True

    @property
    def settings(self) -> TrainSettings:
        """Of a run that never refreshes."""
        return TrainSettings(
            kind=self.kind,
            sparsity=self.sparsity,
            d_dict=D_DICT,
            l0=L0,
            batch_tokens=self.batch,
            bfloat16=self.bfloat16,
            refresh=2**30,
        )


CASES = (
    *(Case(Kind.PER_LAYER, Sparsity.BATCH_TOP_K, batch) for batch in (2048, 4096)),
    Case(Kind.PER_LAYER, Sparsity.BATCH_TOP_K, 4096, dead=800),
    Case(Kind.PER_LAYER, Sparsity.BATCH_TOP_K, 4096, bfloat16=False),
    *(Case(Kind.PER_LAYER, Sparsity.TOP_K, batch) for batch in (2048, 4096)),
    *(Case(Kind.CROSS_LAYER, Sparsity.BATCH_TOP_K, batch) for batch in (2048, 4096)),
    Case(Kind.CROSS_LAYER, Sparsity.BATCH_TOP_K, 4096, dead=800),
)


class Counted(NamedTuple):
    """One step."""

    launches: int  # of kernels
    waits: int
    moved: float  # bytes
    flops: dict[torch.dtype, float]
    parts: dict[str, float]  # seconds
    peak: int  # bytes that tensors held at most

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(self.parts.values())


def counted(case: Case, number: int) -> Counted:
    """The step of this number, on a card of shapes alone; the one before it allocates."""
    with card(shapes=True, kernels=kernel) as watch:
        watch.rates = RATES
        with torch.device("meta"):
            dictionary = TrainedDictionary(case.settings, N_LAYERS, D_MODEL)
        dictionary.to(CARD)
        optimizer, state = adam(dictionary), RunState.initial(dictionary.encoder_bias.detach())
        ones = torch.empty(case.dead, dtype=torch.long, device=CARD)
        dead = torch.empty(N_LAYERS, D_DICT, dtype=torch.bool, device=CARD)
        budget = torch.empty(N_LAYERS, device=CARD)
        state.plan = Plan(
            budget, dead, (L0,) * N_LAYERS, (ones,) * N_LAYERS, (case.dead,) * N_LAYERS
        )
        shape = (N_LAYERS, case.batch, D_MODEL)
        batch = Activations(*(torch.empty(shape, device=CARD) for _ in range(2)))
        for _ in range(2):
            state.step = number
            watch.clear()
            advance(dictionary, optimizer, batch, state)
        return summed(watch)


def summed(watch: Watch) -> Counted:
    """What a card has counted."""
    parts: defaultdict[str, float] = defaultdict(float)
    for (_, name), seconds in watch.kernel_seconds.items():
        parts[next((part for part, names in PARTS.items() if name in names), "rest")] += seconds
    flops: defaultdict[torch.dtype, float] = defaultdict(float)
    for (_, dtype), number in watch.flops_in.items():
        # Products of entries end with their indices.
        flops[torch.bfloat16 if dtype == torch.bfloat16 else torch.float32] += number
    return Counted(
        launches=sum(watch.kernel_launches.values()),
        waits=sum(watch.waits.values()),
        moved=sum(watch.moved.values()),
        flops=dict(flops),
        parts=dict(parts),
        peak=watch.peak,
    )


def refreshed(case: Case) -> tuple[int, float]:
    """Waits of a refresh, seen with few features and all layers, and its seconds at full size."""
    settings = replace(case.settings, d_dict=256, bfloat16=False)
    with card() as watch:
        dictionary = TrainedDictionary(settings, N_LAYERS, 16).to(CARD)
        inputs, dead = torch.randn(N_LAYERS, 64, 16).to(CARD), torch.ones(N_LAYERS, 256).to(CARD)
        watch.clear()
        made_plan(dictionary, inputs, dead > 0)
        waits, launches = sum(watch.waits.values()), sum(watch.launches.values())
    seconds = waits * WAIT + launches * LAUNCH
    if settings.sparsity == Sparsity.BATCH_TOP_K and settings.one_budget:
        # Pre-activations of all layers are computed, copied by relu and stack, and searched.
        values = N_LAYERS * case.batch * D_DICT
        seconds += max(2 * values * D_MODEL / RATES[torch.bfloat16], 6 * 2 * values / BANDWIDTH)
    return waits, seconds


def pool_seconds(case: Case) -> float:
    """Of the model's passes that give a batch its activations, and of keeping these."""
    passes = case.batch / PASS_TOKENS
    rate = TF32_RATE if case.bfloat16 else RATES[torch.float32]
    forward = max(2 * PARAMETERS * PASS_TOKENS / rate, MODEL_LAUNCHES * LAUNCH)
    kept = 2 * N_LAYERS * PASS_TOKENS * D_MODEL * 4  # bytes, gathered, converted and scattered
    each = max(3 * 2 * kept / BANDWIDTH, 3 * 2 * N_LAYERS * LAUNCH)
    return passes * (forward + each + WAIT)


class Started(NamedTuple):
    """The choice of examples of all layers."""

    launches: int
    waits: int
    flops: float
    copied: int  # bytes
    host: float  # seconds in which the host accepts candidates, here
    seconds: float  # of the card, its waits and copies


def started() -> Started:
    """Examples of one layer, from random vectors, times the number of layers."""
    accept, host = start._accepted, 0.0  # pyright: ignore[reportPrivateUsage]

    def timed(*arguments: np.ndarray) -> np.ndarray:
        nonlocal host
        before = time.perf_counter()
        found = accept(*arguments)
        host += time.perf_counter() - before
        return found

    start._accepted = timed  # pyright: ignore[reportPrivateUsage]
    try:
        with card(kernels=kernel) as watch:
            watch.rates = RATES
            vectors = torch.randn(start.example_tokens(D_DICT), D_MODEL).to(CARD)
            watch.clear()
            start.far_apart(vectors, D_DICT, torch.Generator().manual_seed(0))
    finally:
        start._accepted = accept  # pyright: ignore[reportPrivateUsage]
    copied = sum(watch.copied.values())
    seconds = sum(watch.seconds.values()) + copied / PAGEABLE
    return Started(
        launches=N_LAYERS * sum(watch.kernel_launches.values()),
        waits=N_LAYERS * sum(watch.waits.values()),
        flops=N_LAYERS * sum(watch.flops.values()),
        copied=N_LAYERS * copied,
        host=N_LAYERS * host,
        seconds=N_LAYERS * seconds,
    )


COLUMNS: dict[str, Callable[[Case, Counted], str]] = {
    "dictionary": lambda case, _: (
        f"{case.kind}, {case.sparsity}{'' if case.bfloat16 else ', chosen in float32'}"
    ),
    "batch": lambda case, _: f"{case.batch:,}",
    "dead": lambda case, _: f"{case.dead:,}",
    "launches": lambda _, step: f"{step.launches:,}",
    "waits": lambda _, step: f"{step.waits}",
    "GB moved": lambda _, step: f"{step.moved / 1e9:.0f}",
    "bfloat16 TFLOP": lambda _, step: f"{step.flops.get(torch.bfloat16, 0) / 1e12:.2f}",
    "float32": lambda _, step: f"{step.flops[torch.float32] / 1e12:.3f}",
    "peak GB": lambda _, step: f"{step.peak / 1e9:.1f}",
    **{
        f"{part} ms": lambda _, step, part=part: f"{step.parts[part] * 1e3:.1f}"
        for part in (*PARTS, "rest")
    },
}


def row(case: Case) -> str:
    """A line of the table."""
    plain, normalising = counted(case, 1), counted(case, NORMALISE_EVERY)
    waits, seconds = refreshed(case)
    every = TrainSettings().refresh
    mean = plain.seconds + (normalising.seconds - plain.seconds) / NORMALISE_EVERY + seconds / every
    pool = pool_seconds(case)
    cells = [cell(case, plain) for cell in COLUMNS.values()]
    cells += [f"{waits}", f"{mean * 1e3:.1f}", f"{pool * 1e3:.1f}"]
    cells += [f"{case.batch / mean:,.0f}", f"{case.batch / (mean + pool):,.0f}"]
    cells += [f"{WANTED[case.kind]:,}", MEASURED[case.kind], "not measured"]
    return f"| {' | '.join(cells)} |"


def table(cases: list[Case]) -> str:
    """Steps, and the start."""
    columns = [*COLUMNS, "waits of a refresh", "step ms", "pool ms", "tokens/s, step alone"]
    columns += ["tokens/s", "wanted", "measured 2026-11-28", "measured now"]
    lines = [
        "# A training step",
        "",
        f"{date.today()} · counted on a made-up card, not measured on a real one · {N_LAYERS} "
        f"layers × {D_MODEL}, {D_DICT:,} features per layer, L0 {L0:g} · launches to rest ms: a "
        "plain step",
        "",
        f"| {' | '.join(columns)} |",
        "|" + "--:|" * len(columns),
    ]
    for case in cases:
        lines.append(row(case))
        print(lines[-1], flush=True)
    found = started()
    lines += [
        "",
        "# The start",
        "",
        f"{D_DICT:,} examples far apart for each of {N_LAYERS} layers, from "
        f"{start.example_tokens(D_DICT):,} random vectors: one "
        f"layer counted, times {N_LAYERS}; the host's seconds are this machine's",
        "",
        "| launches | waits | TFLOP | MB copied | host s | card s, waits and copies | sum | wanted "
        "| measured 2026-11-28 | measured now |",
        "|" + "--:|" * 10,
        f"| {found.launches:,} | {found.waits:,} | {found.flops / 1e12:.1f} | "
        f"{found.copied / 1e6:,.0f} | {found.host:.1f} | {found.seconds:.1f} | "
        f"{found.host + found.seconds:.1f} | 5 | 67 | not measured |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)))
    parser.add_argument("--out", type=Path, help="also write the tables here")
    options = parser.parse_args()
    found = table([CASES[number] for number in options.cases])
    print(found)
    if options.out is not None:
        options.out.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
