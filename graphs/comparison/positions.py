"""Alignment of the positions of two prompts.

As many equal tokens as possible are aligned in order, then as many of the others as possible
between them.  Those are aligned from the right, since the last token of a name sees all of it.

    The capital of the state containing Dallas      is
    The capital of the state containing Los Angeles is        Dallas ↔ Angeles

Tokens of one vocabulary are equal if their ids are, since different tokens may have the same text.
Prompts of two vocabularies are aligned by the bytes of their text: a token with the one that ends
at the same byte or, if there is none, the one that contains its last byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import accumulate, product, takewhile

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from graphs.core.identity import same_vocabulary, token_keys
from graphs.core.provenance import Provenance

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # text of a token that ends within a character


def align_tokens(
    first: tuple[str, ...] | tuple[int, ...], second: tuple[str, ...] | tuple[int, ...]
) -> Int[ndarray, " pos"]:
    """Aligned position in the second prompt for each position of the first, or -1.

    >>> align_tokens(("the", "big", "cat"), ("the", "very", "old", "cat")).tolist()
    [0, 2, 3]
    >>> align_tokens(("a", "b", "c"), ("a", "c")).tolist()
    [0, -1, 1]
    """
    equal = 1 + min(len(first), len(second))  # more than all pairs of unequal tokens together
    best = np.zeros((len(first) + 1, len(second) + 1), dtype=np.int64)
    for one, other in product(range(len(first)), range(len(second))):
        paired = best[one, other] + (equal if first[one] == second[other] else 1)
        best[one + 1, other + 1] = max(paired, best[one, other + 1], best[one + 1, other])
    aligned = np.full(len(first), -1)
    one, other = len(first), len(second)
    while one and other:
        paired = best[one - 1, other - 1] + (equal if first[one - 1] == second[other - 1] else 1)
        if best[one, other] == paired:
            one, other = one - 1, other - 1
            aligned[one] = other
        elif best[one, other] == best[one - 1, other]:
            one -= 1
        else:
            other -= 1
    return aligned


def align_characters(first: tuple[str, ...], second: tuple[str, ...]) -> Int[ndarray, " pos"]:
    """Alignment of two tokenizations of a text; -1 if a token's last byte has no partner.

    >>> align_characters(("The", " Eif", "fel"), ("<s>", "The", " Eiffel", " Tower")).tolist()
    [1, 2, 2]
    >>> align_characters(("<0xF0><0x9F>", "<0x87><0xAB>", "!"), ("🇫", "!")).tolist()
    [0, 0, 1]
    """
    ones, others = [list(map(_bytes, tokens)) for tokens in (first, second)]
    partner = _byte_partners(b"".join(ones), b"".join(others))
    ends = np.array(list(accumulate(map(len, others))), dtype=np.int64)
    aligned = np.full(len(first), -1)
    for pos, end in enumerate(accumulate(map(len, ones))):
        if first[pos] and partner[end - 1] >= 0:
            aligned[pos] = np.searchsorted(ends, partner[end - 1], side="right")
    return aligned


def align_prompts(first: Provenance, second: Provenance) -> Int[ndarray, " pos"]:
    """Alignment by tokens if both have one vocabulary (`graphs.core.identity`), else by text."""
    if same_vocabulary(first, second):
        return align_tokens(*token_keys(first, second))
    return align_characters(first.tokens, second.tokens)


def shared_columns(
    positions: Int[ndarray, " pos"], n_second: int
) -> tuple[Int[ndarray, " pos"], Int[ndarray, " other"]]:
    """Columns of the tokens of both prompts, the same for aligned tokens.

    >>> first, second = shared_columns(np.array([0, -1, 2]), 3)
    >>> first.tolist(), second.tolist()
    ([0, 1, 3], [0, 2, 3])
    """
    first = np.full(len(positions), -1)
    second = np.full(n_second, -1)
    column = 0
    done = 0  # tokens of the second prompt that have a column
    for pos, there in enumerate(positions.tolist()):
        if there >= done:
            second[done:there] = np.arange(column, column + there - done)
            column += there - done
            second[there], done = column, there + 1
        first[pos] = column
        column += 1
    second[done:] = np.arange(column, column + n_second - done)
    return first, second


def _bytes(token: str) -> bytes:
    """The bytes of a token's text."""
    parts = _BYTE.split(token)  # text and hexadecimal numbers, alternating
    return b"".join(
        bytes.fromhex(part) if place % 2 else part.encode("utf-8", "surrogatepass")
        for place, part in enumerate(parts)
    )


def _byte_partners(one: bytes, other: bytes) -> Int[ndarray, " byte"]:
    """Place of the partner of each byte in the other text, or -1.

    Only whole characters are aligned: different ones may have some bytes in common.
    """
    texts = [text.decode("utf-8", "surrogateescape") for text in (one, other)]
    widths = [[len(letter.encode("utf-8", "surrogateescape")) for letter in t] for t in texts]
    starts = [np.cumsum([0, *width]) for width in widths]
    letter = np.repeat(np.arange(len(widths[0])), widths[0])
    there = _letters(*texts)[letter]
    inside = np.arange(len(one)) - starts[0][letter]
    return np.where(there >= 0, starts[1][there] + inside, -1)


def _letters(one: str, other: str) -> Int[ndarray, " letter"]:
    """Place of the partner of each character in the other text, or -1."""
    partner = np.full(len(one), -1)
    prefix, suffix = common_ends(one, other)
    partner[:prefix] = np.arange(prefix)
    if suffix:
        partner[-suffix:] = np.arange(len(other) - suffix, len(other))
    middle = one[prefix : len(one) - suffix], other[prefix : len(other) - suffix]
    for block in SequenceMatcher(None, *middle, autojunk=False).get_matching_blocks():
        start = prefix + block.a
        partner[start : start + block.size] = prefix + block.b + np.arange(block.size)
    return partner


def common_ends(one: Sequence[str], other: Sequence[str]) -> tuple[int, int]:
    """Lengths of the common prefix of two sequences and of the common suffix behind it.

    >>> common_ends("the cat sat", "the dog sat")
    (4, 4)
    """
    prefix = _common_prefix(one, other)
    return prefix, _common_prefix(one[prefix:][::-1], other[prefix:][::-1])


def _common_prefix(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
