"""What a trace will cost, from one forward pass and before any row is computed.

Seconds are the FLOPs that rows need (`circuits.flops`) at the rate of this machine's own matrix
product, measured on the spot.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

import torch

from circuits.adjoint import BLOCK_WEIGHTS
from circuits.cores import workers_for
from circuits.covectors import Covectors
from circuits.expand import Expansion
from circuits.features import ActiveFeatures
from circuits.flops import Costs
from circuits.frozen import FrozenModel
from circuits.recording import Recording

SWEEP_EFFICIENCY = 0.57  # of the matrix product's rate, see benchmarks/results/speed.md
SECONDS_PER_EDGE = 4e-8  # choosing rows and making the matrix, see benchmarks/results/speed.md


@dataclass(frozen=True)
class Estimate:
    """Cost of one trace."""

    active_features: int
    rows: int
    flops: float  # of the sweep
    gflops_per_second: float  # of this machine's matrix product
    seconds: float  # sweep and graph, without loading the model
    peak_bytes: int  # of the process, model included


def estimate(
    frozen: FrozenModel,
    recording: Recording,
    features: ActiveFeatures,
    expansion: Expansion,
    targets: Covectors,
) -> Estimate:
    """Rows, FLOPs, seconds and peak memory of expanding these features for these targets."""
    limit, n_targets = expansion.limit(len(features)), len(targets.pos)
    share = limit / max(1, len(features))
    costs = Costs(frozen, recording, features)
    floor = costs.best_floor(share)
    rows = costs.features * share + costs.table(targets.layer, targets.pos)
    flops = costs.of_rows(rows, floor) + costs.of_pushing(floor)
    rate = matrix_product_rate(frozen.dtype, frozen.device)
    sources = len(features) + frozen.n_layers * len(recording.prompt)
    edges = (limit + n_targets) * sources / 4  # a target sees half the layers and positions
    return Estimate(
        active_features=features.found,
        rows=limit + n_targets,
        flops=flops,
        gflops_per_second=rate / 1e9,
        seconds=flops / (SWEEP_EFFICIENCY * rate) + edges * SECONDS_PER_EDGE,
        peak_bytes=peak_bytes(frozen, recording, features, edges),
    )


def peak_bytes(
    frozen: FrozenModel, recording: Recording, features: ActiveFeatures, edges: float
) -> int:
    """Peak of this process so far, model and forward pass included, and what is still to come.

    Source vectors are gathered once and packed once; a row's edges live beside the matrix that is
    made from them, each with a value and a 32-bit column.
    """
    size = frozen.unembedding.element_size()
    written = int((features.last_written - features.layer + 1).sum())
    vectors = 2 * (written + frozen.n_layers * len(recording.prompt)) * frozen.d_model * size
    blocks = workers_for(frozen.device) * 4 * BLOCK_WEIGHTS * size  # while they are thinned
    so_far = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(so_far + vectors + min(blocks, 4 * edges * size) + 2 * (size + 4) * edges)


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
