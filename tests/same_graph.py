"""When two graphs are the same."""

from __future__ import annotations

import numpy as np

from graphs.core.graph import AttributionGraph
from graphs.core.responses import Responses


def assert_same_graph(one: AttributionGraph, other: AttributionGraph, dtypes: bool = True) -> None:
    """Everything equal to the bit; dtypes of node columns too, unless told otherwise."""
    pairs = [(a, other.nodes.columns()[name]) for name, a in one.nodes.columns().items()]
    pairs += [(getattr(one, n), getattr(other, n)) for n in ("seed", "dropped_absolute")]
    pairs += [(getattr(one, n), getattr(other, n)) for n in ("dropped", "expanded")]
    for a, b in pairs:
        np.testing.assert_array_equal(a, b, strict=dtypes)
    for name in ("indptr", "indices"):
        np.testing.assert_array_equal(getattr(one.weights, name), getattr(other.weights, name))
    assert one.weights.dtype == other.weights.dtype
    assert one.weights.data.tobytes() == other.weights.data.tobytes()
    assert one.provenance == other.provenance
    assert dict(one.output_tokens) == dict(other.output_tokens)
    assert_same_responses(one.responses, other.responses)


def assert_same_responses(one: Responses | None, other: Responses | None) -> None:
    if one is None or other is None:
        assert one is other
        return
    assert (one.norms, one.neurons) == (other.norms, other.neurons)
    for name, column in one.nodes.columns().items():
        np.testing.assert_array_equal(column, other.nodes.columns()[name])
    np.testing.assert_array_equal(one.weights.toarray(), other.weights.toarray(), strict=True)
    for name in ("constant", "threshold", "dropped", "dropped_absolute", "flows"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
