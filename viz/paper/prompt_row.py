"""The prompt as a row of tokens: all of a short one, of a long one those in use.

Tokens in use are never left out.  While there is room those at which groups stand stay too, then
the first and the last, then those next to tokens in use; stretches that are left out become one
ellipsis.  Lengths are points of 1/72 inch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from viz.paper.curves import Rect
from viz.paper.sheet import LEADING, Measure, Sheet, cut

PAD = 2.6  # between a token's text and its outline
GAP, JOINED = 2.2, 0.6  # before a word, and before a piece of one
_WIDEST_GAP = 2.0  # over the size of the type
_ELLIPSIS = "…"
_NEAREST = 100  # positions beside those in use that are tried


@dataclass(frozen=True)
class RowToken:
    """One token of the row, or an ellipsis."""

    text: str
    positions: tuple[int, ...]  # of the prompt; several of an ellipsis
    rect: Rect


def prompt_row(
    tokens: Sequence[str],
    needed: Collection[int],  # positions in use
    liked: Collection[int],  # positions that are rather shown than others
    room: tuple[float, float],  # left and right end
    sheet: Sheet,
    measure: Measure,
) -> list[RowToken]:
    """The row between two ends, from height 0 upwards, in the middle of its room.

    `tokens` are visible texts; a leading blank begins a word.
    """
    width = room[1] - room[0]
    texts = _texts(tokens, needed, width, sheet, measure)
    parts = _parts(_kept(texts, needed, liked, width, sheet, measure), len(tokens))
    widths = [measure(_text(texts, part), sheet.small) + 2 * PAD for part in parts]
    gaps = [_gap(texts, part) for part in parts[1:]]
    left = max(0.0, width - sum(widths) - sum(gaps))
    words = sum(gap == GAP for gap in gaps)
    wider = min(_WIDEST_GAP * sheet.small - GAP, left / words) if words else 0.0
    gaps = [gap + wider if gap == GAP else gap for gap in gaps]
    x = room[0] + max(0.0, width - sum(widths) - sum(gaps)) / 2
    row: list[RowToken] = []
    for part, size, gap in zip(parts, widths, [*gaps, 0.0], strict=True):
        rect = (x, 0.0, x + size, sheet.small * LEADING + 2 * PAD)
        row.append(RowToken(_text(texts, part), part, rect))
        x += size + gap
    return row


def _texts(
    tokens: Sequence[str], needed: Collection[int], width: float, sheet: Sheet, measure: Measure
) -> list[str]:
    """Texts that are short enough for those in use to fit, with an ellipsis beside each."""
    each = sum(measure(tokens[pos].strip(), sheet.small) for pos in needed if pos < len(tokens))
    ellipses = (len(needed) + 1) * (measure(_ELLIPSIS, sheet.small) + 2 * PAD + GAP)
    longest = width / 3
    if each + len(needed) * (2 * PAD + GAP) + ellipses > width:
        longest = (width - ellipses) / max(1, len(needed)) - 2 * PAD - GAP
    longest = max(longest, measure("mm", sheet.small))
    blank = [" " if token[:1] == " " and token.strip() else "" for token in tokens]
    return [
        sign + cut(token.strip()[:80] or token, longest, sheet.small, measure)
        for sign, token in zip(blank, tokens, strict=True)
    ]


def _kept(
    texts: Sequence[str],
    needed: Collection[int],
    liked: Collection[int],
    width: float,
    sheet: Sheet,
    measure: Measure,
) -> list[int]:
    """Positions that are shown: those needed, and the nearest to them while there is room."""
    kept = {pos for pos in needed if 0 <= pos < len(texts)} or {*range(len(texts))[-1:]}

    def room(positions: set[int]) -> float:
        parts = _parts(sorted(positions), len(texts))
        sizes = (measure(_text(texts, part), sheet.small) + 2 * PAD for part in parts)
        return sum(sizes) + sum(_gap(texts, part) for part in parts[1:])

    if room({*range(len(texts))}) <= width:
        return [*range(len(texts))]
    ends = {0, len(texts) - 1}
    first = {*kept}
    others = (pos for pos in range(len(texts)) if pos not in kept)
    near = sorted(
        others, key=lambda p: (p not in liked, p not in ends, min(abs(p - k) for k in first), p)
    )
    for pos in near[:_NEAREST]:
        if room(kept | {pos}) <= width:
            kept.add(pos)
    return sorted(kept)


def _parts(kept: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """The shown positions, each by itself, and what is left out between them together."""
    parts: list[tuple[int, ...]] = []
    before = -1
    for pos in (*kept, count):
        if pos - before > 1:
            parts.append(tuple(range(before + 1, pos)))
        if pos < count:
            parts.append((pos,))
        before = pos
    return parts


def _text(texts: Sequence[str], part: tuple[int, ...]) -> str:
    return texts[part[0]].strip() or texts[part[0]] if len(part) == 1 else _ELLIPSIS


def _gap(texts: Sequence[str], part: tuple[int, ...]) -> float:
    """Room in front of a part."""
    return JOINED if len(part) == 1 and texts[part[0]][:1] != " " else GAP
