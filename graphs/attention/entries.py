"""Attention entries: what each entry of the patterns carries into a target.

    flow[layer, head, query, key] = (covector above attention, at the query) · W_O · pattern · value

A path counts in every attention that it crosses, so flows of one layer add up to what passes that
attention, and flows of several layers do not add up.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from numpy import ndarray

from graphs.core.brief import Brief


@dataclass(frozen=True, repr=False)
class AttentionEntries(Brief):
    """The entries that carry most into a target, most first."""

    target: int  # row of the graph
    layer: Int[ndarray, " entry"]
    head: Int[ndarray, " entry"]
    query: Int[ndarray, " entry"]  # position
    key: Int[ndarray, " entry"]
    flow: Float[ndarray, " entry"]  # in units of the target
    attention: Float[ndarray, " entry"]  # what the softmax gives the key
    passing: Float[ndarray, " layer"]  # sum of all flows of each layer
