"""What a trace will cost, from one forward pass and before any row is computed.

FLOPs are counted for what is needed, not for what blocks waste.  A target at position p that reads
layer l crosses l + 1 attentions (l where attention and MLP are parallel), the first at its own
position alone and the others at all n = p + 1 - context positions:

    2 · (1 + (crossed - 1) · n) · d_model · heads · d_head     through W_O
    2 · crossed · n · d_model · kv heads · d_head              through W_V
    crossed · n · (n + 1) · heads · d_head                     through the causal pattern
    2 · d_model · (sources that it sees)                       read off

Seconds are those FLOPs at the rate of this machine's own matrix product, measured on the spot.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.adjoint import BLOCK_WEIGHTS
from circuits.cores import workers_for
from circuits.expand import Expansion
from circuits.features import ActiveFeatures
from circuits.frozen import FrozenModel
from circuits.recording import Recording

SWEEP_EFFICIENCY = 0.6  # of the matrix product's rate, see benchmarks/results/speed.md
SECONDS_PER_EDGE = 7e-8  # choosing rows and making the matrix, see benchmarks/results/speed.md


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
    n_targets: int,
) -> Estimate:
    """Rows, FLOPs, seconds and peak memory of expanding these features."""
    limit = len(features) if expansion.everything else min(expansion.max_features, len(features))
    share = limit / max(1, len(features))
    length = len(recording.prompt)
    at_end = torch.full((n_targets,), length - 1)
    flops = sweep_flops(frozen, recording, features, features.layer, features.pos) * share
    flops += sweep_flops(frozen, recording, features, at_end * 0 + frozen.n_layers, at_end)
    rate = matrix_product_rate(frozen.dtype, frozen.device)
    sources = len(features) + frozen.n_layers * length
    edges = (limit + n_targets) * sources / 4  # a target sees half the layers and positions
    return Estimate(
        active_features=features.found,
        rows=limit + n_targets,
        flops=flops,
        gflops_per_second=rate / 1e9,
        seconds=flops / (SWEEP_EFFICIENCY * rate) + edges * SECONDS_PER_EDGE,
        peak_bytes=peak_bytes(frozen, recording, features, edges),
    )


def sweep_flops(
    frozen: FrozenModel,
    recording: Recording,
    features: ActiveFeatures,
    layer: Int[Tensor, " row"],
    pos: Int[Tensor, " row"],
) -> float:
    """FLOPs that rows for these targets need."""
    block, context = frozen.blocks[0], recording.prompt.context_only
    heads, kv_heads = block.output.shape[1], block.value.shape[0]
    length = len(recording.prompt)
    layer, pos = layer.cpu(), pos.cpu()
    crossed = (layer + (0 if frozen.parallel else 1)).clamp(max=frozen.n_layers).double()
    swept = (pos + 1 - context).clamp(min=1).double()
    dense = (crossed - 1).clamp(min=0) * swept
    through_weights = 2 * frozen.d_model * ((1 + dense) * heads + crossed * swept * kv_heads)
    through_pattern = crossed * swept * (swept + 1) * heads
    # Sources by layer and position, summed over all before: every position also has an error.
    counts = torch.ones(frozen.n_layers + 1, length, dtype=torch.float64)
    counts.index_put_(
        (features.layer.cpu(), features.pos.cpu()),
        torch.ones(len(features), dtype=torch.float64),
        accumulate=True,
    )
    before = counts.cumsum(0).cumsum(1)
    before = torch.cat([torch.zeros(1, length, dtype=torch.float64), before])
    read = 2 * frozen.d_model * before[layer, pos]
    return float((through_weights + through_pattern + read).sum())


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
