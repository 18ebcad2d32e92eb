"""Counterparts: which boxes of two overviews stand for the same part of the computation.

Tokens are counterparts if their positions are aligned.  Groups, and targets, are, in this order:

if they have the same nodes: they are paired as concepts are (`graphs.comparison.concepts`), and a
pair counts if the influence at matched nodes that are in both is a quarter of that of the two;

if they have one name, where the texts of counterparts count as one: "say Austin", "say Sacramento";

if they do the same, although with other features, as "Texas" and "California" do:

    alike(a, b) = Σ min(p, q) / Σ max(p, q)

over the influence that they have at each aligned position, and over what flows into and out of
them, from and to boxes that are counterparts already, all as shares of all influence.  The most
alike come first, and each pair tells more about the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.influence import influence_shares
from graphs.comparison.concepts import paired_groups
from graphs.comparison.matching import Match
from graphs.core.graph import AttributionGraph
from graphs.groups.overview import BoxKind, Overview

SAME = 0.25  # of the influence of two boxes: share at nodes of both, from which they are the same
ALIKE = 0.3  # from which two boxes do the same


@dataclass(frozen=True)
class Counterpart:
    """A box of each of two overviews, by their numbers."""

    first: int
    second: int
    shared: float  # of the influence of the two, the share at nodes of both


def counterparts(
    graphs: tuple[AttributionGraph, AttributionGraph],
    overviews: tuple[Overview, Overview],
    match: Match,
    columns: tuple[Int[ndarray, " pos"], Int[ndarray, " other"]],  # of tokens, aligned ones alike
) -> list[Counterpart]:
    """All pairs of boxes, each box in one at most, those with the same nodes first."""
    arrived = (influence_shares(graphs[0]), influence_shares(graphs[1]))
    same = [
        one
        for kind in (BoxKind.TARGET, BoxKind.GROUP)
        for one in _same_nodes(kind, overviews, match, arrived)
    ]
    places = (
        _places(graphs[0], overviews[0], columns[0], arrived[0]),
        _places(graphs[1], overviews[1], columns[1], arrived[1]),
    )
    found = [Counterpart(0, 0, 0.0), *_tokens(overviews, places)]
    found += sorted(same, key=lambda one: -one.shared)
    found += _same_names(overviews, found)
    while added := _most_alike(overviews, places, found):
        found.append(added)
    return found


def _tokens(
    overviews: tuple[Overview, Overview],
    places: tuple[list[dict[int, float]], list[dict[int, float]]],
) -> Iterator[Counterpart]:
    first, second = (
        {tuple(at[number]): number for number in shown.of_kind(BoxKind.TOKEN)}
        for shown, at in zip(overviews, places, strict=True)
    )
    for column, number in first.items():
        if column in second:
            yield Counterpart(number, second[column], 1.0)


def _same_nodes(
    kind: BoxKind,
    overviews: tuple[Overview, Overview],
    match: Match,
    arrived: tuple[Float[ndarray, " node"], Float[ndarray, " other"]],
) -> Iterator[Counterpart]:
    numbers = [shown.of_kind(kind) for shown in overviews]
    one, other = (
        {str(n): shown.boxes[n].rows for n in own}
        for shown, own in zip(overviews, numbers, strict=True)
    )
    for i, j, influence in paired_groups(arrived, match, (one, other)):
        first, second = numbers[0][i], numbers[1][j]
        both = arrived[0][one[str(first)]].sum() + arrived[1][other[str(second)]].sum()
        shared = min(1.0, 2 * influence / float(both))
        if shared >= SAME:
            yield Counterpart(first, second, shared)


def _same_names(
    overviews: tuple[Overview, Overview], known: list[Counterpart]
) -> Iterator[Counterpart]:
    first, second = overviews
    texts = {
        first.boxes[one.first].name.strip(): second.boxes[one.second].name.strip()
        for one in known
        if first.boxes[one.first].kind in (BoxKind.TOKEN, BoxKind.TARGET)
    }
    used = ({one.first for one in known}, {one.second for one in known})
    left = [n for n in second.of_kind(BoxKind.GROUP) if n not in used[1]]
    for number in first.of_kind(BoxKind.GROUP):
        name, comma, rest = first.boxes[number].name.partition(", ")
        words = {
            name,
            *(f"{name[: -len(own)]}{there}" for own, there in texts.items() if _ends(name, own)),
        }
        there = [n for n in left if second.boxes[n].name.partition(", ")[0] in words]
        if number not in used[0] and there:
            exact = [n for n in there if second.boxes[n].name.endswith(f"{comma}{rest}")]
            left.remove((exact or there)[0])
            yield Counterpart(number, (exact or there)[0], 0.0)


def _ends(name: str, text: str) -> bool:
    """Whether a name ends with a text as a word of its own."""
    return bool(text) and f" {name}".endswith(f" {text}")


def _places(
    graph: AttributionGraph,
    shown: Overview,
    columns: Int[ndarray, " pos"],
    arrived: Float[ndarray, " node"],
) -> list[dict[int, float]]:
    """Influence of each box by column."""
    found: list[dict[int, float]] = []
    for box in shown.boxes:
        rows = box.rows[graph.nodes.pos[box.rows] >= 0]
        shares: dict[int, float] = defaultdict(float)
        for pos, part in zip(graph.nodes.pos[rows], arrived[rows], strict=True):
            shares[int(columns[pos])] += float(part)
        found.append(shares)
    return found


def _most_alike(
    overviews: tuple[Overview, Overview],
    places: tuple[list[dict[int, float]], list[dict[int, float]]],
    known: list[Counterpart],
) -> Counterpart | None:
    """The two boxes of one kind without counterparts that do most alike, if they are enough so."""
    first, second = overviews
    used = ({one.first for one in known}, {one.second for one in known})
    best, found = ALIKE, None
    for i, box in enumerate(first.boxes):
        for j, other in enumerate(second.boxes):
            if i in used[0] or j in used[1] or box.kind != other.kind or box.kind == BoxKind.TOKEN:
                continue
            at = {*places[0][i], *places[1][j]}
            pairs = [(places[0][i].get(c, 0.0), places[1][j].get(c, 0.0)) for c in sorted(at)]
            for flow, there in ((first.flow, second.flow), (first.flow.T, second.flow.T)):
                pairs += [
                    (float(flow[i, one.first]), float(there[j, one.second])) for one in known[1:]
                ]
            alike = _alike(pairs)
            if alike >= best:
                best, found = alike, Counterpart(i, j, 0.0)
    return found


def _alike(pairs: Sequence[tuple[float, float]]) -> float:
    most = sum(map(max, pairs))
    return sum(map(min, pairs)) / most if most > 0 else 0.0
