"""An audit in words: pairs of prompts, kinds of pairs, features that recur."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.interventions.carriers import Answer, Audited, Carrier, by_kind, recurring
from viz.text.terminal import plain_table
from viz.text.words import percent, short, visible

SHOWN = 15  # pairs and features in a terminal
PAIR_HEADINGS = (
    "pair",
    "first",
    "says",
    "second",
    "says",
    "explained",
    "difference",
    "carried",
    "by chance",
)
PAIR_NUMBERS = {6, 7, 8}  # columns
KIND_HEADINGS = ("kind", "pairs", "say otherwise", "difference", "carried", "by chance")
FEATURE_HEADINGS = ("feature", "pairs", "moves", "carries", "same way", "most in", "says")
CARRIER_HEADINGS = (
    "feature",
    "first at",
    "second at",
    "activations",
    "influence",
    "in first",
    "in second",
    "says",
)
_PART, _SAYS = 32, 80  # letters of a cell in a terminal


def audit_text(found: Sequence[Audited]) -> RenderableType:
    """What carries the differences, for a terminal."""
    pairs = plain_table(*PAIR_HEADINGS, right=("difference", "carried", "by chance"))
    for one in found[:SHOWN]:
        pairs.add_row(*_texts(pair_cells(one), _PART))
    parts: list[RenderableType] = [Text(audit_title(found), style="bold"), "", pairs]
    if len(found) > SHOWN:
        parts.append(Text(f"and {len(found) - SHOWN:,} more pairs in the page", style="dim"))
    if any(one.pair.kind for one in found):
        kinds = plain_table(*KIND_HEADINGS, right=KIND_HEADINGS[1:])
        for cells in kind_rows(found):
            kinds.add_row(*_texts(cells, _PART))
        parts += ["", kinds]
    features = plain_table(*FEATURE_HEADINGS, right=FEATURE_HEADINGS[1:5])
    for cells in feature_rows(found)[:SHOWN]:
        features.add_row(*_texts(cells, _SAYS))
    return Group(*parts, "", features)


def audit_title(found: Sequence[Audited]) -> str:
    """How many pairs, and how many are answered otherwise."""
    otherwise = sum(one.says_otherwise for one in found)
    word = "pair" if len(found) == 1 else "pairs"
    return f"{len(found):,} {word} of prompts, {otherwise:,} answered otherwise"


def _texts(cells: tuple[str, ...], length: int) -> list[Text]:
    return [Text(_cell(cell, length) if cell else "") for cell in cells]


def _cell(text: str, length: int) -> str:
    """Plain texts stay so that they can be searched for and copied."""
    shown = visible(text)
    return shown if shown.isascii() and len(shown) <= length else short(text, length)


def pair_cells(one: Audited) -> tuple[str, ...]:
    """A pair in a row of a table; here and below texts are as they are, whoever shows them sees
    to what cannot be printed."""
    first, second = differing_parts(one.pair.first, one.pair.second)
    together = one.together
    return (
        one.pair.called,
        first,
        _answer(one.answers[0]),
        second,
        _answer(one.answers[1]),
        one.target.strip(),
        f"{one.difference:+.2f}",
        "" if together is None else f"{together.share:.0%}",
        "" if together is None else f"{together.random_mean:.0%} ± {together.random_sd:.0%}",
    )


def kind_rows(found: Sequence[Audited]) -> list[tuple[str, ...]]:
    """Kinds of pairs."""
    return [
        (
            kind.kind or "without",
            f"{kind.pairs:,}",
            f"{kind.otherwise:,}",
            f"{kind.difference:.2f}",
            "" if kind.together is None else f"{kind.together:.0%}",
            "" if kind.by_chance is None else f"{kind.by_chance:.0%}",
        )
        for kind in by_kind(found)
    ]


def feature_rows(found: Sequence[Audited]) -> list[tuple[str, ...]]:
    """Features that recur."""
    return [
        (
            one.feature,
            f"{one.pairs:,}",
            f"{one.moved:.2f}",
            f"{one.share:+.1%}",
            f"{one.same_way:.0%}",
            one.largest,
            one.says,
        )
        for one in recurring(found)
    ]


def carrier_cells(one: Carrier) -> tuple[str, ...]:
    """A carrier in a row of a table."""
    return (
        one.feature,
        *("" if pos is None else f"{token} at {pos}" for pos, token in _at(one)),
        " | ".join(f"{value:.3g}" for value in one.activations),
        " | ".join(map(percent, one.influence)),
        *("" if share is None else f"{share:+.1%}" for share in one.moved),
        one.says,
    )


def differing_parts(first: str, second: str) -> tuple[str, str]:
    """Two texts without the words with which both begin and end.

    >>> differing_parts("The state of Dallas is", "The state of Los Angeles is")
    ('… Dallas …', '… Los Angeles …')
    >>> differing_parts("is it", "Tell me: is it")
    ('…', 'Tell me: …')
    """
    one, other = first.split(" "), second.split(" ")
    ahead = _agreeing(one, other)
    behind = _agreeing(one[ahead:][::-1], other[ahead:][::-1])
    shown = [
        " ".join(
            [
                *["…"][: bool(ahead)],
                *words[ahead : len(words) - behind],
                *["…"][: bool(behind)],
            ]
        )
        for words in (one, other)
    ]
    return shown[0], shown[1]


def _agreeing(one: list[str], other: list[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _at(one: Carrier) -> list[tuple[int | None, str]]:
    return list(zip(one.positions, one.tokens, strict=True))


def _answer(one: Answer) -> str:
    return f"{one.text.strip() or one.text} {percent(one.probability)}"
