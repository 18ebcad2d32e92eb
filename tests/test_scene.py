"""What is drawn is the strongest part, with the numbers of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.graph_oracles import (
    dense_shares,
    dense_sizes,
    make_graph,
    random_graphs,
    series_influence,
)
from tests.tolerances import EXACT
from viz.plot.scene import MOST_EDGES, MOST_NODES, scene


def large_graph(features: int):
    """Features that each feed one logit, the stronger the later."""
    names = [f"feature:0/{i}@{i % 3}" for i in range(features)]
    edges = {(name, "logit:1@2"): 1.0 + i for i, name in enumerate(names)}
    return make_graph([*names, "logit:1@2"], edges)


@given(random_graphs())
@settings(max_examples=30, deadline=None)
def test_small_graphs_are_drawn_whole_but_for_edges_without_influence(graph):
    drawn = scene(graph)
    assert drawn.rows.tolist() == list(range(len(graph)))
    share = dense_shares(dense_sizes(graph), graph.dropped_absolute)
    arrived = series_influence(share, graph.seed) + graph.seed
    carries = {(t, s) for t, s in np.argwhere(share * arrived[:, None] > 0).tolist()}
    found = set(zip(drawn.target.tolist(), drawn.source.tolist(), strict=True))
    assert found <= carries
    assert len(found) == min(len(carries), MOST_EDGES)


def test_of_a_large_graph_the_strongest_nodes_are_drawn_with_the_same_numbers():
    graph = large_graph(MOST_NODES + 100)
    drawn = scene(graph)
    assert drawn.rows.tolist() == list(range(101, MOST_NODES + 101))
    weights = np.arange(1.0, MOST_NODES + 101)
    expected = np.append(weights / weights.sum(), 0.0)
    np.testing.assert_allclose(drawn.strengths.influence, expected, **EXACT)


def test_of_many_edges_the_strongest_are_drawn():
    drawn = scene(large_graph(MOST_EDGES + 50))
    assert drawn.source.tolist() == list(range(MOST_EDGES + 50))[:49:-1]
    assert set(drawn.target.tolist()) == {MOST_EDGES + 50}


def test_edges_to_nodes_that_are_not_drawn_are_not_drawn():
    drawn = scene(large_graph(9), most_nodes=3)
    assert drawn.rows.tolist() == [7, 8, 9]
    assert drawn.source.tolist() == [1, 0]
    assert drawn.target.tolist() == [2, 2]


@pytest.mark.parametrize("features", [3, 900])
def test_the_area_of_a_marker_grows_with_influence_and_none_overlap(features: int):
    drawn = scene(large_graph(features))
    area = drawn.diameter[:-1] ** 2
    influence = drawn.strengths.influence[drawn.rows[:-1]]
    slope = np.diff(area) / np.diff(influence)
    np.testing.assert_allclose(slope, slope[0], rtol=1e-6)  # differences of nearly equal numbers
    x, y = (
        coordinate * unit
        for coordinate, unit in zip((drawn.placement.x, drawn.placement.y), drawn.unit, strict=True)
    )
    radius = drawn.diameter / 2
    gap = np.maximum(abs(x[:, None] - x), abs(y[:, None] - y)) - (radius[:, None] + radius)
    np.fill_diagonal(gap, 1.0)
    assert gap.min() > 0


def test_the_strongest_features_and_all_targets_have_texts():
    names = [f"feature:0/{i}@0" for i in range(20)]
    edges = {(name, "logit:1@2"): 1.0 + i for i, name in enumerate(names)}
    words = {i: (f"w{i}",) for i in range(20)}
    graph = make_graph([*names, "logit:1@2", "logit:2@2"], edges, [0.5, 0.25], output_tokens=words)
    drawn = scene(graph)
    beside = [label.text.strip("\u2068\u2069") for label in drawn.feature_labels()]
    assert beside == sorted(beside, key=lambda text: -int(text.removeprefix("say w")))
    assert beside[:2] == ["say w19", "say w18"]
    assert len(beside) >= 6
    above = [label.text for label in drawn.output_labels()]
    assert above == ["\u2068t0\u2069 50.0%", "\u2068t1\u2069 25.0%"]
