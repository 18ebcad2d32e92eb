"""Positions: which tokens of two prompts stand for each other.

As many equal tokens as can be in order stand for each other, and of the others as many as can
be, by slot.  Slots are filled from the right, since the last token of a name knows all of it.

    The capital of the state containing Dallas      is
    The capital of the state containing Los Angeles is        Dallas ↔ Angeles

Tokens of one vocabulary are equal if their ids are, since several may be written alike.  Prompts of
two have no tokens in common to go by: they align by the bytes of their text, a token with the one
that ends at the same byte or, if there is none, the one in which it ends.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import accumulate, product, takewhile

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from graphs.core.identity import one_vocabulary, token_keys
from graphs.core.provenance import Provenance

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how a token that ends within a character is written


def align_tokens(
    first: tuple[str, ...] | tuple[int, ...], second: tuple[str, ...] | tuple[int, ...]
) -> Int[ndarray, " pos"]:
    """For each position of the first prompt the one of the second that stands for it, or -1.

    >>> align_tokens(("the", "big", "cat"), ("the", "very", "old", "cat")).tolist()
    [0, 2, 3]
    >>> align_tokens(("a", "b", "c"), ("a", "c")).tolist()
    [0, -1, 1]
    """
    equal = 1 + min(len(first), len(second))  # worth more than all slots together
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
    """The same for two spellings of one text; -1 where a token's last byte has no partner.

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
    """By tokens if one vocabulary cut both prompts (`graphs.core.identity`), else by their text."""
    if one_vocabulary(first, second):
        return align_tokens(*token_keys(first, second))
    return align_characters(first.tokens, second.tokens)


def _bytes(token: str) -> bytes:
    """The bytes of a token's text."""
    parts = _BYTE.split(token)  # texts, with hexadecimal numbers between them
    return b"".join(
        bytes.fromhex(part) if place % 2 else part.encode("utf-8", "surrogatepass")
        for place, part in enumerate(parts)
    )


def _byte_partners(one: bytes, other: bytes) -> Int[ndarray, " byte"]:
    """For each byte of a text the place of its partner in the other text, or -1.

    Characters stand for each other as a whole: many have some of their bytes in common.
    """
    texts = [text.decode("utf-8", "surrogateescape") for text in (one, other)]
    widths = [[len(letter.encode("utf-8", "surrogateescape")) for letter in t] for t in texts]
    starts = [np.cumsum([0, *width]) for width in widths]
    letter = np.repeat(np.arange(len(widths[0])), widths[0])
    there = _letters(*texts)[letter]
    inside = np.arange(len(one)) - starts[0][letter]
    return np.where(there >= 0, starts[1][there] + inside, -1)


def _letters(one: str, other: str) -> Int[ndarray, " letter"]:
    """For each letter of a text the place of its partner in the other text, or -1."""
    partner = np.full(len(one), -1)
    ahead = _agreeing(one, other)
    behind = _agreeing(one[ahead:][::-1], other[ahead:][::-1])
    partner[:ahead] = np.arange(ahead)
    if behind:
        partner[-behind:] = np.arange(len(other) - behind, len(other))
    middle = one[ahead : len(one) - behind], other[ahead : len(other) - behind]
    for block in SequenceMatcher(None, *middle, autojunk=False).get_matching_blocks():
        start = ahead + block.a
        partner[start : start + block.size] = ahead + block.b + np.arange(block.size)
    return partner


def _agreeing(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
