"""Pruning keeps the few nodes and edges that carry most of the influence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.analysis.influence import influence
from graphs.analysis.prune import PruneSettings, cumulative_influence, prune
from graphs.core.graph import AttributionGraph, row_sizes, row_sums
from graphs.core.nodes import NodeKind
from tests.graph_oracles import OUTSIDE, make_graph, prune_by_hand, random_graphs
from tests.tolerances import EXACT

# Between 0 and 1 none that sums of a few equal scores reach exactly: there rounding would decide.
THRESHOLDS = st.sampled_from([0.0, 0.1037, 0.3041, 0.5077, 0.7919, 0.9013, 0.9797, 1.0])
ALL_SETTINGS = st.builds(
    PruneSettings, THRESHOLDS, THRESHOLDS, st.booleans(), st.sampled_from(["full", "kept"])
)

TOKEN, STRONG, WEAK, ERROR, LOGIT = NAMES = [
    "token:4@0",
    "feature:0/1@0",
    "feature:0/2@0",
    "error:0@0",
    "logit:1@0",
]
EDGES = {
    (TOKEN, STRONG): 1.0,
    (TOKEN, WEAK): 1.0,
    (STRONG, LOGIT): 6.0,
    (WEAK, LOGIT): -1.0,
    (ERROR, LOGIT): 3.0,
}  # influence: token 0.7, strong 0.6, error 0.3, weak 0.1, sum 1.7


def names(graph: AttributionGraph) -> list[str]:
    return [str(node) for node in graph.nodes]


def edges(graph: AttributionGraph) -> dict[tuple[str, str], float]:
    entries = graph.weights.tocoo()
    ids = names(graph)
    pairs = zip(entries.row, entries.col, entries.data, strict=True)
    return {(ids[s], ids[t]): float(w) for t, s, w in pairs if w != 0}


# Scores that are equal but for the order in which they were summed are no ties to the computer.
@given(random_graphs(ties=False), ALL_SETTINGS)
@settings(max_examples=50, deadline=None)
def test_pruning_agrees_with_the_plain_version(graph, chosen):
    ids = names(graph)
    kept_nodes, kept_edges = prune_by_hand(graph, chosen)
    pruned = prune(graph, chosen)
    assert names(pruned) == [ids[i] for i in sorted(kept_nodes)]
    assert set(edges(pruned)) == {(ids[s], ids[t]) for t, s in kept_edges}


@given(random_graphs(), THRESHOLDS, THRESHOLDS, THRESHOLDS, THRESHOLDS, st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_lower_threshold_keeps_a_part_of_what_a_higher_one_keeps(graph, a, b, c, d, keep_errors):
    small = prune(graph, PruneSettings(min(a, b), min(c, d), keep_errors))
    large = prune(graph, PruneSettings(max(a, b), max(c, d), keep_errors))
    assert set(names(small)) <= set(names(large))
    assert edges(small).items() <= edges(large).items()


@given(random_graphs(), THRESHOLDS, THRESHOLDS, THRESHOLDS)
@settings(max_examples=50, deadline=None)
def test_edges_measured_on_kept_nodes_are_monotone_in_their_own_threshold(graph, node, a, b):
    small = prune(graph, PruneSettings(node, min(a, b), edge_scores="kept"))
    large = prune(graph, PruneSettings(node, max(a, b), edge_scores="kept"))
    assert set(names(small)) <= set(names(large))
    assert edges(small).items() <= edges(large).items()


@given(random_graphs(), ALL_SETTINGS)
@settings(max_examples=50, deadline=None)
def test_pruning_keeps_row_sums_identities_and_ends(graph, chosen):
    pruned = prune(graph, chosen)
    rows = np.array([graph.find(node) for node in pruned.nodes])
    sums, sizes = row_sums(graph.weights), row_sizes(graph.weights)
    np.testing.assert_allclose(
        row_sums(pruned.weights) + pruned.dropped, (sums + graph.dropped)[rows], **EXACT
    )
    np.testing.assert_allclose(
        row_sizes(pruned.weights) + pruned.dropped_absolute,
        (sizes + graph.dropped_absolute)[rows],
        **EXACT,
    )
    assert edges(pruned).items() <= edges(graph).items()
    assert np.array_equal(pruned.expanded, graph.expanded[rows])
    assert pruned.provenance.targets == graph.provenance.targets
    outside = graph.nodes.is_kind(*OUTSIDE)
    assert set(np.flatnonzero(outside)) <= set(rows)
    if chosen.keep_errors:
        assert set(np.flatnonzero(graph.nodes.is_kind(NodeKind.ERROR))) <= set(rows)


@given(random_graphs(), ALL_SETTINGS)
@settings(max_examples=50, deadline=None)
def test_no_node_is_left_hanging(graph, chosen):
    pruned = prune(graph, chosen)
    feeding = {source for source, _ in edges(pruned)}
    fed = {target for _, target in edges(pruned)}
    for row, node in enumerate(pruned.nodes):
        if node.kind in (NodeKind.FEATURE, NodeKind.BIAS) or (
            node.kind == NodeKind.ERROR and not chosen.keep_errors
        ):
            assert str(node) in feeding
        if node.kind == NodeKind.FEATURE and pruned.expanded[row]:
            assert str(node) in fed


def test_the_strongest_nodes_are_kept_until_the_threshold_is_reached():
    graph = make_graph(NAMES, EDGES)
    one = PruneSettings(edge_threshold=1.0)
    assert names(prune(graph, one)) == [TOKEN, STRONG, ERROR, LOGIT]  # 1.3 < 0.8 · 1.7 ≤ 1.6
    assert names(prune(graph, PruneSettings(0.7, 1.0))) == [TOKEN, STRONG, LOGIT]
    assert names(prune(graph, PruneSettings(0.7, 1.0, keep_errors=True))) == [
        TOKEN,
        STRONG,
        ERROR,
        LOGIT,
    ]


def test_edges_measured_on_kept_nodes_differ_from_the_full_graphs():
    graph = make_graph(NAMES, EDGES)
    # Full: scores 0.6 0.6 0.3 0.1 0.1 of 1.7, so 0.9 · 1.7 = 1.53 takes the error's edge and one.
    full = prune(graph, PruneSettings(0.7, 0.9))
    assert set(edges(full)) == {(TOKEN, STRONG), (STRONG, LOGIT)}
    # Kept: without error and weak the two edges score 1 each.
    kept = prune(graph, PruneSettings(0.7, 0.5, edge_scores="kept"))
    assert set(edges(kept)) == set()
    assert names(kept) == [TOKEN, LOGIT]


def test_what_rows_lose_is_counted():
    pruned = prune(make_graph(NAMES, EDGES), PruneSettings(0.7, 1.0))
    assert pruned.dropped.tolist() == [0.0, 0.0, 2.0]
    assert pruned.dropped_absolute.tolist() == [0.0, 0.0, 4.0]
    np.testing.assert_allclose(influence(pruned), [0.6, 0.6, 0.0], **EXACT)


def test_a_feature_whose_row_is_unknown_needs_no_input():
    known = {pair: weight for pair, weight in EDGES.items() if pair != (TOKEN, STRONG)}
    assert STRONG not in names(prune(make_graph(NAMES, known), PruneSettings(1.0, 1.0)))
    unknown = make_graph(NAMES, known, unexpanded=(STRONG,))
    assert STRONG in names(prune(unknown, PruneSettings(1.0, 1.0)))


def test_removing_a_dead_end_removes_what_only_feeds_it():
    chain = ["token:4@0", "feature:0/1@0", "feature:1/1@0", "feature:1/2@0", "logit:1@0"]
    links = {
        (chain[0], chain[1]): 1.0,
        (chain[1], chain[2]): 1.0,  # ends nowhere
        (chain[0], chain[3]): 1.0,
        (chain[3], chain[4]): 1.0,
    }
    graph = make_graph(chain, links)
    assert names(prune(graph, PruneSettings(1.0, 1.0))) == [chain[0], chain[3], chain[4]]


def test_ties_are_broken_by_node_order():
    features = [f"feature:0/{i}@0" for i in range(4)]
    links = {(TOKEN, f): 1.0 for f in features} | {(f, LOGIT): 1.0 for f in features}
    graph = make_graph([TOKEN, *features, LOGIT], links)
    # Influence: token 1, features 1/4 each.
    pruned = prune(graph, PruneSettings(0.75, 1.0))
    assert names(pruned) == [TOKEN, *features[:2], LOGIT]


def test_threshold_0_keeps_ends_only_and_1_all_that_has_influence():
    graph = make_graph([*NAMES[:4], "error:0@1", LOGIT], EDGES)
    assert names(prune(graph, PruneSettings(0.0, 1.0))) == [TOKEN, LOGIT]
    assert edges(prune(graph, PruneSettings(1.0, 0.0))) == {}
    assert names(prune(graph, PruneSettings(1.0, 1.0))) == NAMES
    assert edges(prune(graph, PruneSettings(1.0, 1.0))) == EDGES


def test_what_only_feeds_an_impossible_target_has_no_influence():
    graph = make_graph(
        [*NAMES, "logit:2@0"], EDGES | {(WEAK, "logit:2@0"): 9.0, (ERROR, "logit:2@0"): 9.0}, [1, 0]
    )
    assert (WEAK, "logit:2@0") not in edges(prune(graph, PruneSettings(1.0, 1.0)))


def test_threshold_1_keeps_what_rounding_would_lose():
    tiny = {**EDGES, (WEAK, LOGIT): 1e-30}
    assert WEAK in names(prune(make_graph(NAMES, tiny), PruneSettings(1.0, 1.0)))


@pytest.mark.parametrize("chosen", [PruneSettings(), PruneSettings(edge_scores="kept")])
def test_graphs_without_influence_keep_their_ends(chosen: PruneSettings):
    silent = make_graph(NAMES, EDGES, probabilities=[0.0])
    assert names(prune(silent, chosen)) == [TOKEN, LOGIT]
    assert cumulative_influence(silent).tolist() == [1.0] * 5
    assert names(prune(make_graph([TOKEN, LOGIT], {}), chosen)) == [TOKEN, LOGIT]
    assert names(prune(make_graph([LOGIT], {}), chosen)) == [LOGIT]
    assert names(prune(make_graph([], {}, probabilities=[]), chosen)) == []


def test_cumulative_influence_counts_the_node_itself():
    np.testing.assert_allclose(
        cumulative_influence(make_graph(NAMES, EDGES)),
        [0.7 / 1.7, 1.3 / 1.7, 1.0, 1.6 / 1.7, 1.0],
        **EXACT,
    )


def test_the_header_says_how_the_graph_was_pruned():
    header = prune(make_graph(NAMES, EDGES), PruneSettings(0.7, 0.9)).provenance
    assert header.settings == {
        "batch": 4,
        "why": None,
        "prune": {
            "node_threshold": 0.7,
            "edge_threshold": 0.9,
            "keep_errors": False,
            "edge_scores": "full",
            "patterns": False,
        },
    }


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_thresholds_outside_0_to_1_are_refused(bad: float):
    with pytest.raises(ValueError, match=f"edge_threshold must be from 0 to 1, got {bad}"):
        PruneSettings(edge_threshold=bad)


def test_another_way_to_score_edges_is_refused():
    odd = PruneSettings()
    object.__setattr__(odd, "edge_scores", "all")  # the type checks of the tests come first
    with pytest.raises(ValueError, match="edge_scores must be full or kept, got 'all'"):
        odd.__post_init__()
