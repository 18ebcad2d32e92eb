"""Evidence: how alike features of two models are, by all that is known of both.

    outputs       cosine of the tokens that they raise, weighed 1 / rank, as texts
    activations   correlation over prompts that both were profiled on, 0 if negative
    labels        overlap of the words of their labels
    position      1 / (1 + tokens between them), positions of the prompts being aligned
    depth         1 − difference of relative depths / DEPTH_BAND, from 0

    similarity = Σ weight · likeness / Σ weight      over the kinds that are known of a pair

Where a feature is says little by itself: pairs of which nothing else is known have similarity 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.comparison.likeness import cosines, shared_words, weighed
from graphs.comparison.profiles import Profile, correlations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind

DEPTH_BAND = 0.5  # of a model's layers; features further apart have nothing from `depth`
Profiles = tuple[Profile, Profile]


@dataclass(frozen=True)
class Weights:
    """What each kind of evidence counts; 0 leaves it out.  Raises ValueError below 0."""

    outputs: float = 0.3
    activations: float = 0.3
    labels: float = 0.2
    position: float = 0.1
    depth: float = 0.1

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not 0.0 <= weight < float("inf"):
                raise ValueError(f"The weight of {name} must not be negative, got {weight}.")


@dataclass(frozen=True)
class Evidence:
    """One kind of evidence about every pair of features."""

    name: str
    weight: float
    likeness: Float[ndarray, "one other"]  # from 0 to 1; 0 where it is not known
    known: Bool[ndarray, "one other"]
    of_place: bool  # it says where a feature is, not what

    def exchanged(self, order: Int[ndarray, " other"]) -> Evidence:
        """The same with what is known of each second feature taken from another one."""
        # Column by column, as they lie in memory.
        likeness, known = self.likeness.T[order].T, self.known.T[order].T
        return Evidence(self.name, self.weight, likeness, known, self.of_place)


def evidence(
    first: AttributionGraph,
    second: AttributionGraph,
    positions: Int[ndarray, " pos"],
    weights: Weights,
    profiles: Profiles | None = None,
) -> list[Evidence]:
    """All kinds that have a weight and that anything is known of, rows being features."""
    graphs = (first, second)
    rows = tuple(np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE)) for graph in graphs)
    ways: dict[str, Callable[[], tuple[Float[ndarray, "a b"], Bool[ndarray, "a b"]]]] = {
        "outputs": lambda: _outputs(graphs, rows, profiles),
        "activations": lambda: _activations(graphs, rows, profiles),
        "labels": lambda: shared_words(*(_labels(g, r) for g, r in zip(graphs, rows, strict=True))),
        "position": lambda: _position(graphs, rows, positions),
        "depth": lambda: _depth(graphs, rows),
    }
    found: list[Evidence] = []
    for name, way in ways.items():
        weight = float(getattr(weights, name))
        if weight > 0:
            likeness, known = way()
            if np.any(known):
                of_place = name in ("position", "depth")
                likeness = np.asarray(likeness, dtype=np.float32, order="F")
                known = np.asfortranarray(known)
                found.append(Evidence(name, weight, likeness, known, of_place))
    return found


def similarity(found: Sequence[Evidence], shape: tuple[int, int]) -> Float[ndarray, "one other"]:
    """Weighted mean of what is known of each pair."""
    total, weight = (np.zeros(shape, dtype=np.float32, order="F") for _ in range(2))
    content = np.zeros(shape, dtype=bool, order="F")
    for kind in found:
        total += np.float32(kind.weight) * kind.likeness
        weight += np.float32(kind.weight) * kind.known
        if not kind.of_place:
            content |= kind.known
    total[~content] = 0.0
    return total / np.where(content, weight, np.float32(1.0))


Graphs = tuple[AttributionGraph, AttributionGraph]
Rows = tuple[Int[ndarray, " _one"], ...]
Pairs = tuple[Float[ndarray, "_one _other"], Bool[ndarray, "_one _other"]]


def _outputs(graphs: Graphs, rows: Rows, profiles: Profiles | None) -> Pairs:
    said: list[list[dict[str, float]]] = []
    for side, (graph, features) in enumerate(zip(graphs, rows, strict=True)):
        nothing: tuple[str, ...] = ()
        tokens: list[tuple[str, ...]] = [
            graph.output_tokens.get(int(row), nothing) for row in features
        ]
        if profiles is not None:
            at = _profiled(graph, features, profiles[side])
            raised = profiles[side].raised
            # A graph knows with which sign a neuron fires here.
            tokens = [
                raised[place] if place >= 0 and not own else own
                for place, own in zip(at.tolist(), tokens, strict=True)
            ]
        said.append([_by_rank(own) for own in tokens])
    one, other = weighed(*said)
    known = [np.array([len(words) > 0 for words in side], dtype=bool) for side in said]
    return cosines(one, other), known[0][:, None] & known[1]


def _by_rank(tokens: tuple[str, ...]) -> dict[str, float]:
    """Tokens as texts that other vocabularies may have too; of spellings the highest counts."""
    weights: dict[str, float] = {}
    for rank, token in enumerate(tokens, start=1):
        weights.setdefault(token.strip().casefold() or token, 1 / rank)
    return weights


def _activations(graphs: Graphs, rows: Rows, profiles: Profiles | None) -> Pairs:
    likeness = np.zeros((len(rows[0]), len(rows[1])))
    known = np.zeros(likeness.shape, dtype=bool)
    if profiles is None:
        return likeness, known
    at = [
        _profiled(graph, own, profile)
        for graph, own, profile in zip(graphs, rows, profiles, strict=True)
    ]
    here, there = (np.flatnonzero(places >= 0) for places in at)
    found = correlations(*profiles, at[0][here], at[1][there])
    inner = np.ix_(here, there)
    known[inner] = np.isfinite(found)
    likeness[inner] = np.clip(np.nan_to_num(found), 0.0, 1.0)
    return likeness, known


def _profiled(
    graph: AttributionGraph, rows: Int[ndarray, " _feat"], profile: Profile
) -> Int[ndarray, " _feat"]:
    return profile.rows(graph.nodes.layer[rows], graph.nodes.index[rows])


def _labels(graph: AttributionGraph, rows: Int[ndarray, " _feat"]) -> list[str]:
    said = [graph.description(int(row)) for row in rows]
    return ["" if description is None else description.label for description in said]


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
    """Mean relative depth of nodes by the influence that arrives at them; nan where none does."""
    total = float(arrived.sum())
    return float(arrived @ relative_depth(graph, rows)) / total if total > 0 else float("nan")


def relative_depth(
    graph: AttributionGraph, rows: Int[ndarray, " _feat"]
) -> Float[ndarray, " _feat"]:
    """Layers of nodes as shares of the model's depth: 0 is the first layer, 1 the last."""
    last = max(1, graph.provenance.model.n_layers - 1)
    return graph.nodes.layer[rows] / last
