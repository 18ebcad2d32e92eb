"""The summary of a graph: few boxes, and all influence between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings

import graphs
from graphs.analysis.influence import graph_shares, influence_shares
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.groups.chains import carried_by, strongest_chains
from graphs.groups.collapse import CyclicGroups
from graphs.groups.overview import GROUPS, BoxKind, graph_overview, overview
from tests.graph_oracles import make_graph, random_graphs
from tests.test_collapse import chain, pairs


@settings(max_examples=60, deadline=None)
@given(random_graphs())
def test_what_flows_into_a_box_is_what_has_arrived_there(graph: AttributionGraph):
    assume(graph.seed.sum() > 0)
    shown = overview(graph, pairs(graph))
    arrived, has_row = influence_shares(graph), np.diff(graph.weights.indptr) > 0
    for number, box in enumerate(shown.boxes[1:], start=1):
        # Features of one layer, single tokens and targets have nothing inner.
        assert box.arrived == pytest.approx(arrived[box.rows].sum(), abs=1e-12)
        passed = arrived[box.rows][has_row[box.rows]].sum()
        assert shown.flow[number].sum() == pytest.approx(passed, abs=1e-12)
    assert np.all(np.abs(shown.net[:, 1:]) <= shown.flow[:, 1:] + 1e-12)
    assert np.all(np.triu(shown.flow) == 0)  # sources come before targets
    every = np.concatenate([box.rows for box in shown.boxes])
    assert sorted(every.tolist()) == list(range(len(graph)))


@settings(max_examples=60, deadline=None)
@given(random_graphs())
def test_flows_pass_only_through_nodes_of_no_box(graph: AttributionGraph):
    """By a dense inverse, as the definition says."""
    assume(graph.seed.sum() > 0)
    shown = overview(graph, pairs(graph))
    shares, arrived = graph_shares(graph).toarray(), influence_shares(graph)
    rest = shown.boxes[0].rows
    through = np.linalg.inv(np.eye(len(rest)) - shares[np.ix_(rest, rest)])
    through = shares[:, rest] @ through @ shares[rest]
    for number, target in enumerate(shown.boxes[1:], start=1):
        for place, source in enumerate(shown.boxes[1:], start=1):
            if number != place:
                part = (shares + through)[np.ix_(target.rows, source.rows)]
                expected = float((arrived[target.rows, None] * part).sum())
                assert shown.flow[number, place] == pytest.approx(expected, abs=1e-12)


def test_signs_multiply_along_the_way():
    shown = overview(chain(), {"first": np.array([1])})
    names = [box.name for box in shown.boxes]
    first, end = names.index("first"), names.index("t0")
    # Directly −1 of 4 parts, and 3 of 4 by 2/1, which takes it by 1/1 with a minus sign.
    assert shown.flow[end, first] == pytest.approx(1.0)
    assert shown.net[end, first] == pytest.approx(-1.0)


def test_what_flows_inside_a_group_is_counted_once():
    shown = overview(chain(), {"both": np.array([1, 2])})
    both = [box.name for box in shown.boxes].index("both")
    # Of the answer's inputs −1 of 4 parts come from the group directly, 3 through feature 2/1.
    assert shown.boxes[both].arrived == pytest.approx(1.0)
    assert shown.flow[both].sum() == pytest.approx(1.0)
    assert shown.flow[both, both] == 0.0


def test_no_more_boxes_than_asked_for_and_the_rest_in_one():
    names = ["token:1@1", *(f"feature:{n // 4}/{n}@{1 + n % 2}" for n in range(24)), "logit:3@2"]
    edges = {("token:1@1", name): 1.0 + n for n, name in enumerate(names[1:5])}
    for n, name in enumerate(names[1:-1]):
        edges[name, "logit:3@2"] = 1.0 + n % 5
        if n >= 4:
            edges[names[1 + n % 4], name] = 1.0
    graph = make_graph(names, edges)
    for most in (0, 1, 3, GROUPS):
        shown = graph_overview(graph, at_most=most)
        assert len(shown.of_kind(BoxKind.GROUP)) <= most
        grouped = sum(len(shown.boxes[at].rows) for at in shown.of_kind(BoxKind.GROUP))
        assert shown.boxes[0].kind == BoxKind.MORE
        assert len(shown.boxes[0].rows) + grouped + 2 == len(graph)
        for at in shown.of_kind(BoxKind.GROUP):
            assert len(set(graph.nodes.pos[shown.boxes[at].rows].tolist())) == 1
        found = [shown.boxes[at].name for at in shown.of_kind(BoxKind.GROUP)]
        assert len(set(found)) == len(found)


def test_own_groups_stay_and_count():
    graph = chain()
    own = graphs.Group(name="mine", members=("feature:1/1@1",))
    shown = graph_overview(graph, graphs.Annotations(groups=(own,)), at_most=1)
    assert [shown.boxes[at].name for at in shown.of_kind(BoxKind.GROUP)] == ["mine"]


def test_own_groups_that_feed_each_other_are_refused():
    groups = (
        graphs.Group(name="ends", members=("feature:0/1@1", "feature:2/1@1")),
        graphs.Group(name="middle", members=("feature:1/1@1",)),
    )
    with pytest.raises(CyclicGroups, match="'ends'"):
        graph_overview(chain(), graphs.Annotations(groups=groups))


def test_automatic_groups_that_feed_each_other_are_taken_back(monkeypatch: pytest.MonkeyPatch):
    """Through nodes that pruning drops they may; the weaker one is then part of the rest."""
    groups = (
        graphs.Group(name="ends", members=("feature:0/1@1", "feature:2/1@1"), automatic=True),
        graphs.Group(name="middle", members=("feature:1/1@1",), automatic=True),
    )
    monkeypatch.setattr(
        "graphs.groups.overview.with_groups",
        lambda *_, **__: graphs.Annotations(groups=groups),
    )
    found = graph_overview(chain())
    assert [found.boxes[at].name for at in found.of_kind(BoxKind.GROUP)] == ["ends"]


def test_a_node_is_in_one_box_only():
    with pytest.raises(ValueError, match="feature:1/1@1 is in two groups"):
        overview(chain(), {"one": np.array([1, 2]), "other": np.array([2, 3])})


def test_the_strongest_chain_is_that_with_the_largest_product():
    # Boxes 1 and 2 are tokens, 3 to 5 groups, 6 is the target.
    flow = np.zeros((7, 7))
    flow[3, [1, 2]] = 0.3, 0.1
    flow[4, 2] = 0.5
    flow[5, [3, 4]] = 0.2, 0.2
    flow[6, [1, 3, 4, 5]] = 0.1, 0.2, 0.3, 0.4
    # 1-3-6: .75 · .2, 2-4-6: 1 · .3, 2-4-5-6: 1 · .5 · .4
    assert strongest_chains([1, 2], [3, 4, 5], 6, flow) == ((2, 4, 6), (1, 3, 6))
    assert strongest_chains([], [3], 6, flow) == ()


@settings(max_examples=40, deadline=None)
@given(random_graphs())
def test_what_groups_carry_is_what_is_lost_without_them(graph: AttributionGraph):
    assume(len(graph.target_rows()) > 0)
    assume(graph.seed.sum() > 0)
    groups = list(pairs(graph).values())
    without = graph_shares(graph).toarray()
    every = without.copy()
    for rows in groups:
        without[:, rows] = 0.0
    top = graph.heaviest_target()
    ends = np.diff(graph.weights.indptr) == 0

    def at_ends(shares: np.ndarray) -> float:
        """What ends at nodes without a row, or at edges that were dropped."""
        reached = np.linalg.inv(np.eye(len(graph)) - shares)[top]
        dropped = 1.0 - every.sum(axis=1)
        return float(reached[ends].sum() + (reached * dropped)[~ends].sum())

    assert carried_by(graph, groups) == pytest.approx(1.0 - at_ends(without), abs=1e-9)


def test_without_targets_there_is_no_chain():
    graph = make_graph(["token:1@1", "feature:0/1@1"], {("token:1@1", "feature:0/1@1"): 1.0})
    assert graph.nodes.is_kind(NodeKind.LOGIT).sum() == 0
    shown = graph_overview(graph)
    assert shown.chains == ()
    assert shown.carried == 0.0
