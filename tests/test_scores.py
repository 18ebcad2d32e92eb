"""Scores of graphs and of parts of graphs."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.analysis.prune import PruneSettings, prune
from graphs.analysis.scores import Scores, scores
from graphs.core.nodes import NodeKind
from tests.graph_oracles import absorbed_by_hand, make_graph, random_graphs, renormalised_by_hand
from tests.tolerances import EXACT

MASKS = st.integers(0, 2**32 - 1)
ORACLES = {"absorbed": absorbed_by_hand, "renormalised": renormalised_by_hand}

NAMES = ["token:4@0", "feature:0/1@0", "feature:0/2@0", "error:0@0", "logit:1@0"]
TOKEN, ONE, TWO, ERROR, LOGIT = NAMES
EDGES = {
    (TOKEN, ONE): 1.0,
    (TOKEN, TWO): 1.0,
    (ONE, LOGIT): 2.0,
    (TWO, LOGIT): -4.0,
    (ERROR, LOGIT): 2.0,
}


def mask(graph, seed: int, share: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).random(len(graph)) < share


@pytest.mark.parametrize("convention", ["absorbed", "renormalised"])
@given(graph=random_graphs(), seed=MASKS)
@settings(max_examples=50, deadline=None)
def test_scores_agree_with_the_plain_version(convention, graph, seed):
    kept = mask(graph, seed)
    result = scores(graph, kept, convention)
    expected = ORACLES[convention](graph, kept)
    np.testing.assert_allclose([result.replacement, result.completeness], expected, **EXACT)
    for score in (result.replacement, result.completeness):
        assert 0.0 <= score <= 1.0


@given(random_graphs(), MASKS, MASKS)
@settings(max_examples=50, deadline=None)
def test_keeping_more_never_lowers_an_absorbed_score(graph, one, other):
    small, large = mask(graph, one, 0.3), mask(graph, one, 0.3) | mask(graph, other)
    less, more, most = scores(graph, small), scores(graph, large), scores(graph)
    assert less.replacement <= more.replacement + 1e-12 <= most.replacement + 2e-12
    assert less.completeness <= more.completeness + 1e-12 <= most.completeness + 2e-12


@given(random_graphs(), st.sampled_from([0.3, 0.8, 1.0]))
@settings(max_examples=50, deadline=None)
def test_a_pruned_graph_scores_like_its_nodes_in_the_full_graph(graph, threshold):
    pruned = prune(graph, PruneSettings(threshold, 1.0))
    kept = np.isin(np.arange(len(graph)), [graph.find(node) for node in pruned.nodes])
    alone, inside = scores(pruned), scores(graph, kept)
    np.testing.assert_allclose(alone.replacement, inside.replacement, **EXACT)
    np.testing.assert_allclose(alone.completeness, inside.completeness, **EXACT)


@given(random_graphs())
@settings(max_examples=50, deadline=None)
def test_a_full_graph_with_nothing_dropped_has_one_score(graph):
    whole = replace(graph, dropped_absolute=np.zeros(len(graph)))
    one, other = scores(whole), scores(whole, convention="renormalised")
    np.testing.assert_allclose(one.replacement, other.replacement, **EXACT)
    np.testing.assert_allclose(one.completeness, other.completeness, **EXACT)


@given(random_graphs())
@settings(max_examples=50, deadline=None)
def test_replacement_is_1_where_nothing_ends_at_errors(graph):
    whole = graph.take(np.flatnonzero(~graph.nodes.is_kind(NodeKind.ERROR)))
    result = scores(whole, convention="renormalised")
    assert result.replacement in (0.0, 1.0)  # 0 if nothing ends at inputs either
    assert result.completeness == 1.0


def test_scores_of_a_small_graph_by_hand():
    graph = make_graph(NAMES, EDGES)
    # 3/4 of the influence ends at the token; 2 · 1/4 + 3/4 arrive on the way and 1 at the start.
    assert scores(graph) == Scores(replacement=0.75, completeness=1 - 0.25 / 2.75)


def test_a_dropped_feature_is_an_error_or_nothing():
    graph = make_graph(NAMES, EDGES)
    kept = np.array([True, True, False, True, True])
    assert scores(graph, kept).replacement == 0.25
    assert scores(graph, kept, "renormalised").replacement == 0.5
    no_error = graph.take(np.array([0, 1, 2, 4]))
    assert scores(no_error, np.array([True, True, False, True])).replacement == 0.25


def test_what_opposite_signs_would_hide_is_counted():
    edges = {**EDGES, (ERROR, LOGIT): 4.0}  # added with signs, error and dropped feature cancel
    kept = np.array([True, True, False, True, True])
    assert scores(make_graph(NAMES, edges), kept).replacement == 0.2


def test_only_errors_linked_to_kept_nodes_count_when_renormalised():
    graph = make_graph(NAMES, EDGES)
    pinned = np.array([False, True, False, False, False])  # the target is shown, but not pinned
    assert scores(graph, pinned, "renormalised").replacement == 1.0


def test_biases_are_neither_input_nor_error_until_they_are_dropped():
    names = [TOKEN, "bias:0", LOGIT]
    graph = make_graph(names, {(TOKEN, LOGIT): 1.0, ("bias:0", LOGIT): 3.0})
    assert scores(graph) == Scores(1.0, 1.0)
    dropped = np.array([True, False, True])
    assert scores(graph, dropped) == Scores(0.25, 1 - 0.75 / 2)
    assert scores(graph, dropped, "renormalised") == Scores(1.0, 1.0)


def test_what_a_row_lost_is_error_or_nothing():
    graph = make_graph([TOKEN, LOGIT], {(TOKEN, LOGIT): 1.0}, dropped={LOGIT: (0.0, 3.0)})
    assert scores(graph) == Scores(0.25, 1 - 0.75 / 2)
    assert scores(graph, convention="renormalised") == Scores(1.0, 1.0)


@pytest.mark.parametrize("convention", ["absorbed", "renormalised"])
def test_where_nothing_is_to_be_divided_scores_are_0(convention):
    assert scores(make_graph([ERROR, LOGIT], {(ERROR, LOGIT): 1.0}), None, convention) == Scores(
        0.0, 0.5
    )
    assert scores(make_graph([LOGIT], {}), None, convention) == Scores(0.0, 1.0)
    assert scores(make_graph(NAMES, EDGES, [0.0]), None, convention) == Scores(0.0, 0.0)
    assert scores(make_graph([], {}, []), None, convention) == Scores(0.0, 0.0)


def test_another_convention_is_refused():
    unchecked = inspect.unwrap(scores)  # as it is without the type checks of the tests
    with pytest.raises(ValueError, match="absorbed or renormalised, got 'renormalized'"):
        unchecked(make_graph(NAMES, EDGES), None, "renormalized")


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="kept has 3 entries for 5 nodes"):
        scores(make_graph(NAMES, EDGES), np.ones(3, dtype=bool))
