"""Head nodes: a graph in which attention is explicit, as what heads write and where they take it.

Every edge of it stays at one position, or ends or starts at a head node, which is a head at one
query.  Rows end at what heads write at their positions (`circuits.attention.head_sources`), and a
head node has a row of its own, on its value side: what its keys carry into it, from further head
nodes too.  A head writes a vector, so that row needs a direction: that in which the rows above read
the head, as in `ReadHeads`.  Along it,

    value of a head node = Σ_row share of influence that the row draws from it

so its value is the influence that it carries, and its row takes that apart; both kinds of rows add
up to values.  Influence is known from the top: of a layer's head nodes when all rows above it are.

Why a head looks where it looks is a second row of a head node: with the norms of its layer running,
to first order,

    effect of a component = value · (its part of the log odds of the key that most is carried from)

against the keys that compete with it (`graphs.attention.scores`).  The effect on the value itself
would vanish for a head that looks at nothing else.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array
from torch import Tensor

from circuits.attention.graph_of_heads import HeadNode, Row, graph_of_heads
from circuits.attention.graph_rows import covectors_of
from circuits.attention.head_sources import HeadSources, LocalRows, shares_of
from circuits.attention.looks import looks, with_looks
from circuits.attention.meetings import LayerMeeting
from circuits.attention.scores import cap, competing
from circuits.interventions.experiment import Experiment
from circuits.interventions.origin import ExperimentError
from circuits.machine import exactly, in_float64, moved, on_device
from circuits.model.frozen import Covectors
from circuits.progress import Progress, ignore_progress
from circuits.recording.attention import value_bias
from graphs.core.attended import KEPT_LOOKS
from graphs.core.graph import AttributionGraph

MOST_HEADS = 4096  # head nodes
LEAST_SHARE = 1e-5  # of all influence that a head node carries


def with_head_nodes(
    experiment: Experiment,
    *,
    scores: bool = False,
    most: int = MOST_HEADS,
    n_looks: int = KEPT_LOOKS,
    progress: Progress = ignore_progress,
) -> AttributionGraph:
    """The graph with head nodes, at most so many and those that carry most, as many of each layer.

    What others write is dropped from rows.  With scores, head nodes have the second row too.  The
    graph keeps so many looks (`circuits.attention.looks`).

    Raises ExperimentError if the targets have no seed.
    """
    graph, n_layers = experiment.graph, experiment.local.frozen.n_layers
    if not graph.seed.any():
        raise ExperimentError(
            "No target of the graph has a seed, so no influence flows through heads: trace again."
        )
    with exactly():
        made = _Made(experiment, max(1, most // n_layers))
        for layer in reversed(range(n_layers + 1)):
            progress("heads", n_layers - layer, n_layers + 1)
            made.read_by_nodes(layer)
            if layer < n_layers:
                made.add_heads(layer)
        if scores:
            for layer in range(n_layers):
                progress("scores", layer, n_layers)
                made.add_scores(layer)
    made_graph = graph_of_heads(experiment, made.rows, made.heads, with_scores=scores)
    return with_looks(made_graph, looks(experiment, n_looks)) if n_looks else made_graph


class _Made:
    """A graph in the making, from the top."""

    def __init__(self, experiment: Experiment, most: int) -> None:
        self.experiment, self.most = experiment, most
        self.sources = HeadSources(experiment)
        graph = experiment.graph
        self.nodes = np.flatnonzero(graph.expanded)
        self.covectors, self.constants = covectors_of(experiment, self.nodes)
        self.level = self.covectors.level
        self.column = experiment.sources.columns(graph.nodes)
        self.arrived = np.zeros(len(experiment.sources.nodes))  # at sources, as shares
        self.read = self.sources.nothing_read()
        self.rows: dict[int, Row] = {}  # of nodes of the graph
        self.heads: list[HeadNode] = []

    def read_by_nodes(self, layer: int) -> None:
        """Add the rows of nodes that read the residual behind this layer's attention."""
        graph = self.experiment.graph
        here = np.flatnonzero((self.level >= 2 * layer) & (self.level < 2 * layer + 2))
        here = here[np.argsort(-self.level[here], kind="stable")]
        seed = graph.seed / graph.seed.sum()
        step = self.sources.rows_at_once(in_place=True)
        for start in range(0, len(here), step):
            some = here[start : start + step]
            nodes, own = self.nodes[some], self.covectors.take(some)
            constant = self.constants[on_device(some, self.constants.device)]
            rows = self._wide(self.sources.rows_in_place(own), own.layer, constant)
            column = self.column[nodes]
            arrived = seed[nodes] + np.where(column >= 0, self.arrived[column], 0.0)
            found = self._take_apart(rows, arrived)
            self.rows.update(zip(nodes.tolist(), found, strict=True))

    def add_heads(self, layer: int) -> None:
        """Add the head nodes of a layer that carry most, with their rows."""
        share = in_float64(self.read.share[layer]).numpy()
        order = np.argsort(-share, axis=None, kind="stable")[: self.most]
        chosen = order[share.ravel()[order] >= LEAST_SHARE]
        head, query = np.unravel_index(chosen, share.shape)
        step = self.sources.rows_at_once(in_place=False)
        for start in range(0, len(chosen), step):
            some = slice(start, start + step)
            rows = self._rows_of_heads(layer, head[some], query[some])
            found = self._take_apart(rows, share[head[some], query[some]])
            places = zip(head[some].tolist(), query[some].tolist(), found, strict=True)
            self.heads += [
                HeadNode(layer, number, pos, float(share[number, pos]), row)
                for number, pos, row in places
            ]

    def add_scores(self, layer: int) -> None:
        """Add to a layer's head nodes what makes them look where they look."""
        here = [place for place, one in enumerate(self.heads) if one.layer == layer]
        if not here:
            return
        local = self.experiment.local
        meeting = LayerMeeting(local.frozen, local.recording, layer)
        step = self.sources.rows_at_once(in_place=False)
        for start in range(0, len(here), step):
            some = here[start : start + step]
            nodes = [self.heads[place] for place in some]
            spread = torch.stack([self._toward_scores(meeting, one) for one in nodes])
            query = np.array([one.pos for one in nodes])
            rows = self.sources.rows(_entering(layer, query, spread), spread)
            none = spread.new_zeros(len(nodes))
            found = self._without_zeros(self._wide(rows, np.zeros(len(nodes), dtype=int), none))
            for place, row in zip(some, found, strict=True):
                self.heads[place] = self.heads[place]._replace(scores=row)

    def _toward_scores(self, meeting: LayerMeeting, node: HeadNode) -> Float[Tensor, "pos d_model"]:
        """The covector of the log odds of a head node's main key, times its value."""
        layer, head, query, *_ = node
        key = self.sources.main_key(layer, head, query, self.read.toward[layer, head, query])
        recorded = meeting.recorded
        attention = in_float64(recorded.pattern[0, head, query]).numpy()
        scores = in_float64(recorded.scores[0, head, query]).numpy()
        n_prefix = self.experiment.local.recording.prompt.n_prefix
        odds = -competing(attention, key, range(n_prefix, len(attention)))
        if not odds.any():
            return torch.zeros_like(meeting.residual)  # nothing competes
        odds[key] = 1.0
        weights = node.value * odds * cap(recorded, scores)[1]
        sides = (
            side(head, query, weights, running=True).covector
            for side in (meeting.at_query, meeting.at_keys)
        )
        return sum(sides, torch.zeros_like(meeting.residual))

    def _rows_of_heads(
        self, layer: int, head: Int[ndarray, " row"], query: Int[ndarray, " row"]
    ) -> LocalRows:
        """What keys carry into heads, along the directions in which these are read."""
        frozen, recording = self.experiment.local.frozen, self.experiment.local.recording
        block, recorded = frozen.blocks[layer], recording.blocks[layer]
        group = block.n_heads // block.n_kv_heads
        own, at = on_device(head, block.device), on_device(query, block.device)
        toward = moved(self.read.toward[layer], block.device)[own, at, : block.d_head]
        mixing = self.sources.attention.mixing_of(layer, self.sources.length)
        pattern = mixing[own // group, :, at, own % group]  # (row, key)
        value = block.value.unflatten(0, (block.n_kv_heads, -1))[own // group]
        on_values = torch.einsum("rd,rdm->rm", toward, value)
        spread = pattern[:, :, None] * on_values[:, None, :]
        rows = self.sources.rows(_entering(layer, query, spread), spread)
        bias = value_bias(block, recorded).unflatten(1, (block.n_kv_heads, -1))
        constant = torch.einsum("rk,krd,rd->r", pattern, bias[:, own // group], toward)
        return self._wide(rows, np.full(len(head), layer), constant)

    def _wide(
        self, rows: LocalRows, layer: Int[ndarray, " row"], constant: Float[Tensor, " row"]
    ) -> LocalRows:
        """Rows over all columns, with a constant among a layer's biases."""
        weights = rows.weights.new_zeros(len(rows.weights), len(self.arrived))
        weights[:, : rows.weights.shape[1]] = rows.weights
        column = on_device(self.experiment.sources.bias_column + layer, weights.device)
        row = torch.arange(len(weights), device=weights.device)
        weights[row, column] += moved(constant, weights.device)
        return replace(rows, weights=weights)

    def _take_apart(self, rows: LocalRows, arrived: Float[ndarray, " row"]) -> list[Row]:
        """Carry the influence that has arrived at rows on, and keep their weights."""
        shares = shares_of(rows, arrived)
        self.sources.read(rows, shares, self.read)
        self.arrived += (in_float64(shares) @ in_float64(rows.weights).abs()).numpy()
        return self._without_zeros(rows)

    def _without_zeros(self, rows: LocalRows) -> list[Row]:
        heads = rows.heads_by_position(self.sources.length).flatten(1)
        whole = torch.cat([in_float64(rows.weights), in_float64(heads)], 1)
        found = csr_array(whole.numpy())
        found.sort_indices()
        ends = zip(found.indptr[:-1].tolist(), found.indptr[1:].tolist(), strict=True)
        return [Row(found.indices[a:b], found.data[a:b]) for a, b in ends]


def _entering(
    layer: int, query: Int[ndarray, " row"], spread: Float[Tensor, "row pos d_model"]
) -> Covectors:
    """Covectors on the residual that enters a layer, at all positions up to a query."""
    every = torch.arange(len(query), device=spread.device)
    own = spread[every, on_device(query, spread.device)]
    weight, entering = np.zeros(len(query)), np.ones(len(query), dtype=bool)
    return Covectors(np.full(len(query), layer), query, own, weight, entering)
