"""Positions of two prompts that stand for each other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.positions import align_characters, align_prompts, align_tokens
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


@pytest.mark.parametrize(
    ("second", "ids", "aligned"),
    [
        # The same entry for the same token: slots.  Another: characters.
        (("<s>", "The", " cat"), (0, 1, 3), [0, 1, 2]),
        (("The", " ", "cat"), (7, 8, 9), [-1, 0, -1]),
        (("The", " d", "og"), (7, 8, 9), [-1, 0, 2]),
    ],
)
def test_prompts_align_by_tokens_where_the_vocabulary_is_one(
    second: tuple[str, ...], ids: tuple[int, ...], aligned: list[int]
):
    header = make_graph(["token:0@0"], {}, tokens=("a",)).provenance
    one = header.model_copy(update={"tokens": ("<s>", "The", " dog"), "token_ids": (0, 1, 2)})
    other = header.model_copy(update={"tokens": second, "token_ids": ids})
    assert align_prompts(one, other).tolist() == aligned
