"""The largest products of vectors of two sets, without forming all of them.

No product is larger than that of its vectors' lengths, so vectors go by falling length, and a block
of them stops where even the longest can no longer reach what has been found.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.machine import in_float64

BLOCK = 256  # vectors of one set that are multiplied at once
MOST_ADDED = 2 * 10**8  # products whose sizes are all added up


class StrongestPairs(NamedTuple):
    """Pairs whose products are largest, largest first."""

    left: Int[ndarray, " pair"]
    right: Int[ndarray, " pair"]
    product: Float[ndarray, " pair"]
    total: float | None  # of the sizes of all products; None: too many


def strongest_pairs(
    left: Float[Tensor, "width left"], right: Float[Tensor, "width right"], count: int
) -> StrongestPairs:
    """The `count` pairs of columns with the largest products, in size."""
    sizes = left.norm(dim=0), right.norm(dim=0)
    order = [size.argsort(descending=True) for size in sizes]
    lengths = [size[one] for size, one in zip(sizes, order, strict=True)]
    shortened = lengths[1].flip(0).contiguous()  # ascending, to be searched
    whole = left.shape[1] * right.shape[1] <= MOST_ADDED
    count = min(count, left.shape[1] * right.shape[1])
    best = left.new_zeros(0)
    pairs = torch.zeros(2, 0, dtype=torch.int64, device=left.device)
    least, total = 0.0, 0.0
    for start in range(0, left.shape[1], BLOCK):
        longest = float(lengths[0][start])
        near = right.shape[1]
        if longest > 0 and len(best) == count:
            near -= int(torch.searchsorted(shortened, least / longest))
        near = right.shape[1] if whole else near
        if near == 0 or longest == 0:
            break
        rows = order[0][start : start + BLOCK]
        products = left[:, rows].T @ right[:, order[1][:near]]
        flat = products.flatten()
        total += float(flat.abs().sum(dtype=torch.float64)) if whole else 0.0
        top = flat.abs().topk(min(count, len(flat))).indices
        there = torch.stack([rows[top // near], order[1][top % near]])
        best, pairs = torch.cat([best, flat[top]]), torch.cat([pairs, there], 1)
        kept = best.abs().topk(min(count, len(best))).indices
        best, pairs = best[kept], pairs[:, kept]
        least = float(best.abs().min()) if len(best) == count else 0.0
    found = pairs.cpu().numpy()
    product = in_float64(best).numpy()
    return StrongestPairs(found[0], found[1], product, total if whole else None)
