"""Boxes of two overviews that stand for the same part of the computation."""

from __future__ import annotations

import numpy as np

from graphs.comparison.matching import match_by_identity
from graphs.comparison.positions import align_prompts, shared_columns
from graphs.core.graph import AttributionGraph
from graphs.groups.counterparts import counterparts
from graphs.groups.overview import Overview, overview
from tests.graph_oracles import make_graph

Shown = tuple[AttributionGraph, Overview]


def shown(
    features: dict[str, str],  # name of a group: its feature
    edges: dict[tuple[str, str], float],  # by these names, "token" and "answer"
    token: str = " Dallas",
    answer: int = 5,
) -> Shown:
    """A graph of groups of one feature each, a token and an answer."""
    node = {"token": "token:7@1", **features, "answer": f"logit:{answer}@1"}
    weights = {(node[source], node[target]): weight for (source, target), weight in edges.items()}
    graph = make_graph([*node.values()], weights, [1.0], tokens=("<bos>", token))
    groups = {name: np.array([row]) for row, name in enumerate(features, start=1)}
    return graph, overview(graph, groups)


def paired(one: Shown, other: Shown) -> dict[str, tuple[str, float]]:
    """Names of counterparts, and what they share."""
    (first, above), (second, below) = one, other
    positions = align_prompts(first.provenance, second.provenance)
    columns = shared_columns(positions, len(second.provenance.tokens))
    match = match_by_identity(first, second, positions)
    found = counterparts((first, second), (above, below), match, columns)
    assert len({pair.first for pair in found}) == len({pair.second for pair in found}) == len(found)
    return {
        above.boxes[pair.first].name: (below.boxes[pair.second].name, round(pair.shared, 9))
        for pair in found
    }


FEATURES = {"a": "feature:0/1@1", "b": "feature:1/2@1"}
OTHERS = {"x": "feature:0/8@1", "y": "feature:1/9@1"}


def chain(first: str, second: str, weight: float = 1.0) -> dict[tuple[str, str], float]:
    """Token → first → second → answer, the last step with this weight."""
    return {
        ("token", first): 1.0,
        (first, second): 1.0,
        (second, "answer"): weight,
        ("token", "answer"): 0.5,
    }


def test_every_box_is_its_own_counterpart():
    one = shown(FEATURES, chain("a", "b"))
    found = paired(one, one)
    assert {name: there for name, (there, _) in found.items()} == {
        box.name: box.name for box in one[1].boxes
    }
    assert found["a"] == ("a", 1.0)


def test_groups_of_the_same_features_are_counterparts_whatever_their_names():
    one = shown(FEATURES, chain("a", "b"))
    crossed = {"b": FEATURES["a"], "a": FEATURES["b"]}
    found = paired(one, shown(crossed, chain("b", "a")))
    assert (found["a"], found["b"]) == (("b", 1.0), ("a", 1.0))


def test_groups_of_other_features_are_counterparts_if_they_do_the_same():
    one = shown(FEATURES, chain("a", "b"))
    found = paired(one, shown(OTHERS, chain("x", "y")))
    assert (found["a"], found["b"]) == (("x", 0.0), ("y", 0.0))
    assert not {"a", "b"} & {*paired(one, shown(OTHERS, chain("x", "y", 0.05)))}


def test_names_that_differ_by_the_texts_of_counterparts_are_one():
    one = shown(
        {"from Dallas": "feature:0/1@1"},
        {("token", "from Dallas"): 1.0, ("from Dallas", "answer"): 1.0, ("token", "answer"): 9.0},
    )
    edges = {("token", name): 1.0 for name in ("x", "from Oakland")}
    edges |= {("x", "answer"): 1.0, ("from Oakland", "answer"): 30.0}
    other = shown({"x": "feature:0/8@1", "from Oakland": "feature:0/9@1"}, edges, " Oakland")
    assert paired(one, other)["from Dallas"] == ("from Oakland", 0.0)
    assert paired(one, shown({**OTHERS}, chain("x", "y"), " Oakland")).get("from Dallas") is None
