"""Two models over many prompts."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import graphs
import viz
from graphs.comparison.compare import compare
from graphs.comparison.correspond import CorrespondSettings, correspond
from graphs.comparison.many_prompts import _derangements, compare_prompt_sets, interval, traits
from tests.graph_oracles import make_graph
from tests.test_cli import assert_refused, run


def prompt(number: int, layers: int = 3) -> graphs.AttributionGraph:
    """A graph of one dictionary whose features are its prompt's own, but for one."""
    own = [f"feature:{layer}/{10 * number + layer}@1" for layer in range(layers)]
    names = ["token:1@0", "token:2@1", "feature:0/999@1", *own, "logit:1@2"]
    edges = {("token:1@0", "feature:0/999@1"): 1.0, ("token:2@1", own[0]): 2.0}
    edges |= {(own[layer], own[layer + 1]): 1.0 + number for layer in range(layers - 1)}
    edges |= {("feature:0/999@1", own[-1]): -1.0, (own[-1], "logit:1@2"): 3.0}
    order = sorted(names, key=lambda name: (name[0] != "t", name[0] == "l", name))
    tokens = {
        row: (f" word{name}",) for row, name in enumerate(order) if name.startswith("feature")
    }
    return make_graph(order, edges, [0.5], output_tokens=tokens)


def other_model(graph: graphs.AttributionGraph) -> graphs.AttributionGraph:
    """The same computation by another model, with a dictionary of its own."""
    header = graph.provenance
    names = {
        part: getattr(header, part).model_copy(update={"name": "other"})
        for part in ("model", "dictionary")
    }
    return replace(graph, provenance=header.model_copy(update=names))


ONES = [prompt(number) for number in range(1, 7)]
OTHERS = [other_model(graph) for graph in ONES]


def test_a_model_beside_itself_scores_one_and_shuffled_prompts_do_not():
    found = compare_prompt_sets(ONES, ONES)
    assert {name: score.value for name, score in found.scores.items()} == pytest.approx(
        {"features": 1.0, "edges": 1.0, "ranks": 1.0}
    )
    for name in ("features", "edges"):
        assert max(found.scores[name].null) < 0.5
        assert found.scores[name].p_value == 1 / 21
    ranks = found.scores["ranks"]  # other prompts have too few edges in common
    assert np.isnan(ranks.null).all()
    assert ranks.known_null == ()
    assert np.isnan([ranks.p_value, ranks.null_mean]).all()


def test_two_models_that_compute_alike_are_far_from_shuffled_prompts():
    found = compare_prompt_sets(ONES, OTHERS)
    assert found.scores.keys() == {"matched", "alike", "edges", "ranks"}
    assert found.scores["matched"].value == pytest.approx(1.0)
    assert max(found.scores["matched"].null) < 0.7


@pytest.mark.parametrize("others", [ONES, OTHERS])
def test_scores_are_means_over_prompts_and_nulls_over_other_prompts(others):
    settings = CorrespondSettings(permutations=0, seed=3)
    found = compare_prompt_sets(ONES, others, settings, shuffles=4)

    def score(one: graphs.AttributionGraph, other: graphs.AttributionGraph) -> float:
        if others is ONES:
            return compare(one, other, permutations=0).edges.value
        return correspond(one, other, settings).comparison.edges.value

    by_hand = [score(one, other) for one, other in zip(ONES, others, strict=True)]
    assert found.per_prompt["edges"].tolist() == by_hand
    assert found.scores["edges"].value == pytest.approx(np.mean(by_hand))
    null = [
        np.mean([score(ONES[place], others[there]) for place, there in enumerate(order)])
        for order in _derangements(len(ONES), 4, seed=3)
    ]
    assert found.scores["edges"].null == pytest.approx(sorted(null))


@given(st.integers(2, 20), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_shuffled_prompts_never_meet_their_own(count, seed):
    for order in _derangements(count, 5, seed):
        assert sorted(order) == list(range(count))
        assert all(place != there for place, there in enumerate(order))


def test_traits_by_hand():
    """token 1.0 → feature → logit and token → logit: half the influence takes one edge."""
    names = ["token:1@0", "feature:0/1@1", "feature:3/2@1", "logit:1@2"]
    edges = {
        (names[0], names[1]): 5.0,
        (names[1], names[2]): -5.0,
        (names[2], names[3]): 2.0,
        (names[0], names[3]): 2.0,
    }
    found = traits(make_graph(names, edges, [0.25]))
    assert found == pytest.approx(
        {"features": 2, "depth": 0.5, "edges": 0.5 * 1 + 0.5 * 3, "direct": 0.5}
    )
    empty = traits(make_graph(["logit:1@0"], {}))
    assert empty["features"] == 0
    assert all(np.isnan(empty[name]) for name in ("depth", "edges", "direct"))


def test_an_interval_holds_what_it_says():
    rng = np.random.default_rng(0)
    inside = sum(
        low <= 0.0 <= high
        for low, high in (interval(rng.normal(size=40), level=0.8) for _ in range(200))
    )
    assert 140 <= inside <= 175
    assert interval(np.array([np.nan, 2.0])) == (2.0, 2.0)
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_lists_must_fit():
    with pytest.raises(ValueError, match="lists of the same length, got 6 and 1"):
        compare_prompt_sets(ONES, ONES[:1])
    with pytest.raises(ValueError, match="got 0 and 0"):
        compare_prompt_sets([], [])
    with pytest.raises(ValueError, match="at least two prompts to shuffle"):
        compare_prompt_sets(ONES[:1], ONES[:1])
    assert compare_prompt_sets(ONES[:1], ONES[:1], shuffles=0).scores["features"].null == ()


def folder(tmp_path: Path, name: str, several: list[graphs.AttributionGraph]) -> Path:
    made = tmp_path / name
    made.mkdir()
    for number, graph in enumerate(several):
        graphs.write_graph(graph, made / f"p{number}.safetensors")
    return made


def test_folders_are_compared_prompt_by_prompt(tmp_path):
    one, other = folder(tmp_path, "a", ONES), folder(tmp_path, "b", OTHERS[:5])
    graphs.write_annotations(graphs.NO_ANNOTATIONS, one / "p0.annotations.json")
    page = tmp_path / "page.html"
    result = run("compare", one, other, "--permutations", "4", "--html", page)
    assert result.exit_code == 0, result.output
    assert result.stderr == "Left out, since only one folder has them: p5.\n"
    assert "tiny model and other: 5 prompts" in result.stdout
    assert "influence at matched features" in result.stdout
    assert "95 % interval" in page.read_text()
    data = json.loads(run("compare", one, other, "--permutations", "4", "--json").stdout)
    expected = compare_prompt_sets(ONES[:5], OTHERS[:5], shuffles=4)
    assert data["prompts"] == [f"p{number}" for number in range(5)]
    assert data["scores"]["matched"]["value"] == expected.scores["matched"].value
    assert len(data["scores"]["matched"]["null"]) == 4
    assert data["scores"]["matched"]["interval"] == list(interval(expected.per_prompt["matched"]))
    assert data["traits"]["features"] == {"mean": [4.0, 4.0], "difference": [0.0, 0.0]}
    (one / "graph-metadata.json").write_text("{}")  # circuit-tracer's index
    own = json.loads(run("compare", one, one, "--json").stdout)
    assert own["scores"]["ranks"] == {
        "value": pytest.approx(1.0),
        "null": [],
        "chance": None,
        "interval": pytest.approx([1.0, 1.0]),
    }
    short = [make_graph(["logit:1@0"], {})] * 2
    bare = folder(tmp_path, "bare", short)
    assert json.loads(run("compare", bare, bare, "--json").stdout)["traits"]["depth"] == {
        "mean": [None, None],
        "difference": [None, None],
    }
    assert "nan" not in run("compare", bare, bare).stdout
    assert own["scores"]["features"]["value"] == pytest.approx(1.0)


def test_folders_that_do_not_fit_get_one_sentence(tmp_path):
    one, other = folder(tmp_path, "a", ONES), folder(tmp_path, "b", OTHERS)
    empty = tmp_path / "empty"
    empty.mkdir()
    lone = folder(tmp_path, "lone", ONES[:1])
    alien = tmp_path / "alien"
    alien.mkdir()
    graphs.write_graph(ONES[0], alien / "x.safetensors")
    mixed = folder(tmp_path, "mixed", [ONES[0], OTHERS[1]])
    twice = folder(tmp_path, "twice", ONES[:2])
    (twice / "p1.json").write_text("{}")
    file = one / "p0.safetensors"
    assert_refused(run("compare", one, file), f"{file} is not a folder: compare two graphs or two")
    assert_refused(run("compare", one, empty), f"{empty} has no graphs: expected .safetensors")
    assert_refused(run("compare", one, alien), "No graph in")
    assert_refused(run("compare", lone, lone), "needs at least two: give --permutations 0")
    assert_refused(run("compare", twice, one), "are both graphs of p1: keep one of them")
    assert_refused(run("compare", mixed, mixed), "several models or dictionaries, as p0 and p1")
    assert_refused(run("compare", one, other, "--plan"), "--plan is for two graphs")


def short() -> graphs.AttributionGraph:
    """Two features in the first and last of three layers."""
    names = ["token:1@0", "feature:0/1@1", "feature:2/1@1", "logit:1@2"]
    edges = dict.fromkeys(itertools.pairwise(names), 1.0)
    return make_graph(names, edges, [0.5])


def test_the_depth_profile_of_many_prompts_is_their_mean():
    def drawn(side: Any) -> np.ndarray:
        figure: Any = viz.depth_profile([side], ["a"])
        return np.array(figure.data[0].y)

    two = [ONES[0], short()]
    mean = (drawn(two[0]) + drawn(two[1])) / 2
    np.testing.assert_allclose(drawn(two), mean)
    assert not np.allclose(drawn(two[0]), drawn(two[1]))


def test_differences_are_the_second_less_the_first():
    few, many = [short()] * 2, ONES[:2]
    console = Console(width=120)
    with console.capture() as told:
        found = compare_prompt_sets(few, many, shuffles=0)
        console.print(viz.prompts_text(few, many, ["a", "b"], found))
    row = next(line for line in told.get().splitlines() if line.startswith("features  "))
    assert row.split() == ["features", "2", "4", "2.000", "to", "2.000"]
