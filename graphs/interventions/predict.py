"""Prediction: the effects of an intervention, computed from a graph.

Direct effects of a changed source change in proportion:

    change[t] = Σ_s weights[t, s] · relative[s]          relative[s] = new / old - 1

In frozen layers features stay as they are unless they are edited, so this is all.  Above them a
feature follows its inputs and passes the change on, layer by layer, and norms run.  Of what runs
the graph knows what its responses have (`graphs.core.responses`):

    the final norm      always: new value = (value - constant + change) · old σ / new σ + constant
    norms inside        those with rows, to first order in x·δ: |δ|² is not known there
    activation functions  of neurons whose gates have rows

What else a feature does is a choice:

    first   it changes in proportion to its inputs, a neuron by the slopes of its gate and factor
    full    a feature at or below its threshold is off, one above it changes as its value does, and
            a neuron follows its activation function

Features without a row do not follow their inputs.  Interventions measure how far the model agrees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeId, NodeKind
from graphs.core.nonlinearities import NONLINEARITIES, slope
from graphs.core.report import Order
from graphs.core.responses import FrozenNorm, NeuronForm, Responses
from graphs.interventions.changes import Intervention

Columns = Float[ndarray, "row intervention"]


def predict(
    graph: AttributionGraph,
    interventions: Sequence[Intervention],
    through: Sequence[int],
    order: Order = "first",
) -> Float[ndarray, "intervention node"]:
    """Change of every feature's and target's value, with the layers up to `through` frozen.

    From `graph.provenance.model.n_layers` on, the whole model is frozen.  nan: unknown, since the
    intervention changes nodes outside the graph, or the node has no row.
    """
    factor, offset, known = _edited(graph, interventions)
    propagated = _Propagated(graph, factor, offset, np.asarray(through), order)
    for layer in range(graph.provenance.model.n_layers):
        propagated.pass_layer(layer)
    change = propagated.at_targets()
    change[:, ~known] = np.nan
    return change.T


class _Propagated:
    """Changes of several interventions, propagated from the lowest layer to the targets."""

    def __init__(
        self,
        graph: AttributionGraph,
        factor: Columns,
        offset: Columns,
        frozen: ndarray,
        order: Order,
    ) -> None:
        nodes = graph.nodes
        self.graph, self.factor, self.frozen = graph, factor, frozen
        self.order: Order = order
        self.features = nodes.is_kind(NodeKind.FEATURE) & graph.expanded
        self.edited = (factor != 1) | (offset != 0)
        activation = np.where(nodes.is_kind(NodeKind.FEATURE), nodes.activation, np.nan)[:, None]
        self.shift = np.divide(offset, activation, out=np.zeros_like(offset), where=offset != 0)
        self.relative = factor - 1 + self.shift  # of each node
        self.change = np.zeros_like(self.relative)  # of each node's value
        self.responses = graph.responses
        n_norms = 0 if self.responses is None else self.responses.flows.shape[1]
        self.of_flows = np.zeros((n_norms, factor.shape[1]))  # relative, behind attention's norms
        self.neurons: _Neurons | None = None
        if self.responses is not None and self.responses.neurons is not None:
            self.neurons = _Neurons(graph, self.responses.neurons, self.responses)

    def pass_layer(self, layer: int) -> None:
        """Changes at the norms and features of a layer."""
        runs = layer > self.frozen
        for norm in self._norms("attention", layer):
            column = self._attention_norm(norm)
            self.of_flows[column] = np.where(runs, self._scale(norm) - 1, 0)
        rows = np.flatnonzero(self.features & (self.graph.nodes.layer == layer))
        if not len(rows):
            return
        scale = np.ones((len(rows), len(runs)))
        for norm in self._norms("mlp", layer):
            here = self.graph.nodes.pos[rows] == norm.pos
            scale[here] = np.where(runs, self._scale(norm), 1)
        inputs = self.direct(rows)
        change = self.scaled(rows, inputs, scale)
        activation = self.graph.nodes.activation[rows][:, None]
        if self.neurons is not None:
            gated = np.flatnonzero([row in self.neurons.gate for row in rows.tolist()])
            if len(gated):
                parts = rows[gated], self, inputs[gated], scale[gated], self.order
                change[gated] = np.where(runs, self.neurons.change(*parts), change[gated])
        new = activation + change
        if self.order == "full" and self.responses is not None:
            threshold = self.responses.threshold[rows][:, None]
            off = self.graph.nodes.value[rows][:, None] + change <= threshold  # False for nan
            new = np.where(off, 0, new)
        self.change[rows] = change
        follows = new / activation
        self.relative[rows] = np.where(
            runs,
            self.factor[rows] * follows + self.shift[rows] - 1,
            np.where(self.edited[rows], self.relative[rows], 0),
        )

    def at_targets(self) -> Columns:
        """Changes of all values; nan for nodes that are neither features with a row nor targets."""
        targets = self.graph.target_rows()
        scale = np.ones((len(targets), len(self.frozen)))
        through = _norms_of_targets(self.graph)
        for norm in () if self.responses is None else self.responses.norms:
            here = through.get((norm.before, norm.layer, norm.pos))
            if here:
                scale[here] = np.where(norm.layer > self.frozen, self._scale(norm), 1)
        self.change[targets] = self.scaled(targets, self.direct(targets), scale)
        known = self.features.copy()
        known[targets] = True
        self.change[~known] = np.nan
        return self.change

    def direct(self, rows: Int[ndarray, " row"]) -> Columns:
        """Changes of the values of nodes, with their own norm held."""
        change = self.graph.weights[rows] @ self.relative
        if self.responses is not None:
            change += self.responses.flows[rows] @ self.of_flows
        return change

    def of_responses(self, rows: Int[ndarray, " row"]) -> Columns:
        """The same of rows of the responses."""
        assert self.responses is not None
        flows = self.responses.flows[len(self.graph) + rows]
        return self.responses.weights[rows] @ self.relative + flows @ self.of_flows

    def scaled(self, rows: Int[ndarray, " row"], inputs: Columns, scale: Columns) -> Columns:
        """Changes with the norm in front running: its σ is divided by `scale`."""
        if self.responses is None:
            return inputs
        own = (self.graph.nodes.value[rows] - self.responses.constant[rows])[:, None]
        unscaled = (scale == 1) | np.isnan(own)  # or it reads no norm
        return np.where(unscaled, inputs, (own + inputs) * scale - own)

    def _norms(self, before: str, layer: int) -> list[FrozenNorm]:
        norms = () if self.responses is None else self.responses.norms
        return [one for one in norms if one.before == before and one.layer == layer]

    def _attention_norm(self, norm: FrozenNorm) -> int:
        """Its column of flows."""
        assert self.responses is not None
        row = self.responses.rows_of(norm)[0]
        return int(self.responses.nodes.is_kind(NodeKind.ATTENTION_NORM)[:row].sum())

    def _scale(self, norm: FrozenNorm) -> Float[ndarray, " intervention"]:
        """Old σ over new σ."""
        assert self.responses is not None
        rows = self.responses.rows_of(norm)
        along, *others = self.of_responses(rows)
        square, width = norm.mean_square, norm.width
        if not others:
            return np.maximum(1 - along / (width * square), 0)
        length = self.responses.nodes.value[rows[0]]  # |x|²
        part = along / length if length > 0 else np.zeros_like(along)  # of x in δ
        beside = others - self.responses.nodes.value[rows[1:], None] * part
        size = length * part**2 + norm.dimensions / len(others) * np.square(beside).sum(axis=0)
        new = square + (2 * along + size) / width
        return np.sqrt(square / np.maximum(new, np.finfo(np.float64).tiny))


def _norms_of_targets(graph: AttributionGraph) -> dict[tuple[str | None, int, int], list[int]]:
    """The targets that read through each norm, by what it is in front of, layer and position."""
    found: dict[tuple[str | None, int, int], list[int]] = {}
    header, pos = graph.provenance, graph.nodes.pos[graph.target_rows()].tolist()
    for number, (target, at) in enumerate(zip(header.targets, pos, strict=True)):
        one = target.reading
        before = "unembedding" if one is None else one.norm
        layer = header.model.n_layers if one is None or one.layer is None else one.layer
        found.setdefault((before, layer, at), []).append(number)
    return found


class _Neurons:
    """The neurons whose gates have rows."""

    def __init__(self, graph: AttributionGraph, form: NeuronForm, responses: Responses) -> None:
        self.gated, self.function = form.gated, NONLINEARITIES[form.nonlinearity]
        nodes = responses.nodes
        gates = np.flatnonzero(nodes.is_kind(NodeKind.GATE))
        own = [
            NodeId(NodeKind.FEATURE, node.layer, node.pos, node.index) for node in nodes.take(gates)
        ]
        self.gate = {
            graph.find(node): row for node, row in zip(own, gates, strict=True) if node in graph
        }

    def change(
        self,
        rows: Int[ndarray, " row"],
        propagated: _Propagated,
        inputs: Columns,
        scale: Columns,
        order: Order,
    ) -> Columns:
        """Changes of activations; `inputs` are those with factors and norms held.

        With f the activation function, g the gate and u what f(g) is multiplied by, the half rule
        of a gated neuron gives inputs = (f(g) / g · u · Δg + f(g) · Δu) / 2.
        """
        responses = propagated.responses
        assert responses is not None
        gates = np.array([self.gate[row] for row in rows.tolist()])
        g = responses.nodes.value[gates][:, None]
        own = g - responses.constant[len(propagated.graph) + gates][:, None]
        change = (own + propagated.of_responses(gates)) * scale - own
        f, a = self.function(g), propagated.graph.nodes.activation[rows][:, None]
        u = np.ones_like(a)
        beside = np.zeros_like(change)  # of u
        if self.gated:
            u = np.divide(a, f, out=np.zeros_like(a), where=f != 0)
            through = np.divide(f, g, out=np.zeros_like(f), where=g != 0) * u * change
            half = propagated.scaled(rows, inputs, scale)
            beside = np.divide(2 * half - through, f, out=beside, where=f != 0)
        if order == "full":
            return self.function(g + change) * (u + beside) - a
        return slope(self.function, g) * u * change + f * beside


def _edited(
    graph: AttributionGraph, interventions: Sequence[Intervention]
) -> tuple[Columns, Columns, Bool[ndarray, " one"]]:
    """Factors, offsets, and whether all nodes that an intervention changes are in the graph."""
    factor = np.ones((len(graph), len(interventions)))
    offset = np.zeros_like(factor)
    known = np.ones(len(interventions), dtype=bool)
    for column, one in enumerate(interventions):
        known[column] = not (one.steering or one.heads)
        for change in one.changes:
            if change.node in graph:
                row = graph.find(change.node)
                factor[row, column], offset[row, column] = change.factor, change.offset
            else:
                known[column] = False
    return factor, offset, known
