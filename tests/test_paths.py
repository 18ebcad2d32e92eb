"""Paths and flows, against every path written out and against Yen's algorithm."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings

from graphs.analysis.flow import (
    Ends,
    entering,
    flow,
    inputs_to_targets,
    necessity,
    path_lengths,
)
from graphs.analysis.influence import graph_shares, influence
from graphs.analysis.paths import strongest_paths
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeKind
from tests.graph_oracles import make_graph, random_graphs

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def every_path(graph: AttributionGraph, ends: Ends) -> dict[tuple[int, ...], float]:
    """All chains from a first meeting with the targets down to the sources, with their shares."""
    shares, total = graph_shares(graph).toarray(), graph.seed.sum()
    found: dict[tuple[int, ...], float] = {}

    def descend(row: int, above: tuple[int, ...], value: float, met: int) -> None:
        chain = (row, *above)
        while met < len(ends.stages) and ends.stages[met][row]:
            met += 1
        if met == len(ends.stages):
            found[chain] = found.get(chain, 0.0) + value
            return
        for source in np.flatnonzero(shares[row]):
            descend(int(source), chain, value * shares[row, source], met)

    def approach(row: int, value: float) -> None:
        if ends.targets[row]:
            descend(row, (), value, 0)
            return
        for source in np.flatnonzero(shares[row]):
            approach(int(source), value * shares[row, source])

    for row in np.flatnonzero(graph.seed):
        approach(int(row), graph.seed[row] / total)
    return found


def inner_ends(graph: AttributionGraph, through: bool) -> Ends:
    """From everything at layer 0 to features above, perhaps by way of some others."""
    rows = np.arange(len(graph))
    features = graph.nodes.is_kind(NodeKind.FEATURE)
    above = features & (graph.nodes.layer >= 2)
    middle = features & (rows % 2 == 0)
    low = graph.nodes.is_kind(*INPUT_KINDS) | (graph.nodes.layer == 0)
    return Ends(low, above, (middle,) if through else ())


@settings(max_examples=50, deadline=None)
@given(random_graphs())
def test_the_strongest_paths_are_the_strongest_of_all(graph: AttributionGraph):
    for ends in (inputs_to_targets(graph), inner_ends(graph, False), inner_ends(graph, True)):
        every = every_path(graph, ends)
        wanted = sorted(every.values(), reverse=True)
        for k in (1, 5, 200):
            paths = strongest_paths(graph, ends, k)
            shares = [path.share for path in paths.listed]
            np.testing.assert_allclose(shares, wanted[:k], **CLOSE)
            assert len({path.nodes for path in paths.listed}) == len(paths.listed)
            for path in paths.listed:
                assert path.share == pytest.approx(every[path.nodes], rel=1e-9)
        np.testing.assert_allclose(flow(graph, ends), sum(wanted), **CLOSE)


@settings(max_examples=50, deadline=None)
@given(random_graphs())
def test_they_are_those_of_yen(graph: AttributionGraph):
    """On a graph with one target, whose paths are simple paths of networkx."""
    shares, ends = graph_shares(graph), inputs_to_targets(graph)
    drawn = nx.DiGraph()
    drawn.add_nodes_from(("start", "end"))
    for target, source in zip(*shares.nonzero(), strict=True):
        drawn.add_edge(int(target), int(source), cost=-math.log(shares[target, source]))
    total = graph.seed.sum()
    for row in np.flatnonzero(graph.seed):
        drawn.add_edge("start", int(row), cost=-math.log(graph.seed[row] / total))
    for row in np.flatnonzero(ends.sources):
        drawn.add_edge(int(row), "end", cost=0.0)
    if not nx.has_path(drawn, "start", "end"):
        assert strongest_paths(graph, ends).listed == ()
        return
    yen = itertools.islice(nx.shortest_simple_paths(drawn, "start", "end", weight="cost"), 8)
    wanted = [math.exp(-nx.path_weight(drawn, path, "cost")) for path in yen]
    found = strongest_paths(graph, ends, 8)
    np.testing.assert_allclose([path.share for path in found.listed], wanted, rtol=1e-9)


def diamond() -> AttributionGraph:
    """One token feeds two features, which feed the output with weights 3 and -1."""
    names = ["token:1@1", "feature:0/1@1", "feature:0/2@2", "logit:3@2"]
    edges = {
        ("token:1@1", "feature:0/1@1"): 2.0,
        ("token:1@1", "feature:0/2@2"): 5.0,
        ("feature:0/1@1", "logit:3@2"): 3.0,
        ("feature:0/2@2", "logit:3@2"): -1.0,
    }
    return make_graph(names, edges)


def test_a_path_knows_its_sign_and_its_weights():
    graph = diamond()
    paths = strongest_paths(graph, inputs_to_targets(graph))
    assert [path.nodes for path in paths.listed] == [(0, 1, 3), (0, 2, 3)]
    assert [path.weights for path in paths.listed] == [(2.0, 3.0), (5.0, -1.0)]
    assert [path.sign for path in paths.listed] == [1, -1]
    assert paths.flow == pytest.approx(1.0)
    assert paths.coverage == pytest.approx((0.75, 1.0))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        strongest_paths(graph, inputs_to_targets(graph), 0)


def test_a_chain_may_be_longer_than_python_recurses():
    """At three layers there are two ways, of which one has two thirds."""
    features = [f"feature:{layer}/0@0" for layer in range(1500)]
    chain = ["token:1@0", *features, "logit:3@0"]
    edges = dict.fromkeys(itertools.pairwise(chain), 2.0)
    edges |= {(chain[layer], chain[layer + 2]): 1.0 for layer in (0, 700, 1499)}
    graph = make_graph(chain, edges, tokens=("a",))
    found = strongest_paths(graph, inputs_to_targets(graph), 9)
    expected = [8, 4, 4, 4, 2, 2, 2, 1]
    assert [path.share * 27 for path in found.listed] == pytest.approx(expected)
    assert [len(chain) - len(path.nodes) for path in found.listed] == [0, 1, 1, 1, 2, 2, 2, 3]
    assert found.flow == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(random_graphs())
def test_what_enters_a_set_entered_nothing_of_it_before(graph: AttributionGraph):
    ends = inner_ends(graph, False)
    every = entering(graph, ends.targets)
    assert not every[~ends.targets].any()
    alone = np.array(
        [entering(graph, np.arange(len(graph)) == row)[row] for row in range(len(graph))]
    )
    np.testing.assert_allclose(alone, influence(graph) + graph.seed, **CLOSE)
    assert (every <= alone + 1e-12).all()


@settings(max_examples=50, deadline=None)
@given(random_graphs())
def test_necessity_is_what_is_lost_without_a_node(graph: AttributionGraph):
    found, inputs = necessity(graph), graph.nodes.is_kind(*INPUT_KINDS)
    targets = graph.nodes.is_kind(*TARGET_KINDS)
    kept = flow(graph, inputs_to_targets(graph))
    for row in range(len(graph)):
        alone = np.arange(len(graph)) == row
        through = flow(graph, Ends(inputs, targets, (alone,)))
        expected = through / kept if kept > 0 else 0.0
        assert found[row] == pytest.approx(expected, abs=1e-12)


@given(random_graphs())
@settings(max_examples=50, deadline=None)
def test_lengths_of_paths_sum_to_what_inputs_have(graph: AttributionGraph):
    inputs = graph.nodes.is_kind(*INPUT_KINDS)
    whole_share = influence(graph)[inputs].sum() / (graph.seed.sum() or 1.0)
    assert path_lengths(graph).sum() == pytest.approx(whole_share)


def test_a_direct_path_has_one_edge():
    names = ["token:4@0", "feature:0/1@0", "logit:1@0"]
    graph = make_graph(
        names,
        {(names[0], names[2]): 1.0, (names[0], names[1]): -2.0, (names[1], names[2]): 3.0},
        tokens=("a",),
    )
    assert path_lengths(graph) == pytest.approx([0.25, 0.75])
