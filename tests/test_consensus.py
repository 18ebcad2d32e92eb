"""What several graphs have in common."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from graphs.analysis.influence import influence
from graphs.comparison.consensus import consensus
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.provenance import NEURONS, DictionaryIdentity
from tests.graph_oracles import make_graph, random_graphs


def city(token: int, share: float, only: str) -> AttributionGraph:
    """Through a feature that all have, and one that only some have."""
    names = [f"token:{token}@1", "feature:0/1@1", only, f"logit:{token}@2"]
    edges = {
        (names[0], names[1]): 1.0,
        (names[0], only): 1.0,
        (names[1], names[3]): share,
        (only, names[3]): share - 1.0,
    }
    return make_graph(names, edges, tokens=("<bos>", f" city {token}", " is"))


def test_common_nodes_and_edges_by_hand():
    found = consensus(
        [
            city(1, 0.5, "feature:0/7@1"),
            city(2, 0.7, "feature:0/7@1"),
            city(3, 0.9, "feature:0/9@1"),
        ]
    )
    nodes = dict(zip(map(str, found.nodes), found.at_nodes.present, strict=True))
    assert nodes == pytest.approx(
        {"token:0@1": 1.0, "target:0@2": 1.0, "feature:0/1@1": 1.0, "feature:0/7@1": 2 / 3}
    )
    assert "feature:0/9@1" not in nodes
    means = dict(zip(map(str, found.nodes), found.at_nodes.mean, strict=True))
    assert means["feature:0/1@1"] == pytest.approx(0.7)
    assert means["feature:0/7@1"] == pytest.approx((0.5 + 0.3) / 3)
    edges = {
        (str(source), str(target)): mean
        for (source, target), mean in zip(found.ends, found.along_edges.mean, strict=True)
    }
    assert edges[("feature:0/1@1", "target:0@2")] == pytest.approx(0.7)
    assert edges[("feature:0/7@1", "target:0@2")] == pytest.approx(-(0.5 + 0.3) / 3)
    assert edges[("token:0@1", "feature:0/7@1")] == pytest.approx((0.5 + 0.3) / 3)
    assert list(found.at_nodes.mean) == sorted(found.at_nodes.mean, reverse=True)
    assert found.left_out == 0.0


def test_intervals_are_those_of_means_of_drawn_prompts():
    shares = np.linspace(0.3, 0.9, 12)
    made = [city(i, share, "feature:0/7@1") for i, share in enumerate(shares)]
    found = consensus(made, level=0.9)
    row = [str(node) for node in found.nodes].index("feature:0/1@1")
    # A mean of 12 has the standard deviation std / √12; 90 % lie within 1.645 of them.
    half = 1.645 * shares.std() / np.sqrt(12)
    assert found.at_nodes.low[row] == pytest.approx(shares.mean() - half, abs=0.25 * half)
    assert found.at_nodes.high[row] == pytest.approx(shares.mean() + half, abs=0.25 * half)
    wider = consensus(made, level=0.99)
    assert wider.at_nodes.low[row] < found.at_nodes.low[row] < found.at_nodes.high[row]
    again = consensus(made, level=0.9)
    assert np.array_equal(again.at_nodes.low, found.at_nodes.low)


@settings(max_examples=30, deadline=None)
@given(random_graphs())
def test_a_graph_with_itself_has_all_of_itself(graph: AttributionGraph):
    found = consensus([graph, graph])
    assert len(found.nodes) == len(graph)
    assert len(found.ends) == graph.weights.nnz
    every = np.sort((influence(graph) + graph.seed) / (graph.seed.sum() or 1.0))
    np.testing.assert_allclose(np.sort(found.at_nodes.mean), every, atol=1e-12)
    assert np.all(found.at_nodes.present == 1.0)
    np.testing.assert_allclose(found.at_nodes.low, found.at_nodes.high, atol=1e-12)


def test_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch):
    made = [city(1, 0.5, "feature:0/7@1"), city(2, 0.7, "feature:0/7@1")]
    whole = consensus(made)
    monkeypatch.setattr(sys.modules["graphs.comparison.consensus"], "COLUMNS", 1)
    parts = consensus(made)
    np.testing.assert_allclose(parts.along_edges.low, whole.along_edges.low, atol=1e-12)


def test_positions_that_stand_for_none_are_left_out():
    first = city(1, 0.5, "feature:0/7@1")
    names = ["token:5@1", "token:6@2", "feature:0/1@2", "logit:3@3"]
    edges = {
        (names[0], names[2]): 1.0,
        (names[1], names[2]): 3.0,
        (names[2], names[3]): 1.0,
    }
    longer = make_graph(names, edges, tokens=("<bos>", " very", " city 1", " is"))
    found = consensus([first, longer])
    assert found.left_out == pytest.approx(0.25 / 3 / 2)
    assert NodeKind.LOGIT not in {node.kind for node in found.nodes}


@pytest.mark.parametrize(
    ("made", "level", "message"),
    [
        ([city(1, 0.5, "feature:0/7@1")], 0.95, "at least two graphs, got 1"),
        (2 * [city(1, 0.5, "feature:0/7@1")], 1.0, "level must be between 0 and 1"),
    ],
)
def test_what_makes_no_consensus_is_refused(
    made: list[AttributionGraph], level: float, message: str
):
    with pytest.raises(ValueError, match=message):
        consensus(made, level)


def test_neurons_of_two_models_make_no_consensus():
    def neurons_of(model: str) -> AttributionGraph:
        graph = city(1, 0.5, "feature:0/2@1")
        header = graph.provenance
        names = {
            "model": header.model.model_copy(update={"name": model}),
            "dictionary": DictionaryIdentity(kind=NEURONS, name="MLP neurons"),
        }
        return replace(graph, provenance=header.model_copy(update=names))

    assert consensus([neurons_of("a"), neurons_of("a")]).left_out == 0.0
    with pytest.raises(ValueError, match="graphs of one dictionary"):
        consensus([neurons_of("a"), neurons_of("b")])
