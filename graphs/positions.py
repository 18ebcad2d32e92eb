"""Positions: which tokens of two prompts stand for each other.

As many equal tokens as can be in order stand for each other, and of the others as many as can
be, by slot.  Slots are filled from the right, since the last token of a name knows all of it.

    The capital of the state containing Dallas      is
    The capital of the state containing Los Angeles is        Dallas ↔ Angeles

Prompts of two tokenizers have no tokens in common to go by: they align by characters, a token with
the one that ends at the same character or, if there is none, the one in which it ends.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import accumulate, product, takewhile

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from graphs.provenance import Provenance


def align_tokens(first: tuple[str, ...], second: tuple[str, ...]) -> Int[ndarray, " pos"]:
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
    """The same for two spellings of one text; -1 where a token's last character has no partner.

    >>> align_characters(("The", " Eif", "fel"), ("<s>", "The", " Eiffel", " Tower")).tolist()
    [1, 2, 2]
    """
    partner = _letters("".join(first), "".join(second))
    ends = np.array(list(accumulate(map(len, second))), dtype=np.int64)
    aligned = np.full(len(first), -1)
    for pos, end in enumerate(accumulate(map(len, first))):
        if first[pos] and partner[end - 1] >= 0:
            aligned[pos] = np.searchsorted(ends, partner[end - 1], side="right")
    return aligned


def align_prompts(first: Provenance, second: Provenance) -> Int[ndarray, " pos"]:
    """By tokens if one vocabulary cut both prompts, else by characters.

    It is one vocabulary if tokens that both prompts have are the same entries of it.
    """
    entries = dict(zip(second.tokens, second.token_ids, strict=True))
    known = zip(first.tokens, first.token_ids, strict=True)
    same = [entries[token] == entry for token, entry in known if token in entries]
    by_tokens = bool(same) and all(same)
    return (align_tokens if by_tokens else align_characters)(first.tokens, second.tokens)


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
