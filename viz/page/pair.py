"""Pair: the data of a page for two of its graphs side by side.

    difference[n] = (own − partner) / (own + partner)     own: share of influence; 1 without partner

Aligned tokens share a column, and boxes of the two overviews that are counterparts a place.  Graphs
of one dictionary are matched by identity, those of two by evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.comparison.correspond import CorrespondSettings, correspond
from graphs.comparison.matching import Match, match_by_identity
from graphs.comparison.positions import align_prompts, shared_columns
from graphs.core.graph import AttributionGraph
from graphs.core.identity import same_dictionary
from graphs.groups.overview import Overview
from viz.html.columns import columns
from viz.page.overview import paired_overviews
from viz.page.part import Part
from viz.page.payload import level_data, placed_together
from viz.plot.layout import BIAS

NO_PARTNER = -1  # a node that the other graph lacks
NOT_SHOWN = -2  # the other graph has it, the page has not


def pair_data(
    first: Part, second: Part, overviews: tuple[Overview | None, Overview | None] = (None, None)
) -> list[dict[str, Any]]:
    """Partner of each node, difference, columns, layouts and boxes, for both graphs."""
    positions = align_prompts(first.graph.provenance, second.graph.provenance)
    match = _match(first.graph, second.graph, positions)
    slots = shared_columns(positions, len(second.graph.provenance.tokens))
    levels = placed_together(
        *(
            (one, np.where(pos >= 0, own[np.maximum(pos, 0)], BIAS))
            for one, own in zip((first, second), slots, strict=True)
            for pos in [one.graph.nodes.pos[one.rows]]
        )
    )
    one, other = overviews
    boxes: Sequence[dict[str, Any]] = ({}, {})
    if one is not None and other is not None:
        boxes = paired_overviews((first, second), (one, other), match, slots)
    return [
        {
            **matched,
            **boxes[side],
            "columnOf": slots[side].tolist(),
            "levels": [
                level_data((first, second)[side], rows[side], placed[side])
                for rows, placed in levels
            ],
        }
        for side, matched in enumerate(_matched(first, second, match))
    ]


def _match(
    one: AttributionGraph, other: AttributionGraph, positions: Int[ndarray, " pos"]
) -> Match:
    if same_dictionary(one, other):
        return match_by_identity(one, other, positions)
    return correspond(one, other, CorrespondSettings(permutations=0)).comparison.match


def _matched(first: Part, second: Part, match: Match) -> list[dict[str, Any]]:
    """Partner of each node on the page, and difference, for both graphs."""
    sides = ((first, second, match.first, match.second), (second, first, match.second, match.first))
    found: list[dict[str, Any]] = []
    for one, other, own, there in sides:
        number = np.full(len(other.graph) + 1, NOT_SHOWN)
        number[-1] = NO_PARTNER  # to which the partner of nodes without one, -1, refers
        number[other.rows] = np.arange(len(other.rows))
        partner = np.full(len(one.graph), -1)
        partner[own] = there
        here = partner[one.rows]
        shown = number[here]
        found.append(
            columns(partner=shown.astype(np.int32), difference=_difference(one, other, here))
        )
    return found


def _difference(one: Part, other: Part, partner: Int[ndarray, " kept"]) -> Float[ndarray, " kept"]:
    own = one.strengths.arrived[one.rows]
    there = np.append(other.strengths.arrived, 0.0)[partner]  # -1 for no partner
    total = own + there
    return np.divide(own - there, total, out=np.zeros_like(total), where=total > 0)
