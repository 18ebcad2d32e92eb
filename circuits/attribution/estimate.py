"""The cost of a trace, estimated from one forward pass before any row is computed.

Seconds are the FLOPs of the rows (`circuits.attribution.cost`) at this machine's matrix-product
rate, which is measured first, plus gathering, labelling and storing.  Memory is the sum of sources,
attention, blocks of rows and edges.  `benchmarks/estimates.py` compares both with real traces.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from circuits.attribution.cost import Plan
from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.rows import Expansion
from circuits.features.labels import LABELS_PER_LAYER
from circuits.machine import free_bytes, held_bytes

# Fitted to benchmarks/results/estimates.md; efficiencies are fractions of the matrix-product rate.
SWEEP_EFFICIENCY, LABEL_EFFICIENCY = 0.65, 0.7
SECONDS_PER_EDGE = 4e-8  # choosing rows, checking them and building the matrix
SECONDS_PER_STEP = 5e-4  # moving a block through a layer, however small
SECONDS_PER_LAYER = 2.5e-3  # gathering sources
SECONDS_PER_LABEL = 2.5e-4  # spelling


@dataclass(frozen=True)
class Estimate:
    """Cost of one trace."""

    active_features: int
    rows: int
    edges: int  # kept
    flops: float  # of the sweep
    gflops_per_second: float  # of this machine's matrix product
    seconds: float  # of the whole trace, the model being loaded
    peak_bytes: int  # of this process during the trace, the model included
    free_bytes: int  # what it could hold on this machine now
    device_bytes: int = 0  # on an accelerator, beyond the model


def estimate(
    local: LocalReplacement, expansion: Expansion, labels: int = 0, before: float = 0.0
) -> Estimate:
    """Rows, FLOPs, seconds and peak memory of expanding these features for these targets.

    `before` is the seconds that recording and finding the features took.
    """
    frozen, features = local.frozen, local.features
    plan = Plan(local, expansion)
    n_layers, costs, split = frozen.n_layers, plan.costs, plan.split
    flops = costs.of_rows(plan.rows, split) + costs.of_forward_prefix(split)
    rate = matrix_product_rate(frozen.dtype, frozen.device)
    # Some features of every layer are labelled whatever their influence.
    labelled = min(labels + n_layers * LABELS_PER_LAYER / 2, len(features)) if labels else 0
    seconds = (
        1.5 * before  # the trace repeats it, and its checks replay the prompt
        + flops / (SWEEP_EFFICIENCY * rate)
        + plan.blocks * (n_layers - split) * SECONDS_PER_STEP
        + n_layers * SECONDS_PER_LAYER
        + plan.edges * SECONDS_PER_EDGE
        + labelled * 2 * frozen.unembedding.numel() / (LABEL_EFFICIENCY * rate)
        + labelled * SECONDS_PER_LABEL
    )
    need, held = plan.need(), held_bytes()
    return Estimate(
        active_features=features.found,
        rows=plan.limit + len(local.targets.described),
        edges=int(plan.edges),
        flops=flops,
        gflops_per_second=rate / 1e9,
        seconds=seconds,
        peak_bytes=int(held + need.host),
        free_bytes=held + free_bytes(),
        device_bytes=int(need.device),
    )


def matrix_product_rate(dtype: torch.dtype, device: torch.device, seconds: float = 0.1) -> float:
    """FLOPs per second of a 2048 × 1024 × 1024 matrix product, the best of several."""
    left = torch.randn(2048, 1024, device=device).to(dtype)
    right = torch.randn(1024, 1024, device=device).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        product = left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        del product
    return 2 * 2048 * 1024 * 1024 / best
