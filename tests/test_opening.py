"""How prompts and training documents begin, and what is said where they differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

import graphs
from graphs import Bos
from graphs.core.identity import same_dictionary
from graphs.core.opening import DocumentOpening, Opening, PrefixRule, mismatches
from graphs.core.provenance import Sink
from tests.graph_oracles import make_graph
from tests.test_schema_1 import FILES, GRAPHS, header_of
from tests.test_words import EDGES, NAMES
from viz.text.checked import header_lines
from viz.text.openings import opening_text, sink_text
from viz.text.words import heading, letters


def opening(bos: str, rule: str = "ordinary", asked: str = "auto") -> Opening:
    return Opening(asked=Bos(asked), bos=bos, rule=PrefixRule(rule))  # pyright: ignore[reportArgumentType]


BOTH, NEITHER = DocumentOpening(bos=True), DocumentOpening(bos=False)


@pytest.mark.parametrize(
    ("documents", "prompt", "n_prefix", "said"),
    [
        (None, opening("left out"), 0, []),
        (BOTH, None, 1, []),
        (BOTH, opening("added", "special"), 1, []),
        (BOTH, opening("typed", "special"), 1, []),
        (NEITHER, opening("left out"), 0, []),
        (NEITHER, opening("unknown", "special"), 1, []),
        (DocumentOpening(bos=True, n_prefix=1), opening("added", "special"), 1, []),
        (DocumentOpening(bos=True, n_prefix=3), opening("added", "asked"), 3, []),
        (
            BOTH,
            opening("left out"),
            0,
            ["that begin with BOS, the prompt does not: use --bos always"],
        ),
        (
            NEITHER,
            opening("added", "special"),
            1,
            ["without BOS, the prompt begins with it: use --bos never"],
        ),
        (BOTH, opening("added", "asked"), 3, ["the prompt has one of 3 positions: leave out"]),
        (
            DocumentOpening(bos=False, n_prefix=2),
            opening("typed", "special"),
            1,
            [
                "without BOS",
                "with a prefix of 2 positions, the prompt has one of 1: use --prefix 2",
            ],
        ),
    ],
)
def test_a_prompt_that_begins_unlike_the_documents_is_said(
    documents: DocumentOpening | None, prompt: Opening | None, n_prefix: int, said: list[str]
):
    found = mismatches(documents, prompt, n_prefix)
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True))


def with_header(**fields: object) -> graphs.AttributionGraph:
    graph = make_graph(NAMES, EDGES)
    header = graph.provenance.model_dump() | fields
    object.__setattr__(graph, "provenance", graphs.Provenance.model_validate(header))
    return graph


def test_the_header_says_it_and_a_file_keeps_it(tmp_path):
    said = {
        "opening": opening("left out"),
        "sinks": (Sink(pos=0, layer=1, ratio=158.0, influence=0.25),),
        "dictionary": graphs.DictionaryIdentity(kind="transcoder", name="toy", documents=BOTH),
    }
    graph = with_header(**said)
    graphs.write_graph(graph, tmp_path / "graph.safetensors")
    header = graphs.read_graph(tmp_path / "graph.safetensors").provenance
    assert {name: getattr(header, name) for name in said} == said
    (mismatch,) = header.mismatches
    assert "--bos always" in mismatch
    texts = [line.text for line in header_lines(header)]
    assert texts == [
        "no BOS: the tokenizer adds none · prefix: none",
        "attention sink “\u2068<bos>\u2069” at 0: 158 × the median norm, 25.0% of feature "
        "influence",
        mismatch,
    ]
    told = graphs.summarise(graph).as_json()
    assert told["opening"] == {"asked": "auto", "bos": "left out", "rule": "ordinary"}
    assert told["sinks"] == [{"pos": 0, "layer": 1, "ratio": 158.0, "influence": 0.25}]
    assert told["mismatches"] == (mismatch,)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_header_of_before_leaves_it_open(name: str):
    header = graphs.read_graph(FILES / f"{name}.safetensors").provenance
    assert "opening" not in header_of(FILES / f"{name}.safetensors")["provenance"]
    assert (header.opening, header.sinks, header.dictionary.documents) == (None, None, None)
    assert header.mismatches == ()


def test_a_sink_beyond_the_prompt_is_refused():
    graph, sink = make_graph(NAMES, EDGES), Sink(pos=3, layer=0, ratio=200.0, influence=0.1)
    header = graph.provenance.model_copy(update={"sinks": (sink,)})
    with pytest.raises(ValueError, match="a position outside the prompt"):
        replace(graph, provenance=header)


def test_documents_are_no_part_of_what_names_a_dictionary():
    """A graph of a dictionary that says how its documents begin, and one of before it did."""
    one, other = (
        with_header(dictionary=graphs.DictionaryIdentity(kind="t", name="toy", documents=documents))
        for documents in (BOTH, None)
    )
    assert same_dictionary(one, other)


@pytest.mark.parametrize(
    ("prompt", "n_prefix", "said"),
    [
        (
            opening("added", "special"),
            1,
            "BOS added by the tokenizer · prefix: position 0, a",
        ),
        (
            opening("added", "special", "always"),
            1,
            "BOS added, as requested · prefix: position 0",
        ),
        (opening("typed", "chat"), 4, "BOS is in the text · prefix: first 4 positions, "),
        (opening("left out", "ordinary", "never"), 0, "no BOS, as requested · prefix: none"),
        (opening("unknown", "asked"), 2, "no BOS: the tokenizer has none · prefix: first 2"),
        (opening("unknown", "asked"), 0, "tokenizer has none · prefix: none, as given"),
    ],
)
def test_an_opening_is_one_short_line(prompt: Opening, n_prefix: int, said: str):
    line = opening_text(prompt, n_prefix)
    assert said in line
    assert len(line) <= 80
    sink = Sink(pos=0, layer=12, ratio=157.5, influence=0.413)
    assert letters(sink_text(sink, " the")) <= 80


def test_the_heading_keeps_words_that_are_context_only_because_they_were_asked_to_be():
    asked = with_header(context_only=2, opening=opening("typed", "asked"))
    assert heading(asked).startswith("“\u2068<bos> the cat")
    by_rule = with_header(context_only=1, opening=opening("typed", "special"))
    assert heading(by_rule).startswith("“\u2068the cat")
