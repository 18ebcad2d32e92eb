"""Text of an audit: tables of prompt pairs, kinds of pairs and recurring features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.comparison.positions import common_ends
from graphs.interventions.mediators import Answer, Audited, Mediator, by_kind, recurring
from viz.text.tables import plain_table
from viz.text.words import percent, short, visible

SHOWN = 15  # pairs and features in a terminal
KIND_HEADINGS = ("kind", "pairs", "predictions differ", "size of difference", "mediated", "null")
FEATURE_HEADINGS = (
    "feature",
    "pairs",
    "size of effect",
    "mediated",
    "same sign",
    "largest in",
    "label",
)
MEDIATOR_HEADINGS = (
    "feature",
    "first at",
    "second at",
    "activations",
    "influence",
    "in first",
    "in second",
    "label",
)
_PART, _LABEL = 32, 80  # characters of a cell in a terminal


def audit_text(found: Sequence[Audited]) -> RenderableType:
    """An audit for a terminal."""
    parts: list[RenderableType] = [Text(audit_title(found), style="bold"), "", _pairs(found)]
    if len(found) > SHOWN:
        parts.append(Text(f"and {len(found) - SHOWN:,} more pairs on the page", style="dim"))
    if any(one.pair.kind for one in found):
        kinds = plain_table(*KIND_HEADINGS, right=KIND_HEADINGS[1:], texts=("kind",))
        for cells in kind_rows(found):
            kinds.add_row(*_texts(cells, _PART))
        parts += ["", kinds]
    features = plain_table(
        *FEATURE_HEADINGS, right=FEATURE_HEADINGS[1:5], texts=("largest in", "label")
    )
    for cells in feature_rows(found)[:SHOWN]:
        features.add_row(*_texts(cells, _LABEL))
    return Group(*parts, "", features)


def _pairs(found: Sequence[Audited]) -> RenderableType:
    """Two lines for each pair, one below the other what differs."""
    targets = {one.target.strip() for one in found}
    table = plain_table(
        *("pair", "prompt", "predicts", "difference", "mediated", "null"),
        right=("difference", "mediated", "null"),
        texts=("prompt", "predicts"),
    )
    for one in found[:SHOWN]:
        name, first, here, second, there, target, *numbers = pair_cells(one)
        table.add_row(*_texts((name, first, here, *numbers), _PART))
        below = "" if len(targets) == 1 else target
        table.add_row(Text(""), *_texts((second, there, below), _PART))
    if len(targets) == 1:
        return Group(Text(f"explained: {_cell(targets.pop(), _PART)}"), "", table)
    return table


def audit_title(found: Sequence[Audited]) -> str:
    """Number of pairs, and of those with different predictions."""
    differ = sum(one.answers_differ for one in found)
    word = "pair" if len(found) == 1 else "pairs"
    return f"{len(found):,} {word} of prompts, {differ:,} with different predictions"


def _texts(cells: tuple[str, ...], length: int) -> list[Text]:
    return [Text(_cell(cell, length) if cell else "") for cell in cells]


def _cell(text: str, length: int) -> str:
    """Short ASCII text stays as it is, so that it can be searched for and copied."""
    shown = visible(text)
    return shown if shown.isascii() and len(shown) <= length else short(text, length)


def pair_cells(one: Audited) -> tuple[str, ...]:
    """Row of a pair; here and below text is raw, and callers make it printable."""
    first, second = differing_parts(one.pair.first, one.pair.second)
    together = one.together
    return (
        one.pair.identifier,
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
    """Rows of the kinds of pairs."""
    return [
        (
            kind.kind or "without",
            f"{kind.pairs:,}",
            f"{kind.answers_differ:,}",
            f"{kind.difference:.2f}",
            "" if kind.together is None else f"{kind.together:.0%}",
            "" if kind.null is None else f"{kind.null:.0%}",
        )
        for kind in by_kind(found)
    ]


def pair_text(one: Audited) -> str:
    """A pair by what its texts have not in common."""
    return " | ".join(differing_parts(one.pair.first, one.pair.second))


def feature_rows(
    found: Sequence[Audited], named: Mapping[str, str] | None = None
) -> list[tuple[str, ...]]:
    """Rows of the recurring features; `named` has other names of pairs by their identifiers."""
    names = named or {}
    return [
        (
            one.feature,
            f"{one.pairs:,}",
            f"{one.moved:.2f}",
            f"{one.share:+.1%}",
            f"{one.same_sign:.0%}",
            names.get(one.largest, one.largest),
            one.label,
        )
        for one in recurring(found)
    ]


def mediator_cells(one: Mediator) -> tuple[str, ...]:
    """Row of a mediating feature."""
    return (
        one.feature,
        *("" if pos is None else f"{token} at {pos}" for pos, token in _at(one)),
        " | ".join(f"{value:.3g}" for value in one.activations),
        " | ".join(map(percent, one.influence)),
        *("" if share is None else f"{share:+.1%}" for share in one.moved),
        one.label,
    )


def differing_parts(first: str, second: str) -> tuple[str, str]:
    """Two texts without their common first and last words.

    >>> differing_parts("The state of Dallas is", "The state of Los Angeles is")
    ('… Dallas …', '… Los Angeles …')
    >>> differing_parts("is it", "Tell me: is it")
    ('…', 'Tell me: …')
    """
    one, other = first.split(" "), second.split(" ")
    prefix, suffix = common_ends(one, other)
    shown = [
        " ".join(
            [
                *["…"][: bool(prefix)],
                *words[prefix : len(words) - suffix],
                *["…"][: bool(suffix)],
            ]
        )
        for words in (one, other)
    ]
    return shown[0], shown[1]


def _at(one: Mediator) -> list[tuple[int | None, str]]:
    return list(zip(one.positions, one.tokens, strict=True))


def _answer(one: Answer) -> str:
    return f"{one.text.strip() or one.text} {percent(one.probability)}"
