"""Chains of boxes: from a token of the prompt through groups to the heaviest target.

A chain is as strong as the product of the shares that each of its boxes takes of what flows into
the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.influence import carried
from graphs.core.graph import AttributionGraph

CHAINS = 2
BESIDE = 0.1  # of the strongest chain, from which another one stands beside it

Chain = tuple[int, ...]  # boxes, from the token to the target


def strongest_chains(
    tokens: Collection[int],
    groups: Collection[int],
    end: int,
    flow: Float[ndarray, "target source"],
) -> tuple[Chain, ...]:
    """The strongest chain, and the strongest of those that share no token and no group with it.

    Boxes are numbered so that sources come before targets.
    """
    into = flow.sum(axis=1, keepdims=True)
    share = np.divide(flow, into, out=np.zeros_like(flow), where=into > 0)
    found: list[Chain] = []
    least, used = 0.0, set[int]()
    while len(found) < CHAINS:
        strength, chain = _strongest(
            [at for at in tokens if at not in used],
            [at for at in groups if at not in used],
            end,
            share,
        )
        if strength <= least:
            break
        found.append(chain)
        least, used = BESIDE * strength, used | set(chain)
    return tuple(found)


def _strongest(
    tokens: Sequence[int],
    groups: Sequence[int],
    end: int,
    share: Float[ndarray, "target source"],
) -> tuple[float, Chain]:
    """The strongest chain and its strength; 0 if there is none."""
    best: dict[int, tuple[float, Chain]] = {at: (1.0, (at,)) for at in tokens}

    def onto(at: int, sources: Collection[int]) -> tuple[float, Chain]:
        steps = (
            (strength * float(share[at, source]), (*chain, at))
            for source in sources
            for strength, chain in [best[source]]
        )
        return max(steps, default=(0.0, ()))

    for at in sorted(groups):
        best[at] = onto(at, tuple(best))
    return onto(end, groups) if end >= 0 else (0.0, ())


def carried_by(graph: AttributionGraph, groups: Sequence[Int[ndarray, " _member"]]) -> float:
    """Of what reaches the heaviest target, the share that passes through one of these groups."""
    if not groups:
        return 0.0
    through = np.zeros(len(graph), dtype=bool)
    through[np.concatenate(groups)] = True
    seed = np.zeros(len(graph))
    seed[graph.heaviest_target()] = 1.0
    return float(carried(graph.weights, graph.row_totals(), seed, ends=through)[through].sum())
