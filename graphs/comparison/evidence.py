"""Evidence: similarity of features of two models, from everything known about both.

    outputs       cosine of their promoted tokens, as text, weighted 1 / rank
    activations   correlation over prompts that both were profiled on, 0 if negative
    labels        overlap of the words of their labels
    position      1 / (1 + distance in tokens), positions of the prompts being aligned
    depth         1 − difference of relative depths / DEPTH_BAND, at least 0

    similarity = Σ weight · similarity / Σ weight      over the kinds that are known of a pair

Position and depth alone are weak evidence: pairs with nothing else known have similarity 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.comparison.profiles import Profile, correlations
from graphs.comparison.similarities import cosines, weighted_rows, word_overlap
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind

DEPTH_BAND = 0.5  # of a model's depth; features further apart get 0 from `depth`
Profiles = tuple[Profile, Profile]


@dataclass(frozen=True, repr=False)
class Weights(Brief):
    """Weight of each kind of evidence; 0 leaves it out.  Raises ValueError below 0."""

    outputs: float = 0.3
    activations: float = 0.3
    labels: float = 0.2
    position: float = 0.1
    depth: float = 0.1

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not 0.0 <= weight < float("inf"):
                raise ValueError(
                    f"The weight of {name} must be finite and not negative, got {weight}."
                )


@dataclass(frozen=True)
class Evidence:
    """One kind of evidence, for every pair of features."""

    name: str
    weight: float
    similarity: Float[ndarray, "one other"]  # from 0 to 1; 0 where unknown
    known: Bool[ndarray, "one other"]
    of_place: bool  # about where a feature is, not what it does

    def exchanged(self, order: Int[ndarray, " other"]) -> Evidence:
        """The evidence with the second features permuted."""
        # Column by column, the order in memory.
        similarity, known = self.similarity.T[order].T, self.known.T[order].T
        return Evidence(self.name, self.weight, similarity, known, self.of_place)


def evidence(
    first: AttributionGraph,
    second: AttributionGraph,
    positions: Int[ndarray, " pos"],
    weights: Weights,
    profiles: Profiles | None = None,
) -> list[Evidence]:
    """All kinds with a weight that are known for some pair."""
    graphs = (first, second)
    rows = tuple(np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE)) for graph in graphs)
    kinds: dict[str, Callable[[], tuple[Float[ndarray, "a b"], Bool[ndarray, "a b"]]]] = {
        "outputs": lambda: _outputs(graphs, rows, profiles),
        "activations": lambda: _activations(graphs, rows, profiles),
        "labels": lambda: word_overlap(*(_labels(g, r) for g, r in zip(graphs, rows, strict=True))),
        "position": lambda: _position(graphs, rows, positions),
        "depth": lambda: _depth(graphs, rows),
    }
    found: list[Evidence] = []
    for name, compute in kinds.items():
        weight = float(getattr(weights, name))
        if weight > 0:
            similarity, known = compute()
            if np.any(known):
                of_place = name in ("position", "depth")
                similarity = np.asarray(similarity, dtype=np.float32, order="F")
                known = np.asfortranarray(known)
                found.append(Evidence(name, weight, similarity, known, of_place))
    return found


def similarity(found: Sequence[Evidence], shape: tuple[int, int]) -> Float[ndarray, "one other"]:
    """Similarity of each pair: weighted mean over the kinds known for it."""
    total, weight = (np.zeros(shape, dtype=np.float32, order="F") for _ in range(2))
    content = np.zeros(shape, dtype=bool, order="F")
    for kind in found:
        total += np.float32(kind.weight) * kind.similarity
        weight += np.float32(kind.weight) * kind.known
        if not kind.of_place:
            content |= kind.known
    total[~content] = 0.0
    return total / np.where(content, weight, np.float32(1.0))


Graphs = tuple[AttributionGraph, AttributionGraph]
Rows = tuple[Int[ndarray, " _one"], ...]
Pairs = tuple[Float[ndarray, "_one _other"], Bool[ndarray, "_one _other"]]


def _outputs(graphs: Graphs, rows: Rows, profiles: Profiles | None) -> Pairs:
    sides: list[list[dict[str, float]]] = []
    for side, (graph, features) in enumerate(zip(graphs, rows, strict=True)):
        nothing: tuple[str, ...] = ()
        tokens: list[tuple[str, ...]] = [
            graph.output_tokens.get(int(row), nothing) for row in features
        ]
        if profiles is not None:
            at = _profiled(graph, features, profiles[side])
            promoted = profiles[side].promoted
            # The graph's tokens come first: it has the sign of a neuron's activation here.
            tokens = [
                promoted[place] if place >= 0 and not own else own
                for place, own in zip(at.tolist(), tokens, strict=True)
            ]
        sides.append([_by_rank(own) for own in tokens])
    one, other = weighted_rows(*sides)
    known = [np.array([len(words) > 0 for words in side], dtype=bool) for side in sides]
    return cosines(one, other), known[0][:, None] & known[1]


def _by_rank(tokens: tuple[str, ...]) -> dict[str, float]:
    """Weights of tokens, normalised so that vocabularies are comparable; best rank counts."""
    weights: dict[str, float] = {}
    for rank, token in enumerate(tokens, start=1):
        weights.setdefault(token.strip().casefold() or token, 1 / rank)
    return weights


def _activations(graphs: Graphs, rows: Rows, profiles: Profiles | None) -> Pairs:
    similarity = np.zeros((len(rows[0]), len(rows[1])))
    known = np.zeros(similarity.shape, dtype=bool)
    if profiles is None:
        return similarity, known
    at = [
        _profiled(graph, own, profile)
        for graph, own, profile in zip(graphs, rows, profiles, strict=True)
    ]
    here, there = (np.flatnonzero(places >= 0) for places in at)
    found = correlations(*profiles, at[0][here], at[1][there])
    inner = np.ix_(here, there)
    known[inner] = np.isfinite(found)
    similarity[inner] = np.clip(np.nan_to_num(found), 0.0, 1.0)
    return similarity, known


def _profiled(
    graph: AttributionGraph, rows: Int[ndarray, " _feat"], profile: Profile
) -> Int[ndarray, " _feat"]:
    return profile.rows(graph.nodes.layer[rows], graph.nodes.index[rows])


def _labels(graph: AttributionGraph, rows: Int[ndarray, " _feat"]) -> list[str]:
    found = [graph.description(int(row)) for row in rows]
    return ["" if description is None else description.label for description in found]


def _position(graphs: Graphs, rows: Rows, positions: Int[ndarray, " _pos"]) -> Pairs:
    at = positions[graphs[0].nodes.pos[rows[0]]]
    there = graphs[1].nodes.pos[rows[1]]
    known = np.repeat((at >= 0)[:, None], len(there), axis=1)
    return np.where(known, 1.0 / (1.0 + np.abs(at[:, None] - there)), 0.0), known


def _depth(graphs: Graphs, rows: Rows) -> Pairs:
    one, other = (relative_depth(g, r) for g, r in zip(graphs, rows, strict=True))
    near = np.clip(1.0 - np.abs(one[:, None] - other) / DEPTH_BAND, 0.0, 1.0)
    return near, np.ones(near.shape, dtype=bool)


def mean_depth(
    graph: AttributionGraph, rows: Int[ndarray, " _feat"], arrived: Float[ndarray, " _feat"]
) -> float:
    """Mean relative depth of nodes, weighted by influence; nan if they have none."""
    total = float(arrived.sum())
    return float(arrived @ relative_depth(graph, rows)) / total if total > 0 else float("nan")


def relative_depth(
    graph: AttributionGraph, rows: Int[ndarray, " _feat"]
) -> Float[ndarray, " _feat"]:
    """Relative depth of nodes: 0 is the first layer, 1 the last."""
    last = max(1, graph.provenance.model.n_layers - 1)
    return graph.nodes.layer[rows] / last
