"""Two graphs of one prompt, compared block by block and with the model's own values.

Conservation decides which is right: with one block of edges taken from the other tool and all
others from headwater, incoming weights must still sum to the target's own value, which
transformers computes in float64.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array
from transformers import AutoModelForCausalLM

from circuits.features.transcoder_set import TranscoderSet
from graphs import AttributionGraph, NodeId, NodeKind, PruneSettings, prune

SOURCES = ("feature", "error", "token", "BOS")  # kinds that both tools have; token: all but BOS
TARGETS = (NodeKind.FEATURE, NodeKind.LOGIT)


@dataclass(frozen=True)
class Other:
    """Another tool's graph of the same prompt, on the nodes of headwater's graph."""

    weights: Float[ndarray, "node node"]  # [target, source], 0 where it has no such node
    present: Bool[ndarray, " node"]  # nodes that it has
    n_features: int
    nodes: frozenset[NodeId] = frozenset()  # of its own pruned graph
    edges: frozenset[tuple[NodeId, NodeId]] = frozenset()  # (target, source) of that


def read_circuit_tracer(file: Path, graph: AttributionGraph) -> Other:
    """circuit-tracer's graph as `circuit_tracer_run.py` wrote it.

    Raises ValueError if it is of other tokens, whose positions would differ.
    """
    found = torch.load(file)
    if tuple(found["ids"]) != graph.provenance.token_ids:
        raise ValueError(f"{file} is of tokens {found['ids']}, not {graph.provenance.token_ids}.")
    ids, n_layers = graph.provenance.token_ids, graph.provenance.model.n_layers
    features = [NodeId(NodeKind.FEATURE, *row) for row in found["features"].tolist()]
    names = [
        *features,
        *[NodeId(NodeKind.ERROR, at, pos) for at in range(n_layers) for pos in range(len(ids))],
        *[NodeId(NodeKind.TOKEN, None, pos, token) for pos, token in enumerate(ids)],
        *[NodeId(NodeKind.LOGIT, None, len(ids) - 1, token) for token in found["tokens"]],
    ]
    nodes, edges = (mask.numpy() for mask in found["pruned"])
    return replace(
        _placed(found["weights"].numpy(), names, graph),
        nodes=frozenset(names[row] for row in np.flatnonzero(nodes)),
        edges=frozenset((names[t], names[s]) for t, s in zip(*np.nonzero(edges), strict=True)),
    )


def placed(other: AttributionGraph, graph: AttributionGraph) -> Other:
    """A graph of headwater on the nodes of another."""
    return _placed(other.weights.toarray(), list(other.nodes), graph)


def _placed(weights: ndarray, names: list[NodeId], graph: AttributionGraph) -> Other:
    place = {node: row for row, node in enumerate(graph.nodes)}
    rows = np.array([place.get(name, -1) for name in names])
    there = np.flatnonzero(rows >= 0)
    result = np.zeros((len(graph), len(graph)), dtype=weights.dtype)
    result[np.ix_(rows[there], rows[there])] = weights[np.ix_(there, there)]
    present = np.zeros(len(graph), dtype=bool)
    present[rows[there]] = True
    return Other(result, present, sum(name.kind == NodeKind.FEATURE for name in names))


def true_values(
    graph: AttributionGraph, model_folder: Path, dictionary: TranscoderSet
) -> Float[ndarray, " node"]:
    """Values of features and logits in the model itself, by transformers in float64; else 0."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float64)
    read: dict[int, torch.Tensor] = {}
    for layer, block in enumerate(model.model.layers):
        block.mlp.register_forward_pre_hook(
            lambda _, inputs, layer=layer: read.update({layer: inputs[0][0]})
        )
    with torch.inference_mode():
        logits = model(torch.tensor([graph.provenance.token_ids])).logits[0, -1]
    nodes, values = graph.nodes, np.zeros(len(graph))
    for layer, transcoder in enumerate(dictionary.layers):
        here = np.flatnonzero(nodes.is_kind(NodeKind.FEATURE) & (nodes.layer == layer))
        encoder = transcoder.encoder[torch.from_numpy(nodes.index[here])].double()
        at = read[layer][torch.from_numpy(nodes.pos[here]).long()]
        values[here] = (encoder * at).sum(1).numpy()
    targets = graph.target_rows()
    values[targets] = (logits[nodes.index[targets]] - logits.mean()).numpy()
    return values


def shared_features(graph: AttributionGraph, other: Other) -> float:
    """Active features that both have, as a share of those that either has."""
    features = graph.nodes.is_kind(NodeKind.FEATURE)
    both = int((other.present & features).sum())
    return both / (int(features.sum()) + other.n_features - both)


def compare_blocks(
    graph: AttributionGraph,
    exact: Other,
    other: Other,
    values: Float[ndarray, " node"],
    factor: float,
) -> dict[str, dict[str, float]]:
    """Per block, over targets that all have: relative differences, and the largest miss of a row.

    A miss is the distance of a row's sum from the target's own value, as a share of the row's
    absolute sum.  `other` has token edges corrected by `factor`; `exact` is headwater in float64.
    """
    ours, nodes = graph.weights.toarray(), graph.nodes
    miss, size = ours.sum(1, dtype=np.float64) - values, np.abs(ours).sum(1, dtype=np.float64)
    blocks: dict[str, dict[str, float]] = {}
    for target in TARGETS:
        rows = np.flatnonzero(nodes.is_kind(target) & exact.present & other.present)
        for source in SOURCES:
            at = np.ix_(rows, _columns(graph, source))
            mine, theirs, truth = ours[at], other.weights[at], exact.weights[at]
            raw = theirs / (factor if source in ("token", "BOS") else 1.0)

            def worst(block: ndarray, mine: ndarray = mine, rows: ndarray = rows) -> float:
                change = (block.astype(np.float64) - mine).sum(1)
                return float(np.max(np.abs((miss[rows] + change) / size[rows])))

            blocks[f"{source} → {target.word}"] = {
                "raw": relative(raw, mine),  # as the other tool has it
                "difference": relative(theirs, mine),  # token edges corrected
                "ours to float64": relative(mine, truth),
                "theirs to float64": relative(theirs, truth),
                "our miss": worst(mine),
                "raw miss": worst(raw),
                "their miss": worst(theirs),
            }
    return blocks


def _columns(graph: AttributionGraph, source: str) -> Int[ndarray, " column"]:
    nodes, n_prefix = graph.nodes, graph.provenance.n_prefix
    if source == "feature":
        return np.flatnonzero(nodes.is_kind(NodeKind.FEATURE))
    if source == "error":
        return np.flatnonzero(nodes.is_kind(NodeKind.ERROR))
    tokens = nodes.is_kind(NodeKind.TOKEN)
    return np.flatnonzero(tokens & ((nodes.pos < n_prefix) == (source == "BOS")))


def relative(one: ndarray, other: ndarray) -> float:
    """‖one - other‖ / ‖other‖."""
    return float(np.linalg.norm(one.astype(np.float64) - other) / np.linalg.norm(other))


def compare_pruned(graph: AttributionGraph, other: Other) -> dict[str, float]:
    """Overlap of both pruned graphs at the default thresholds: what both have over what either has.

    First each by its own rule, headwater's default ("full") and the published one ("kept"), then
    both by headwater's on the nodes and edges that both have.  Tokens and targets are always kept
    and biases exist on one side only: neither counts.
    """
    own = {rule: prune(graph, PruneSettings(edge_scores=rule)) for rule in ("full", "kept")}
    both = (other.present & ~graph.nodes.is_kind(NodeKind.BIAS))[:, None]
    mine = prune(_only(graph, graph.weights.toarray() * (both & both.T)))
    theirs = prune(_only(graph, other.weights))
    scores: dict[str, float] = {}
    for rule, found in own.items():
        scores[f"nodes, {rule}"] = _overlap(_nodes(found.nodes), _nodes(other.nodes))
        scores[f"edges, {rule}"] = _overlap(_edges(found), set(other.edges))
    scores["nodes, one rule"] = _overlap(_nodes(mine.nodes), _nodes(theirs.nodes))
    scores["edges, one rule"] = _overlap(_edges(mine), _edges(theirs))
    return scores


def _only(graph: AttributionGraph, weights: Float[ndarray, "node node"]) -> AttributionGraph:
    zero = np.zeros(len(graph))
    return replace(graph, weights=csr_array(weights), dropped=zero, dropped_absolute=zero)


def _overlap(one: set, other: set) -> float:
    return len(one & other) / max(1, len(one | other))


def _nodes(nodes: Iterable[NodeId]) -> set[NodeId]:
    return {node for node in nodes if node.kind in (NodeKind.FEATURE, NodeKind.ERROR)}


def _edges(graph: AttributionGraph) -> set[tuple[NodeId, NodeId]]:
    nodes, matrix = list(graph.nodes), graph.weights.tocoo()
    rows: Int[ndarray, " edge"] = matrix.row
    pairs = ((nodes[t], nodes[s]) for t, s in zip(rows, matrix.col, strict=True))
    return {(target, source) for target, source in pairs if source.kind != NodeKind.BIAS}
