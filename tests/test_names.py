"""Names of nodes and groups: what tells them apart, in words that can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

import graphs
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import Description
from graphs.naming.evidence import Evidence, agreement, evidence
from graphs.naming.group_names import group_names
from graphs.naming.names import Names, description_label, feature_label
from graphs.naming.wording import LATIN, alike, main_script, marked
from tests.graph_oracles import make_graph

FULL = 1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5 + 1 / 6 + 1 / 7 + 1 / 8  # weights of a full list
TOKENS = ("<bos>", " The", " capital", " Dallas", " is")


def described(where: str, own: tuple[str, ...], promoted: tuple[str, ...] = ()) -> Description:
    """A description as `circuits.training.finished.describe` writes it."""
    label = f"{where} → {', '.join(token.strip() for token in own[:2])}"
    return Description(label=label, promoted_at_own_layer=own, promoted=promoted)


def graph_of(
    descriptions: Mapping[str, Description], straight: float = 1.0, **said: tuple[str, ...]
) -> AttributionGraph:
    """Features at positions 2 and 4 that feed one in the last layer and the answer."""
    names = ["token:2@2", "token:3@3", "feature:0/0@2", "feature:0/1@2", "feature:0/2@4"]
    names += ["feature:1/3@4", "feature:2/9@4", "logit:7@4"]
    edges = {
        ("token:2@2", "feature:0/0@2"): 1.0,
        ("token:2@2", "feature:0/1@2"): 1.0,
        ("token:3@3", "feature:0/2@4"): 1.0,
        ("token:3@3", "feature:1/3@4"): 1.0,
        ("feature:2/9@4", "logit:7@4"): 1.0,
    }
    for name in names[2:6]:
        edges[name, "logit:7@4"] = straight
        edges[name, "feature:2/9@4"] = 1.0
    places = {name.partition("@")[0]: row for row, name in enumerate(names)}
    tokens = {places[f"feature:{key[1:].replace('_', '/')}"]: t for key, t in said.items()}
    graph = make_graph(names, edges, tokens=TOKENS, output_tokens=tokens)
    return replace(graph, descriptions=descriptions)


def label(graph: AttributionGraph, name: str) -> str:
    return Names(graph).label(graph.find(name))


def test_a_feature_says_what_its_lists_agree_on():
    texas = described("is · Austin, Alamo", (" Texas", " Ohio"), (" cats", " Texas"))
    graph = graph_of({"0/2": texas})
    assert label(graph, "feature:0/2@4") == "say Texas · about Austin, Alamo"
    assert Names(graph).short(graph.find("feature:0/2@4")) == "say Texas"


def test_without_agreement_a_feature_is_named_by_where_it_fires():
    apart = described("is, <eos> · Austin, Alamo", (" isla", " riyal"), (" cats", " left"))
    assert label(graph_of({"0/2": apart}), "feature:0/2@4") == "about Austin, Alamo"
    bare = described("is, country, whose", (" isla", " riyal"), (" cats", " left"))
    assert label(graph_of({"0/2": bare}), "feature:0/2@4") == "on country, whose"


def test_the_token_at_its_own_position_is_no_part_of_a_label():
    same = described("capital", (" isla", " riyal"), (" cats", " left"))
    assert "capital" not in label(graph_of({"0/0": same}), "feature:0/0@2")
    assert "capital" in label(graph_of({"0/2": same}), "feature:0/2@4")


def test_what_most_features_of_a_position_fire_on_tells_nothing_apart():
    first, second = (
        described("capital · Sacramento, " + other, (" isla", " riyal"), (" cats", " left"))
        for other in ("Reno", "Boise")
    )
    graph = graph_of({"0/0": first, "0/1": second})
    assert label(graph, "feature:0/0@2") == "about Reno"
    elsewhere = graph_of({"0/0": first, "0/2": second})
    assert label(elsewhere, "feature:0/2@4") == "about Sacramento, Boise"


def test_a_label_that_somebody_wrote_is_kept_and_a_persons_comes_first():
    graph = graph_of({"0/2": Description(label="cities of the south")})
    assert label(graph, "feature:0/2@4") == "cities of the south"
    mine = graphs.Annotations(labels={"0/2": "mine"})
    assert Names(graph, mine).label(graph.find("feature:0/2@4")) == "mine"


def test_neurons_are_named_by_words_before_pieces_and_marks():
    said = (" City", "<tfoot>", "<0xE2>", "uminate", " downtown", " cities")
    assert label(graph_of({}, f1_3=said), "feature:1/3@4") == "say cities"
    apart = ("<tfoot>", "<0xE2>", "uminate", " downtown", " City")
    assert label(graph_of({}, f1_3=apart), "feature:1/3@4") == "say downtown, City"
    marks = graph_of({}, f1_3=("<tfoot>", "<0xE2>", " 12"))
    assert label(marks, "feature:1/3@4") == "say 12"
    alone = graph_of({}, f1_3=("<tfoot>", "<0xE2>"))
    assert label(alone, "feature:1/3@4") == "say control <tfoot>, byte <0xE2>"
    assert label(graph_of({}), "feature:1/3@4") == ""


def test_words_that_many_features_promote_count_for_less():
    words = {"f0_0": "plane", "f0_1": "bottle", "f0_2": "church", "f1_3": "window", "f2_9": "sun"}
    graph = graph_of({}, 1.0, **{key: (" glitch", f" {word}") for key, word in words.items()})
    found = Names(graph).agreement(graph.find("feature:0/0@2"))
    assert found["glitch"] == pytest.approx(0.7 / FULL * 4 / 5)  # four may, five do
    assert found["plane"] == pytest.approx(0.7 / 2 / FULL)


def test_a_target_that_many_features_promote_counts_whole():
    words = {"f0_0": "plane", "f0_1": "bottle", "f0_2": "church", "f1_3": "window", "f2_9": "sun"}
    graph = graph_of({}, 1.0, **{key: (" Austin", f" {word}") for key, word in words.items()})
    (target,) = graph.provenance.targets
    austin = {"targets": (target.model_copy(update={"text": " Austin"}),)}
    asked = replace(graph, provenance=graph.provenance.model_copy(update=austin))
    row = graph.find("feature:0/0@2")
    assert Names(asked).agreement(row)["Austin"] == pytest.approx(0.7 / FULL)
    assert Names(graph).agreement(row)["Austin"] == pytest.approx(0.7 / FULL * 4 / 5)


def test_agreement_by_hand():
    """Weights of ranks are 1, 1/2, …; parts .7 and .4, and .1 for a word of the texts."""
    known = Evidence(own=(" Texas", " Ohio"), promoted=(" a1", " Texas", " b2"), texts=(" Alamo",))
    found = agreement(known, LATIN)
    assert found["Texas"] == pytest.approx((0.7 + 0.4 / 2) / FULL)
    assert found["Alamo"] == pytest.approx(0.1)
    assert "a1" in found  # a sign, at a fifth of its votes
    assert found["a1"] == pytest.approx(0.2 * 0.4 / FULL)


def test_evidence_is_read_out_of_labels_of_dictionaries_trained_here_only():
    ours = described("is, <eos> · Austin, Alamo", (" Texas", " Ohio"))
    assert evidence(ours, ()).fires == (" is", " <eos>")
    assert evidence(ours, ()).texts == (" Austin", " Alamo")
    theirs = Description(label="from Austin → to Texas", promoted_at_own_layer=(" Ohio",))
    assert evidence(theirs, ()).prose == "from Austin → to Texas"
    assert description_label(ours) == "about Austin, Alamo"


def test_a_feature_without_a_position_is_called_as_where_it_matters_most():
    where = described("is, capital", (" isla", " riyal"), (" cats", " left"))
    names = ["feature:0/0@2", "feature:0/0@4", "feature:0/1@2", "feature:0/1@4", "logit:7@4"]
    edges = {(name, "logit:7@4"): float(weight) for weight, name in enumerate(names[:4], 1)}
    graph = replace(make_graph(names, edges, tokens=TOKENS), descriptions={"0/0": where})
    mine = graphs.Annotations(labels={"0/0": "mine"})
    assert feature_label(Names(graph), "0/0") == "on capital"  # at “ is”
    assert feature_label(Names(graph), "0/0@4") == "on capital"
    assert feature_label(Names(graph), "0/0@2") == "on is"
    assert feature_label(Names(graph), "0/0@9") == "on capital"
    assert feature_label(Names(graph, mine), "0/0") == "mine"
    elsewhere = replace(graph, descriptions={"1/1": where})
    assert feature_label(Names(elsewhere), "1/1@2") == "on capital, is"


def test_scripts_and_forms():
    assert main_script("Столица 7 Texas — это") == "CYRILLIC"
    assert alike("plane", "Planes")
    assert not alike("plan", "plot")
    assert marked("\x00") == "control '\\x00'"


def rows(graph: AttributionGraph, *names: str) -> np.ndarray:
    return np.array([graph.find(name) for name in names])


def test_a_group_is_named_by_what_its_members_agree_on():
    texas = described("is · Austin, Alamo", (" Texas", " Ohio"), (" cats", " Texas"))
    other = described("is · Austin", (" isla", " riyal"), (" dogs", " left"))
    graph = graph_of({"0/2": texas, "1/3": other})
    assert group_names(Names(graph), [rows(graph, "feature:0/2@4", "feature:1/3@4")]) == ["Texas"]


@pytest.mark.parametrize(("straight", "name"), [(4.0, "say a capital"), (0.1, "on capital")])
def test_a_group_of_a_tokens_features_says_it_if_it_acts_on_the_answer(straight: float, name: str):
    fires = described("capital", (" isla", " riyal"), (" cats", " left"))
    graph = graph_of({"0/0": fires, "0/1": fires}, straight)
    assert group_names(Names(graph), [rows(graph, "feature:0/0@2", "feature:0/1@2")]) == [name]


def test_a_group_that_agrees_on_nothing_is_named_by_where_it_comes_from():
    graph = graph_of({}, f0_2=(" isla", " riyal"), f1_3=(" cats", " left"))
    groups = [rows(graph, "feature:1/3@4"), rows(graph, "feature:0/2@4")]
    assert group_names(Names(graph), groups) == ["from Dallas, late", "from Dallas, early"]


def test_what_the_page_says_already_comes_after_what_it_does_not():
    about = described("is · Austin", (" Dallas", " Texas"), (" Texas", " Dallas"))
    graph = graph_of({"0/2": about})
    assert group_names(Names(graph), [rows(graph, "feature:0/2@4")]) == ["Texas"]


def test_no_two_groups_have_one_name():
    texas = described("is · Austin", (" Texas", " Ohio"), (" Texas", " cats"))
    graph = graph_of({"0/2": texas, "1/3": texas, "0/0": texas, "0/1": texas})
    names = ("feature:0/2@4", "feature:1/3@4", "feature:0/0@2", "feature:0/1@2")
    found = group_names(Names(graph), [rows(graph, name) for name in names])
    assert len(set(found)) == 4
    assert found[0].startswith("Texas")
