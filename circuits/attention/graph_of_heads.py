"""From rows that end at heads to a graph with head nodes (`circuits.attention.head_nodes`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from circuits.interventions.experiment import Experiment
from graphs.analysis.influence import error_influence_share, influence, resolved_share
from graphs.core.graph import AttributionGraph, row_sums
from graphs.core.nodes import TARGET_KINDS, NodeKind, NodeTable

KEPT_SHARE = 0.999  # of a row's absolute sum, if the graph does not say what was kept


class Row(NamedTuple):
    """Row of one node, without zeros."""

    column: Int[ndarray, " edge"]  # of the sources, and behind them (layer, head, pos)
    weight: Float[ndarray, " edge"]


class HeadNode(NamedTuple):
    """A head at one query."""

    layer: int
    head: int
    pos: int
    value: float  # share of all influence that it carries
    row: Row
    scores: Row | None = None  # effects through its pattern; None: not asked for


def graph_of_heads(
    experiment: Experiment,
    rows: Mapping[int, Row],
    heads: Sequence[HeadNode],
    *,
    with_scores: bool,
) -> AttributionGraph:
    """A graph's nodes with heads in front of their layers' features; `rows` are those of its nodes.

    Rows keep the share of their absolute sum that the graph's rows kept.
    """
    old = experiment.graph
    places = _Places.of(experiment, heads)
    kept = old.provenance.settings.get("kept_share")
    share = float(kept) if isinstance(kept, int | float) else KEPT_SHARE
    number = old.weights.dtype
    own = {int(places.of_old[node]): row for node, row in rows.items()}
    own |= {int(place): one.row for place, one in zip(places.of_head, heads, strict=True)}
    weights, dropped, dropped_absolute = _assembled(own, places, share, number)
    scores = None
    if with_scores:
        looked = {
            int(place): one.scores
            for place, one in zip(places.of_head, heads, strict=True)
            if one.scores is not None
        }
        scores = _assembled(looked, places, share, number)[0]
    count = len(places.nodes)

    def moved(column: ndarray, otherwise: float | bool) -> ndarray:
        new = np.full(count, otherwise, dtype=column.dtype)
        new[places.of_old] = column
        return new

    new = replace(
        old,
        nodes=places.nodes,
        weights=weights,
        seed=moved(old.seed, 0.0),
        dropped=dropped,
        dropped_absolute=dropped_absolute,
        expanded=moved(old.expanded, True),
        output_tokens={int(places.of_old[row]): top for row, top in old.output_tokens.items()},
        responses=None,
        heads=None,
        attended=None,
        imported=None,
        score_weights=scores,
    )
    return _checked(new)


class _Places(NamedTuple):
    """Rows of a graph with head nodes."""

    nodes: NodeTable
    of_old: Int[ndarray, " node"]  # of the graph without
    of_head: Int[ndarray, " head"]
    of_column: Int[ndarray, " column_and_head"]  # -1: is no node

    @staticmethod
    def of(experiment: Experiment, heads: Sequence[HeadNode]) -> _Places:
        old, frozen = experiment.graph.nodes, experiment.local.frozen
        n_heads, length = (
            max(b.n_heads for b in frozen.blocks),
            len(experiment.local.recording.prompt),
        )
        layer, head, pos = np.array([one[:3] for one in heads], dtype=np.int64).reshape(-1, 3).T
        written = old.is_kind(NodeKind.FEATURE, NodeKind.ERROR)
        level = np.where(written, 2 * old.layer + 1, -1)
        level[old.is_kind(*TARGET_KINDS)] = 2 * frozen.n_layers
        order = np.argsort(np.concatenate([level, 2 * layer]), kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        of_old, of_head = place[: len(old)], place[len(old) :]
        value = np.array([one.value for one in heads])
        nothing = np.full(len(heads), np.nan)
        new = np.full(len(heads), NodeKind.HEAD), layer, pos, head, nothing, value
        columns = zip(old.columns().values(), new, strict=True)
        joined = (np.concatenate([a, b.astype(a.dtype)])[order] for a, b in columns)
        column = experiment.sources.columns(old)
        n_columns = len(experiment.sources.nodes)
        of_column = np.full(n_columns + frozen.n_layers * n_heads * length, -1)
        of_column[column[column >= 0]] = of_old[column >= 0]
        of_column[n_columns + (layer * n_heads + head) * length + pos] = of_head
        return _Places(NodeTable(*joined), of_old, of_head, of_column)


def _assembled(
    rows: Mapping[int, Row], places: _Places, share: float, number: np.dtype
) -> tuple[csr_array, Float[ndarray, " node"], Float[ndarray, " node"]]:
    """Weights, and the sum and the absolute sum of what each row has dropped."""
    count = len(places.nodes)
    counts = np.zeros(count + 1, dtype=np.int64)
    dropped, dropped_absolute = np.zeros((2, count))
    columns, data = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for target in sorted(rows):
        row = rows[target]
        source = places.of_column[row.column]
        kept = _largest(row.weight, share) & (source >= 0)
        order = np.argsort(source[kept])
        columns.append(source[kept][order])
        data.append(row.weight[kept][order])
        counts[target + 1] = len(order)
        dropped[target] = row.weight[~kept].sum()
        dropped_absolute[target] = np.abs(row.weight[~kept]).sum()
    arrays = np.concatenate(data).astype(number), np.concatenate(columns), counts.cumsum()
    return csr_array(arrays, shape=(count, count)), dropped, dropped_absolute


def _largest(weight: Float[ndarray, " edge"], share: float) -> Bool[ndarray, " edge"]:
    """The largest weights in size, up to a share of the sum of sizes."""
    sizes = np.abs(weight)
    order = np.argsort(-sizes, kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    kept = np.zeros(len(weight), dtype=bool)
    kept[order[before < share * sizes.sum()]] = True
    return kept


def _checked(graph: AttributionGraph) -> AttributionGraph:
    """The same with the checks of its own rows."""
    header, nodes, expanded = graph.provenance, graph.nodes, graph.expanded
    miss = np.abs(row_sums(graph.weights) + graph.dropped - nodes.value)[expanded]
    totals = graph.row_totals()[expanded]
    residuals = np.divide(miss, totals, out=np.zeros_like(miss), where=totals > 0)
    arrived = influence(graph)
    checks = header.checks.model_copy(
        update={
            "conservation_max": float(residuals.max(initial=0.0)),
            "conservation_median": float(np.median(residuals)),
            "heads_max": None,
            "edge_heads_max": None,
            "scores_max": None,
            "influence_resolved": resolved_share(nodes, expanded, graph.seed, arrived),
            "error_influence_share": error_influence_share(nodes, arrived),
        }
    )
    settings = {
        **header.settings,
        "attention": "heads" if graph.score_weights is None else "scores",
    }
    update = {"checks": checks, "settings": settings, "report": None, "stability": None}
    return replace(graph, provenance=header.model_copy(update=update))
