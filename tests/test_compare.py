"""Comparing two graphs of one dictionary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from scipy.stats import spearmanr

from graphs.analysis.influence import graph_shares, influence
from graphs.comparison.compare import Score, compare, rank_correlation
from graphs.comparison.matching import match_by_identity
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from tests.graph_oracles import make_graph, random_graphs


@settings(max_examples=50, deadline=None)
@given(random_graphs())
def test_a_graph_is_wholly_like_itself(graph: AttributionGraph):
    found = compare(graph, graph, permutations=5)
    assert np.array_equal(found.match.first, found.match.second)
    assert len(found.only_first) == len(found.only_second) == 0
    assert found.features.value == pytest.approx(1.0)
    assert found.edges.value == pytest.approx(1.0)
    assert np.isnan(found.ranks.value) or found.ranks.value == pytest.approx(1.0)
    assert all(value <= 1.0 + 1e-12 for value in found.features.null)
    if graph.weights.nnz > 2 and not np.isnan(found.ranks.value):
        assert all(np.isnan(value) or value <= 1.0 + 1e-12 for value in found.ranks.null)


def two() -> tuple[AttributionGraph, AttributionGraph]:
    """They share the middle feature and both edges of it; the city and the answer differ."""
    edges = [("token", "feature:0/1@1"), ("feature:0/1@1", "logit")]

    def one(token: int, answer: int, other: str, share: float) -> AttributionGraph:
        names = [f"token:{token}@1", "feature:0/1@1", other, f"logit:{answer}@2"]
        named = {"token": names[0], "logit": names[3]}
        weights = {
            (named.get(s, s), named.get(t, t)): w
            for (s, t), w in zip(edges, (2.0, share), strict=True)
        }
        weights |= {(names[0], other): 1.0, (other, names[3]): share - 1.0}
        return make_graph(names, weights, tokens=("<bos>", f"city {token}", " is"))

    return one(4, 5, "feature:0/2@1", 0.75), one(6, 7, "feature:0/3@1", 0.5)


def test_scores_by_hand():
    first, second = two()
    second = renamed(second)
    found = compare(first, second, permutations=50)
    assert found.positions.tolist() == [0, 1, 2]
    assert found.match.first.tolist() == found.match.second.tolist() == [0, 1, 3]
    assert found.only_first.tolist() == found.only_second.tolist() == [2]
    assert found.influence.tolist() == [[1.0, 1.0], [0.75, 0.5], [1.0, 1.0]]
    assert found.features.value == pytest.approx(0.5 / (0.75 + 0.25 + 0.5))
    # Shared edges carry 0.75 and 0.5 twice, all carry 1 twice in either graph.
    assert found.edges.value == pytest.approx(1.0 / (2.0 + 2.0 - 1.0))
    assert np.isnan(found.ranks.value)
    # The three features of the cell may change places: 0.5 meets 0.75, 0.25 or nothing.
    assert {round(value, 6) for value in found.features.null} == {
        round(both / (2.0 - both), 6) for both in (0.75, 0.5, 0.25)
    }


def renamed(graph: AttributionGraph) -> AttributionGraph:
    """The same with another text of its prediction."""
    target = graph.provenance.targets[0].model_copy(update={"text": "other"})
    return replace(graph, provenance=graph.provenance.model_copy(update={"targets": (target,)}))


@pytest.mark.parametrize(
    ("model", "texts", "entries"),
    [
        ("another", ("x", "y", "t0"), (0, 1, 2)),  # of another vocabulary: the text counts
        ("org/tiny model", ("t0", "t0", "t0"), (5, 6, 0)),  # of the same: the entry does
    ],
)
def test_predictions_match_by_token_or_text_then_by_rank(
    model: str, texts: tuple[str, ...], entries: tuple[int, ...]
):
    names = ["token:0@0", "logit:1@0", "logit:2@0", "logit:3@0"]
    first = make_graph(names, {}, [0.5, 0.3, 0.2], tokens=("a",))
    second = make_graph(names, {}, [0.1, 0.2, 0.7], tokens=("b" if model == "another" else "a",))
    targets = tuple(
        target.model_copy(update={"text": text, "token_id": entry})
        for target, text, entry in zip(second.provenance.targets, texts, entries, strict=True)
    )
    named = second.provenance.model.model_copy(update={"name": model})
    header = second.provenance.model_copy(update={"targets": targets, "model": named})
    match = match_by_identity(first, replace(second, provenance=header), np.array([0]))
    assert dict(zip(match.first.tolist(), match.second.tolist(), strict=True)) == {
        0: 0,
        1: 3,  # both are t0
        2: 2,  # of the others the most probable
        3: 1,
    }


@settings(max_examples=50, deadline=None)
@given(random_graphs(), random_graphs())
def test_scores_against_dense_matrices(first: AttributionGraph, second: AttributionGraph):
    assume(first.seed.sum() > 0 and second.seed.sum() > 0)
    found = compare(first, second, permutations=0)
    size, place = len(first) + len(second), len(first) + np.arange(len(second))
    place[found.match.second] = found.match.first
    dense, nodes = [], []
    for graph, rows in ((first, np.arange(len(first))), (second, place)):
        arrived = (influence(graph) + graph.seed) / graph.seed.sum()
        sign = np.where(graph.weights.toarray() < 0, -1, 1)
        matrix = np.zeros((size, size))
        matrix[np.ix_(rows, rows)] = sign * graph_shares(graph).toarray() * arrived[:, None]
        vector = np.zeros(size)
        features = graph.nodes.is_kind(NodeKind.FEATURE)
        vector[rows[features]] = arrived[features]
        dense.append(matrix)
        nodes.append(vector)
    for score, (a, b) in ((found.features, nodes), (found.edges, list(map(abs, dense)))):
        either = np.maximum(a, b).sum()
        assert score.value == pytest.approx(np.minimum(a, b).sum() / either if either else 1.0)
    both = (dense[0] != 0) & (dense[1] != 0)
    if both.sum() >= 3:
        one, other = dense[0][both], dense[1][both]
        varies = np.ptp(one) > 0 and np.ptp(other) > 0  # scipy warns where ranks say nothing
        wanted = spearmanr(one, other).statistic if varies else np.nan
        np.testing.assert_allclose(found.ranks.value, wanted, atol=1e-9)


def test_unlike_graphs_are_near_their_null():
    """Graphs whose features were renamed at random within their layer and position."""
    rng = np.random.default_rng(1)
    names = [f"token:{p}@{p}" for p in range(3)]
    features = [f"feature:{layer}/{i}@2" for layer in range(3) for i in range(40)]
    names += [*features, "logit:1@2"]
    edges = {
        (names[s], names[t]): float(rng.standard_normal())
        for t in range(3, len(names))
        for s in range(t)
        if rng.random() < 0.2 and (s < 3 or (t - 3) // 40 > (s - 3) // 40)
    }
    graph = make_graph(names, edges)
    mixed = rng.permutation(40)
    renamed = {
        f"feature:{layer}/{i}@2": f"feature:{layer}/{mixed[i]}@2"
        for layer in range(3)
        for i in range(40)
    }
    other = make_graph(
        names, {(renamed.get(s, s), renamed.get(t, t)): w for (s, t), w in edges.items()}
    )
    same, unlike = compare(graph, graph), compare(graph, other)
    for score in (same.features, same.edges, same.ranks):
        assert score.p_value < 0.01
        assert score.value > score.null[-1]
    for score in (unlike.features, unlike.edges):
        assert score.null[0] <= score.value <= score.null[-1]
        assert score.p_value > 0.01


def test_chance_counts_what_is_as_large():
    score = Score(0.5, (0.1, 0.5, 0.9))
    assert score.p_value == pytest.approx(3 / 4)
    assert score.null_mean == pytest.approx(0.5)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
