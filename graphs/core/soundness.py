"""Soundness: consistency of a graph file, to detect damage.

A trace measures by how much its rows miss their values (`Checks.conservation_max`), and pruning
counts what it removes from a row as dropped.  So in every file of such a graph, for each row t,

    |sum(weights[t]) + dropped[t] - value[t]| <= conservation_max * (sum |weights[t]| + lost[t])

with lost = dropped_absolute.  Activations and values are finite, seeds are probabilities, or 1 for
targets that the user named, and tokens are those of the header.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.core.graph import AttributionGraph, row_sizes, row_sums
from graphs.core.nodes import NodeId, NodeKind, NodeTable
from graphs.core.provenance import LEAST_SURPRISE, TokenReading
from graphs.core.responses import Responses

_ROUNDING = 1e-9  # of sums in another order, relative


def require_sound(graph: AttributionGraph) -> None:
    """Raise ValueError, naming the first faulty node, for a graph that is inconsistent.

    Graphs of other programs have no conservation check and always pass.
    """
    if graph.provenance.checks.conservation_max is None:
        return
    _require_known(graph)
    _require_tokens(graph)
    _require_readings(graph)
    _require_seeds(graph)
    _require_rows(graph)


def _require_known(graph: AttributionGraph) -> None:
    nodes = graph.nodes
    features = nodes.is_kind(NodeKind.FEATURE)
    for name, column, needed in (
        ("activation", nodes.activation, features),
        ("value", nodes.value, graph.expanded),
    ):
        _refuse(graph, needed & ~np.isfinite(column), f"has no finite {name}")
    targets = np.zeros(len(graph), dtype=bool)
    targets[graph.target_rows()] = True
    filled = np.diff(graph.weights.indptr) > 0
    _refuse(graph, (filled | targets) & ~graph.expanded, "has a row but is not marked as expanded")


def _require_tokens(graph: AttributionGraph) -> None:
    nodes, ids = graph.nodes, np.array(graph.provenance.token_ids, dtype=np.int64)
    tokens: Int[ndarray, " token"] = np.flatnonzero(nodes.is_kind(NodeKind.TOKEN))
    wrong = np.zeros(len(graph), dtype=bool)
    wrong[tokens] = nodes.index[tokens] != ids[nodes.pos[tokens]]
    _refuse(graph, wrong, "differs from the header's token at its position")


def _require_readings(graph: AttributionGraph) -> None:
    """What a target reads, by the header, is at its position, and a logit of its token."""
    nodes, wrong = graph.nodes, np.zeros(len(graph), dtype=bool)
    for row, target in zip(graph.target_rows(), graph.provenance.targets, strict=True):
        reading = target.reading
        if isinstance(reading, TokenReading) and reading.what == "logit":
            wrong[row] = nodes[int(row)] != NodeId(NodeKind.LOGIT, None, reading.pos, reading.index)
        elif reading is not None:
            wrong[row] = nodes.pos[row] != reading.pos
    _refuse(graph, wrong, "differs from what the header says that it reads")


def _require_seeds(graph: AttributionGraph) -> None:
    rows, targets = graph.target_rows(), graph.provenance.targets
    known = [target.probability for target in targets]
    expected = np.array([np.nan if one is None else one for one in known])
    seeds: Float[ndarray, " target"] = graph.seed[rows]
    in_sequence = [t.reading is not None and t.reading.what == "sequence" for t in targets]
    others = ~np.array(in_sequence, dtype=bool)
    if np.allclose(seeds[others], 1.0, rtol=_ROUNDING, atol=0.0):
        expected[others] = 1.0
    expected[~others] = np.maximum(LEAST_SURPRISE, 1 - expected[~others])
    wrong = np.zeros(len(graph), dtype=bool)
    wrong[rows] = ~np.isclose(seeds, expected, rtol=_ROUNDING, atol=0.0)
    _refuse(graph, wrong, "has a seed that is neither its probability nor 1")


def _require_rows(graph: AttributionGraph) -> None:
    limit = (graph.provenance.checks.conservation_max or 0.0) * (1 + _ROUNDING) + _ROUNDING
    _require_sums(graph.nodes, graph, graph.expanded, limit)
    if graph.responses is not None:
        rows = graph.responses
        _require_sums(rows.nodes, rows, np.ones(len(rows.nodes), dtype=bool), limit)


def _require_sums(
    nodes: NodeTable, rows: AttributionGraph | Responses, whole: Bool[ndarray, " row"], limit: float
) -> None:
    """Raise ValueError for a whole row whose sum is not its node's value."""
    sums = row_sums(rows.weights) + rows.dropped
    totals = row_sizes(rows.weights) + rows.dropped_absolute
    miss = np.abs(sums - nodes.value)
    wrong = whole & ~(miss <= limit * np.where(totals > 0, totals, 1.0))
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{nodes[row]} has weights that sum to {sums[row]:.6g} but the value "
            f"{nodes.value[row]:.6g}: the file is damaged, get it again."
        )


def _refuse(graph: AttributionGraph, wrong: Bool[ndarray, " node"], what: str) -> None:
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(f"{graph.nodes[row]} {what}: the file is damaged, get it again.")
