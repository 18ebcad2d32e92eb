"""Which targets an accelerator sweeps together.

A group is carried up to the latest position among its targets, so many small groups waste little
and few large ones launch little.  A dynamic program over ends of groups finds where both cost least
together.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from circuits.model.frozen import FrozenModel

# FLOPs per second of a card, and seconds of a launch: a third of 6 µs, since most launches are
# hidden behind the products before them.  Only the ratio of both matters.
RATE, LAUNCH = 4e13, 2e-6
LAUNCHES = 11  # of a group at each layer
ENDS = 32  # positions at which a group may end, at most


def groups_of(
    levels: Int[ndarray, " row"],
    pos: Int[ndarray, " row"],
    frozen: FrozenModel,
    most_bytes: int,
) -> list[Int[ndarray, " member"]]:
    """Targets that are swept together, each group by level from the top.

    `most_bytes`: of the covectors of a group, and of what attention makes of them.
    """
    ends = np.unique(pos)
    if len(ends) > ENDS:
        ends = np.unique(np.quantile(pos, np.linspace(0, 1, ENDS + 1)[1:], method="higher"))
    bucket = np.searchsorted(ends, pos)
    crossed = np.bincount(bucket, weights=levels / 2 + 1.0, minlength=len(ends))
    before = np.concatenate([[0.0], crossed.cumsum()])
    launch = LAUNCHES * frozen.n_layers * LAUNCH
    best, start = np.zeros(len(ends) + 1), np.zeros(len(ends) + 1, dtype=int)
    for end in range(1, len(ends) + 1):
        seconds = _flops(frozen, int(ends[end - 1]) + 1) / RATE
        costs = best[:end] + (before[end] - before[:end]) * seconds + launch
        start[end] = int(costs.argmin())
        best[end] = costs[start[end]]
    groups: list[ndarray] = []
    end = len(ends)
    while end:
        rows = np.flatnonzero((bucket >= start[end]) & (bucket < end))
        most = max(1, int(most_bytes / _bytes(frozen, int(ends[end - 1]) + 1)))
        rows = rows[np.argsort(-levels[rows], kind="stable")]
        groups += [rows[at : at + most] for at in range(0, len(rows), most)]
        end = int(start[end])
    return groups


def _flops(frozen: FrozenModel, n_pos: int) -> float:
    """Of carrying one covector at so many positions through one layer."""
    block = frozen.blocks[0]
    heads, kv_heads = block.output.shape[1], len(block.value)
    return n_pos * 2.0 * frozen.d_model * (heads + kv_heads) + n_pos * (n_pos + 1.0) * heads


def _bytes(frozen: FrozenModel, n_pos: int) -> float:
    """Of one covector at so many positions, of its heads, and of what is read off it."""
    block = frozen.blocks[0]
    numbers = 4 * frozen.d_model + block.output.shape[1] + len(block.value)
    return float(n_pos * numbers * frozen.unembedding.element_size())
