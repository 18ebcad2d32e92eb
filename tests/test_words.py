"""Tokens can be seen, and sentences about nodes hold their numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphs.analysis.strengths import strengths
from graphs.core.provenance import Checks
from graphs.naming.names import Names
from tests.graph_oracles import make_graph
from viz.text.checked import CheckLine, check_lines, checks_line
from viz.text.words import (
    counted,
    heading,
    hover_lines,
    label,
    letters,
    mark,
    percent,
    position_text,
    quoted,
    short,
    visible,
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
}  # influence: token 0.7, strong 0.6, error 0.3, weak 0.1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" Paris", " Paris"),
        ("\n", "⏎"),
        ("a\r\n\tb", "a␍⏎⇥b"),
        ("   ", "␣␣␣"),
        ("", "''"),
        ("\x00\x7f\x80", r"\x00\x7f\x80"),
        ("\ufeff\u202e\u200b", r"\ufeff\u202e\u200b"),
        ("\udc80", r"\udc80"),
        ("\xa0", r"\xa0"),
        ("\u0301a", "◌\u0301a"),
        ("</script>", "</script>"),
        ("שלום", "שלום"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("a\u200db\u200c", r"a\u200db\u200c"),
        ("a\u200dé\u200cb", r"a\u200dé\u200cb"),
    ],
)
def test_every_token_can_be_seen(text: str, shown: str):
    assert visible(text) == shown
    visible(text).encode()


def test_texts_are_shortened_by_their_width_and_keep_their_direction():
    assert short("  abc ", 5) == "\u2068abc\u2069"
    assert short("abcdef", 5) == "\u2068abcd…\u2069"
    assert short("東京東京", 5) == "\u2068東京…\u2069"
    assert letters("a\u0301東") == 2.75
    assert quoted(" x\n") == "“\u2068 x⏎\u2069”"
    assert len(quoted("x" * 1000)) < 50


def test_labels_say_what_each_kind_of_node_is():
    names = ["token:1@1", "position:1", "bias:0", "feature:0/1@1", "feature:0/2@2", "error:0@1"]
    graph = make_graph([*names, "logit:5@2"], {}, [0.25], output_tokens={3: (" up", "b")})
    named = Names(graph)
    assert [label(named, row).translate({0x2068: "", 0x2069: ""}) for row in range(7)] == [
        "“ the”",
        "embedding of position 1",
        "constants at layer 0",
        "say up, b",
        "no label",
        "error of layer 0's dictionary",
        "“t0” 25.0%",
    ]
    for kind, said in (
        ("neurons", "neurons of layer 0 that were not kept"),
        ("transcoder and neurons", "error of layer 0's dictionary or neurons that were not kept"),
    ):
        header = graph.provenance
        dictionary = header.dictionary.model_copy(update={"kind": kind})
        of_neurons = replace(graph, provenance=header.model_copy(update={"dictionary": dictionary}))
        assert label(Names(of_neurons), 5) == said
    assert [mark(named, row) for row in (3, 4, 6)] == [
        "\u2068say up\u2069",
        "",
        "\u2068t0\u2069 25.0%",
    ]
    assert position_text(graph, 2) == ""
    assert position_text(graph, 3) == f"{quoted(' the')} at 1"


def test_each_of_several_targets_has_its_own_text():
    names = ["token:1@0", "logit:9@2", "logit:3@2"]
    graph = make_graph(names, {}, [0.25, 0.5])
    assert [mark(Names(graph), row) for row in (1, 2)] == [
        "\u2068t0\u2069 25.0%",
        "\u2068t1\u2069 50.0%",
    ]
    assert heading(graph).endswith("→ \u2068t1\u2069 50.0%")


def test_hover_tells_the_numbers_of_the_graph():
    graph = make_graph(NAMES, EDGES, output_tokens={1: (" up",)})
    graph.nodes.activation[1] = -12.345
    token, strong, weak, error, logit = hover_lines(graph, strengths(graph), list(range(5)))
    assert token[0] == TOKEN
    assert token[-3:] == [
        "influence 70.0%",
        f"to +100.0% {STRONG} say up",
        f"to +100.0% {WEAK}",
    ]
    assert strong[2:] == [
        f"{quoted('<bos>')} at 0",
        "activation −12.3 · influence 60.0%",
        f"from +100.0% {TOKEN} {quoted('<bos>')}",
        f"to +60.0% {LOGIT} {quoted('t0')}",
    ]
    assert f"to −10.0% {LOGIT} {quoted('t0')}" in weak
    assert "influence 30.0%" in error
    assert logit[-3:] == [
        f"from +60.0% {STRONG} say up",
        f"from +30.0% {ERROR}",
        f"from −10.0% {WEAK}",
    ]
    assert not any("influence" in line for line in logit)


def test_hover_names_no_more_than_three_inputs_and_outputs():
    names = [f"token:{i}@0" for i in range(9)]
    graph = make_graph([*names, LOGIT], {(name, LOGIT): 1.0 + i for i, name in enumerate(names)})
    (lines,) = hover_lines(graph, strengths(graph), [9])
    inputs = [line.split()[2] for line in lines if line.startswith("from")]
    assert inputs == ["token:8@0", "token:7@0", "token:6@0"]


def test_the_heading_is_the_prompt_without_its_opening():
    graph = make_graph(NAMES, EDGES)
    assert heading(graph) == "“\u2068<bos> the cat\u2069” → \u2068t0\u2069 100.0%"
    header = graph.provenance.model_copy(update={"n_prefix": 1})
    object.__setattr__(graph, "provenance", header)
    assert heading(graph).startswith("“\u2068the cat\u2069”")
    long = header.model_copy(update={"prompt": "<bos>" + "many words\n" * 99 + "last"})
    object.__setattr__(graph, "provenance", long)
    assert heading(graph).startswith("“\u2068… ")
    assert "words⏎last\u2069”" in heading(graph)
    assert len(heading(graph)) < 130


def test_checks_are_told_where_they_were_made():
    assert checks_line(Checks()) == "no checks recorded"
    checks = Checks(conservation_max=2.14e-7, conservation_limit=1e-3, influence_resolved=0.931)
    assert checks_line(checks) == (
        "conservation error 2.1e-07 (limit 1e-03) · influence resolved 93.1%"
    )
    assert checks_line(Checks(conservation_max=0.1, error_influence_share=0.0)) == (
        "conservation error 1.0e-01 · error share 0%"
    )


def test_the_recording_has_a_limit_of_its_own():
    checks = Checks(conservation_limit=1e-9, recording_max_difference=2.3e-7, recording_limit=1e-5)
    assert check_lines(checks) == [CheckLine("recording error", "2.3e-07 (limit 1e-05)", True)]
    assert checks_line(checks) == "no checks recorded"


def test_counts_tell_what_is_left_out():
    assert counted(0, 0, "edge") == "0 edges"
    assert counted(3000, 4278, "node") == "the strongest 3,000 of 4,278 nodes"


def test_small_shares_are_not_called_zero():
    assert [percent(share) for share in (0.0, 1e-9, 0.0005, 1.0)] == [
        "0%",
        "<0.1%",
        "0.1%",
        "100.0%",
    ]
