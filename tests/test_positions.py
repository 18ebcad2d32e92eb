"""Positions of two prompts that stand for each other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.comparison.positions import align_characters, align_prompts, align_tokens
from graphs.core.provenance import Provenance
from tests.graph_oracles import make_graph

PROMPT = ("<bos>", "The", " capital", " of", " the", " state", " containing", " Dallas", " is")


def test_a_contrast_prompt_aligns_by_slot():
    other = (*PROMPT[:7], " Oakland", " is")
    assert align_tokens(PROMPT, other).tolist() == list(range(9))
    longer = (*PROMPT[:7], " Los", " Angeles", " is")
    assert align_tokens(PROMPT, longer).tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert align_tokens(longer, PROMPT).tolist() == [0, 1, 2, 3, 4, 5, 6, -1, 7, 8]


def test_what_only_one_prompt_has_stands_for_nothing():
    assert align_tokens(("a", "b", "b", "c"), ("a", "c")).tolist() == [0, -1, -1, 1]
    assert align_tokens((), ("a",)).tolist() == []
    assert align_tokens(("x", "y"), ()).tolist() == [-1, -1]


words = st.lists(st.sampled_from("abc"), max_size=8).map(tuple)


@given(words, words)
def test_positions_rise_and_are_used_once(first: tuple[str, ...], second: tuple[str, ...]):
    aligned = [pos for pos in align_tokens(first, second).tolist() if pos >= 0]
    assert aligned == sorted(set(aligned))
    back = align_tokens(second, first).tolist()
    assert len([pos for pos in back if pos >= 0]) == len(aligned)
    assert align_tokens(first, first).tolist() == list(range(len(first)))


@pytest.mark.parametrize(
    ("first", "second", "aligned"),
    [
        (("The", " Eif", "fel", " Tower"), ("The", " Eiffel", " Tow", "er"), [0, 1, 1, 3]),
        (("ab", "c"), ("abc",), [0, 0]),
        (("abc",), ("ab", "c"), [1]),
        (("ab", "x"), ("ab", "y"), [0, -1]),
        (("ab", "cd"), ("ab",), [0, -1]),
        (("", "a"), ("a",), [-1, 0]),
        ((), ("a",), []),
    ],
)
def test_spellings_of_one_text_align_by_characters(
    first: tuple[str, ...], second: tuple[str, ...], aligned: list[int]
):
    assert align_characters(first, second).tolist() == aligned


@given(st.text("ab c", max_size=30), st.data())
def test_two_ways_to_cut_a_text_meet_at_their_ends(text: str, data: st.DataObject):
    cuts = st.lists(st.integers(0, len(text)), max_size=6).map(sorted)
    first, second = (
        tuple(text[a:b] for a, b in pairwise([0, *data.draw(cuts), len(text)])) for _ in range(2)
    )
    ends = np.cumsum([len(token) for token in second])
    for token, end, pos in zip(
        first,
        np.cumsum([len(token) for token in first]),
        align_characters(first, second),
        strict=True,
    ):
        if token:
            assert ends[pos] - len(second[pos]) < end <= ends[pos]
        else:
            assert pos == -1


def header(
    tokens: tuple[str, ...], ids: tuple[int, ...], model: str = "m", vocabulary: str | None = None
) -> Provenance:
    told = make_graph(["token:0@0"], {}, tokens=("a",)).provenance
    named = told.model.model_copy(update={"name": model, "vocabulary": vocabulary})
    return told.model_copy(update={"tokens": tokens, "token_ids": ids, "model": named})


@pytest.mark.parametrize(
    ("second", "ids", "aligned"),
    [
        # The same entry for the same token: slots.  Another: characters.
        (("<s>", "The", " cat"), (0, 1, 3), [0, 1, 2]),
        (("The", " ", "cat"), (7, 8, 9), [-1, 0, -1]),
        (("The", " d", "og"), (7, 8, 9), [-1, 0, 2]),
    ],
)
def test_headers_that_name_no_vocabulary_align_by_what_their_prompts_tell(
    second: tuple[str, ...], ids: tuple[int, ...], aligned: list[int]
):
    one, other = header(("<s>", "The", " dog"), (0, 1, 2)), header(second, ids, "another")
    assert align_prompts(one, other).tolist() == aligned


FRANCE = ("The", " �", "�", "�", "�", " is"), (504, 15107, 225, 121, 10813, 314)
JAPAN = ("The", " �", "�", "�", "�", " is"), (504, 15107, 225, 124, 10813, 314)


def test_tokens_that_are_written_alike_are_told_apart_by_their_ids():
    # Pieces of a flag: the spellings say nothing, and a text under two ids is no evidence.
    assert align_prompts(header(*FRANCE), header(*JAPAN)).tolist() == [0, 1, 2, 3, 4, 5]
    assert align_prompts(header(*FRANCE), header(*JAPAN, "base")).tolist() == [0, 1, 2, 3, 4, 5]
    shorter = (FRANCE[0][:3] + FRANCE[0][4:], FRANCE[1][:3] + FRANCE[1][4:])
    assert align_prompts(header(*FRANCE), header(*shorter)).tolist() == [0, 1, 2, -1, 3, 4]


def test_one_vocabulary_needs_no_token_in_common():
    one = header(("Paris", " lies"), (7, 8), "chat", "digest")
    other = header(("Tokyo", " grew"), (9, 10), "base", "digest")
    assert align_prompts(one, other).tolist() == [0, 1]
    elsewhere = header(("Tokyo", " grew"), (9, 10), "base", "another digest")
    assert align_prompts(one, elsewhere).tolist() == [-1, -1]
    # What headers say wins over what a coincidence would: here the same texts under the same ids.
    same = header(("Paris", " lies", "!"), (7, 8, 1), "base", "another digest")
    assert align_prompts(same, one).tolist() == [0, 1, -1]
    assert align_prompts(header(("Par", "is lies"), (7, 8), "b", "2"), one).tolist() == [0, 1]


def test_a_graph_that_lacks_ids_aligns_by_its_texts():
    assert align_prompts(
        header(("<s>", "The", " cat"), (-1, 1, -1)),
        header(("<s>", "A", " big", " cat"), (0, 1, 2, 3)),
    ).tolist() == [0, 2, 3]


def test_pieces_of_characters_align_with_whole_ones():
    pieces = ("<0xE6><0x9D>", "<0xB1>", "<0xE4><0xBA>", "<0xAC>")  # 東京
    assert align_characters(pieces, ("東", "京")).tolist() == [0, 0, 1, 1]
    assert align_characters(("東", "京"), pieces).tolist() == [1, 3]
    assert align_characters(("東京",), pieces).tolist() == [3]
    # 本 begins with the byte with which 東 begins, and is another character.
    assert align_characters(("<0xE6>", "<0x9D><0xB1>"), ("<0xE6>", "<0x9C><0xAC>")).tolist() == [
        -1,
        -1,
    ]
