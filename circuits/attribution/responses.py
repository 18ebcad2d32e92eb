"""Responses inside the model: rows of norms, and of gates of neurons (`graphs.core.responses`).

A trace has as many as it is asked for, those first through which most influence passes: at a norm
in front of an MLP that of the features that read it there, at one in front of attention that of the
flows through it (`circuits.attribution.attention_flows`), at a gate that of its neuron.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse import csr_array

from circuits.attribution.attention_flows import AttentionFlows
from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.rows import CollectedRows, RowTargets, Sweeper, no_rows
from circuits.attribution.targets import ResponsePart, norm_rows
from circuits.features.neuron_layer import NeuronLayer
from circuits.machine import moved, on_device
from circuits.model.frozen import Covectors
from circuits.recording.record import entering_attention
from graphs.core.graph import row_sizes
from graphs.core.nodes import NodeKind
from graphs.core.responses import NeuronForm


class Place(NamedTuple):
    """A norm or a gate inside the model."""

    kind: NodeKind
    layer: int
    pos: int
    number: int  # of the neuron; 0 for a norm


class Inner(NamedTuple):
    """Rows inside the model, and what flows through attention behind the norms among them."""

    parts: tuple[ResponsePart, ...]
    rows: CollectedRows
    neurons: NeuronForm | None  # if there are gates among the rows
    # Into all nodes of the trace's rows, and into these rows.
    flows: tuple[Float[ndarray, "node norm"], Float[ndarray, "row norm"]]


def sweep_inside(
    sweeper: Sweeper,
    rows: CollectedRows,
    weights: csr_array,
    seed: Float[ndarray, " node"],
    count: int,
) -> Inner | None:
    """At most so many rows inside the model; None if it has neither norms nor gates there.

    `weights` are the rows so far, whose flows the sweeper must have; `seed` is that of influence.
    """
    local, sources = sweeper.local, sweeper.sources
    assert sweeper.flows is not None
    places = sorted(_leading(sweeper, rows, weights, seed)[:count])
    parts = tuple(_parts(local, places))
    if not parts:
        return None
    first, flows = sources.first_column[-1], AttentionFlows(local, sources.first)
    found = no_rows(sweeper, rows.kept_share, sum(map(len, parts)))
    own = replace(sweeper, flows=flows)
    own.add(RowTargets.of(parts, first), found, lambda _: None)
    behind = [(one.layer, one.pos) for one in places if one.kind == NodeKind.ATTENTION_NORM]
    layer, pos = np.array(behind, dtype=np.int64).reshape(-1, 2).T
    return Inner(
        parts=parts,
        rows=found,
        neurons=_form(local) if any(part.kind == NodeKind.GATE for part in parts) else None,
        flows=(
            sweeper.flows.through(rows.n_nodes, layer, pos - sources.first),
            flows.through(found.n_nodes, layer, pos - sources.first)[first:],
        ),
    )


def _parts(local: LocalReplacement, places: list[Place]) -> list[ResponsePart]:
    frozen, recording, found = local.frozen, local.recording, list[ResponsePart]()
    none = recording.final_residual[:0]  # no more covectors than the residual
    for (kind, layer), here in groupby(places, key=lambda place: place[:2]):
        block = frozen.blocks[layer]
        match kind:
            case NodeKind.GATE:
                found.append(_gates(local, layer, list(here)))
            case NodeKind.NORM:
                residual = moved(recording.blocks[layer].mlp_residual, frozen.device)
                for _, _, pos, _ in here:
                    parts = ("mlp", block.mlp_norm, layer, pos, residual[pos], none)
                    found.append(norm_rows(*parts))
            case _:
                residual = moved(entering_attention(frozen, recording, layer), frozen.device)
                # Where attention and MLP read the same residual, nothing is in between.
                entering = not frozen.parallel
                for _, _, pos, _ in here:
                    parts = ("attention", block.attention_norm, layer, pos, residual[pos], none)
                    found.append(norm_rows(*parts, entering=entering))
    return found


def _gates(local: LocalReplacement, layer: int, places: list[Place]) -> ResponsePart:
    """Rows of what the activation function of these neurons is of."""
    neurons, home = local.features.at(layer), local.frozen.device
    assert isinstance(neurons, NeuronLayer)
    pos = np.array([place.pos for place in places])
    index = np.array([place.number for place in places])
    recorded = local.recording.blocks[layer].mlp_residual
    at = on_device(pos, recorded.device)
    read = (*neurons.gate(at, on_device(index, at.device)), recorded.index_select(0, at))
    covector, constant, residual = (moved(one, home) for one in read)
    return ResponsePart(
        kind=NodeKind.GATE,
        covectors=Covectors(np.full_like(pos, layer), pos, covector, np.zeros(len(pos))),
        index=index,
        value=(covector * residual).sum(1) + constant,
        constant=constant,
    )


def _form(local: LocalReplacement) -> NeuronForm:
    """What the neurons compute."""
    layers = map(local.features.at, range(local.frozen.n_layers))
    neurons = next(one for one in layers if isinstance(one, NeuronLayer))
    assert neurons.function is not None
    return NeuronForm(nonlinearity=neurons.function, gated=len(neurons.branches) > 1)


def _leading(
    sweeper: Sweeper, rows: CollectedRows, weights: csr_array, seed: Float[ndarray, " node"]
) -> list[Place]:
    """Norms and gates inside the model, those first through which most influence passes."""
    local, influence = sweeper.local, rows.influence(seed) + seed
    features, scores = local.features.on_host, dict[Place, float]()
    own = influence[sweeper.sources.feature_column]
    expanded = rows.expanded()[sweeper.sources.feature_column]
    layers = [local.features.at(layer) for layer in range(local.frozen.n_layers)]
    for row in np.flatnonzero(expanded).tolist():
        layer, pos, index = (int(column[row]) for column in vars(features).values())
        if local.features.reads_norm[layer]:
            place = Place(NodeKind.NORM, layer, pos, 0)
            scores[place] = scores.get(place, 0.0) + float(own[row])
        neurons = layers[layer]
        if isinstance(neurons, NeuronLayer) and neurons.function is not None:
            scores[Place(NodeKind.GATE, layer, pos, index)] = float(own[row])
    assert sweeper.flows is not None
    totals = row_sizes(weights) + rows.dropped_absolute()
    share = np.divide(influence, totals, out=np.zeros_like(totals), where=totals > 0)
    passing = sweeper.flows.passing(share)
    # What enters the first layer does not change.
    for layer, pos in np.argwhere(passing[1:] > 0).tolist():
        if local.frozen.blocks[layer + 1].attention_norm.eps is not None:
            place = Place(NodeKind.ATTENTION_NORM, layer + 1, pos + sweeper.sources.first, 0)
            scores[place] = float(passing[layer + 1, pos])
    return sorted(scores, key=lambda place: (-scores[place], place))
