"""Groups: the objective, no cycles, and what a person grouped stays."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.sparse import csr_array

import graphs.groups.grouping
from graphs.analysis.influence import influence
from graphs.comparison.profiles import Profile
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.groups.clustering import Merger
from graphs.groups.collapse import collapse
from graphs.groups.grouping import GroupSettings, TooManyFeatures, find_groups, similarity
from tests.graph_oracles import make_graph, random_graphs

LOOSE = GroupSettings(tightness=0.2)


def objective(graph: AttributionGraph, groups: list[np.ndarray], how: GroupSettings) -> float:
    rows = np.arange(len(graph))
    alike, size = similarity(graph, rows, how), influence(graph)
    return sum(
        (alike[i, j] - how.tightness) * size[i] * size[j]
        for group in groups
        for i, j in itertools.combinations(group.tolist(), 2)
    )


@settings(max_examples=50, deadline=None)
@given(random_graphs())
def test_groups_gain_and_can_be_collapsed(graph: AttributionGraph):
    groups = find_groups(graph, LOOSE)
    named = {str(number): group for number, group in enumerate(groups)}
    collapse(graph, named)  # refuses cycles and nodes in two groups
    for group in groups:
        assert len(group) > 1
        assert len(set(graph.nodes.pos[group].tolist())) == 1
        assert np.all(graph.nodes.is_kind(NodeKind.FEATURE)[group])
        assert objective(graph, [group], LOOSE) > 0


def twins() -> AttributionGraph:
    """Two features that do the same, one that does something else, one at another position."""
    names = [
        "token:1@1",
        "token:2@2",
        "feature:0/1@2",
        "feature:0/2@2",
        "feature:0/3@2",
        "feature:0/4@1",
        "feature:1/1@2",
        "logit:3@2",
    ]
    edges = {
        ("token:1@1", "feature:0/1@2"): 2.0,
        ("token:1@1", "feature:0/2@2"): 1.0,
        ("token:2@2", "feature:0/3@2"): 1.0,
        ("token:1@1", "feature:0/4@1"): 1.0,
        ("feature:0/1@2", "feature:1/1@2"): 3.0,
        ("feature:0/2@2", "feature:1/1@2"): 3.0,
        ("feature:0/4@1", "feature:1/1@2"): 3.0,
        ("feature:0/3@2", "logit:3@2"): 1.0,
        ("feature:1/1@2", "logit:3@2"): 1.0,
    }
    return make_graph(names, edges)


def test_twins_are_found():
    assert [group.tolist() for group in find_groups(twins(), GroupSettings(tightness=0.8))] == [
        [2, 3]
    ]


def test_words_count_where_both_say_something():
    graph = twins()
    rows = np.array([2, 3, 4])
    silent = similarity(graph, rows, GroupSettings(profile=0.0, layers=1.0, words=1.0))
    assert silent[0, 2] == 1.0  # the layer alone
    said = {2: (" Austin", " Texas"), 3: (" Dallas", " Texas"), 4: ()}
    spoken = make_graph([str(n) for n in graph.nodes], {}, output_tokens=said)
    heard = similarity(spoken, rows, GroupSettings(profile=0.0, layers=1.0, words=1.0))
    assert heard[0, 1] == pytest.approx((1 + 1 / 3) / 2)
    assert heard[0, 2] == 1.0


def test_decoders_count_where_both_are_known():
    graph, rows = twins(), np.array([2, 3, 4])
    known = Profile(
        model="m",
        dictionary="d",
        prompts=(),
        layer=np.zeros(3, dtype=np.int64),
        index=np.array([1, 2, 5]),
        activation=csr_array((3, 0)),
        promoted=((), (), ()),
        decoder=np.array([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]]),
    )
    how = GroupSettings(profile=0.0, words=0.0, layers=1.0, decoders=3.0)
    alike = similarity(graph, rows, how, known)
    assert alike[0, 1] == pytest.approx((1 + 3 * 0.6) / 4)
    assert alike[0, 2] == alike[1, 2] == 1.0  # feature 0/3 has none: the layer alone
    away = replace(known, decoder=np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
    assert similarity(graph, rows, how, away)[0, 1] == pytest.approx(1 / 4)
    without = replace(known, decoder=None)
    assert similarity(graph, rows, how, without)[0, 1] == 1.0
    strict = GroupSettings(tightness=0.8, decoders=1.0)
    assert [group.tolist() for group in find_groups(graph, strict)] == [[2, 3]]
    assert find_groups(graph, strict, profile=away) == []


def test_layers_count_up_to_the_band():
    names = ["token:0@0", "feature:0/1@0", "feature:3/1@0", "feature:9/1@0", "logit:1@0"]
    graph = make_graph(names, {}, tokens=("a",))
    near = similarity(graph, np.array([1, 2, 3]), GroupSettings(profile=0.0, words=0.0, layers=1.0))
    assert near[0].tolist() == [1.0, 0.5, 0.0]


def test_what_a_person_grouped_stays():
    graph = twins()
    assert find_groups(graph, GroupSettings(tightness=0.8), own=[np.array([2, 4])]) == []


def test_three_in_a_row_are_merged_from_neighbours():
    """The outer two alone would make a cycle with the middle one."""
    names = ["token:0@0", *(f"feature:{layer}/1@0" for layer in range(3)), "logit:1@0"]
    edges = {(names[i], names[j]): 1.0 for i in range(5) for j in range(i + 1, 5)}
    graph = make_graph(names, edges, tokens=("a",))
    only = GroupSettings(tightness=0.1, profile=0.0, words=0.0, layers=1.0)
    assert [group.tolist() for group in find_groups(graph, only)] == [[1, 2, 3]]


def test_too_many_features_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graphs.groups.grouping, "MOST_FEATURES", 3)
    with pytest.raises(TooManyFeatures, match="this graph has 5: prune it first"):
        find_groups(twins())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tightness": 1.5}, "tightness must be from 0 to 1"),
        ({"words": -0.1}, "must not be negative"),
        ({"profile": 0.0, "decoders": 0.0, "words": 0.0, "layers": 0.0}, "or all 0"),
        ({"band": 0}, "band must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict, said: str):
    with pytest.raises(ValueError, match=said):
        GroupSettings(**wrong)


@pytest.mark.parametrize(("gain", "left"), [(-0.05, [[0, 1, 2]]), (-0.5, [[0, 1]])])
def test_with_a_budget_goes_what_costs_least(gain: float, left: list[list[int]]):
    """0 and 1 gain together; 2 costs what its union loses, or if given up its own worth of .1."""
    gains = np.array([[0.0, 1.0, gain / 2], [1.0, 0.0, gain / 2], [gain / 2, gain / 2, 0.0]])
    merger = Merger(
        [(np.arange(3), gains)], np.zeros((3, 3), dtype=bool), np.array([0.4, 0.3, 0.1])
    )
    assert [sorted(group) for group in merger.run(1)] == left


def test_groups_that_may_not_be_merged_are_given_up():
    apart = np.full((3, 3), -np.inf)
    merger = Merger(
        [(np.arange(3), apart)], np.zeros((3, 3), dtype=bool), np.array([0.2, 0.3, 0.1])
    )
    assert merger.run(1) == [[1]]
    with pytest.raises(ValueError, match="at_most must be 0 or more, got -1"):
        find_groups(twins(), at_most=-1)


def test_a_budget_is_kept_and_singles_count():
    found = find_groups(twins(), GroupSettings(tightness=0.8), at_most=2)
    assert len(found) == 2
    assert min(map(len, found)) == 1


def reduced(
    gain: np.ndarray, feeds: np.ndarray, worth: np.ndarray, at_most: int
) -> list[list[int]]:
    """The greedy rule itself: every pair is looked at before every step."""
    groups = [[n] for n in range(len(worth))]
    gone: list[list[int]] = []

    def gains(one: list[int], other: list[int]) -> float:
        return float(gain[np.ix_(one, other)].sum())

    def cycles(one: list[int], other: list[int]) -> bool:
        parts = groups + gone
        step = np.array([[feeds[np.ix_(a, b)].any() and a is not b for b in parts] for a in parts])
        first, second = (next(n for n, a in enumerate(parts) if a is end) for end in (one, other))
        third = [n for n in range(len(parts)) if n not in (first, second)]
        inner = step[np.ix_(third, third)].astype(int)
        paths = np.linalg.matrix_power(inner + np.eye(len(third), dtype=int), len(third)) > 0
        return any(
            (step[a, third] @ paths @ step[third, b]) > 0
            for a, b in ((first, second), (second, first))
        )

    while True:
        pairs = [(gains(a, b), a, b) for a, b in itertools.combinations(groups, 2)]
        most, one, other = max(
            (pair for pair in pairs if not cycles(*pair[1:])),
            key=lambda pair: pair[0],
            default=(-np.inf, [], []),
        )
        if most <= 0 and len(groups) <= at_most:
            return sorted(sorted(group) for group in groups)
        worths = [
            sum(worth[n] for n in a) + sum(gain[i, j] for i, j in itertools.combinations(a, 2))
            for a in groups
        ]
        if most <= 0 and -most >= min(worths):
            gone.append(groups.pop(int(np.argmin(worths))))
        else:
            one += other
            groups = [group for group in groups if group is not other]


@pytest.mark.parametrize("seed", range(20))
def test_groups_within_a_budget_are_those_of_the_greedy_rule(seed: int):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    gain = rng.normal(-0.3, 1, (count, count))
    gain += gain.T
    place = rng.integers(0, 2, count)
    gain[place[:, None] != place] = -np.inf
    feeds = np.triu(rng.random((count, count)) < 0.3, 1)
    worth = np.abs(rng.normal(size=count))
    at_most = seed % 4
    near = [np.flatnonzero(place == at) for at in np.unique(place)]
    candidates = [(one, gain[np.ix_(one, one)]) for one in near]
    found = Merger(candidates, feeds.copy(), worth).run(at_most)
    assert sorted(sorted(group) for group in found) == reduced(gain, feeds, worth, at_most)
