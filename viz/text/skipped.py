"""Text of skipped hops: shares in both directions, and the most skipped paths of either graph."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.comparison.hops import SkippedHops, Skips
from graphs.core.graph import AttributionGraph
from graphs.interventions.mediation import Mediation
from graphs.naming.names import Names
from viz.text.tables import plain_table
from viz.text.words import label, one_line, percent

Measured = Sequence[Mediation | None]  # of the listed hops
ABSENT = "not in the other: "  # of a node between without a counterpart
SHARES = ("skipped", "null", "lost", "judged")


def skipped_text(
    first: AttributionGraph,
    second: AttributionGraph,
    found: SkippedHops,
    count: int = 10,
    measured: tuple[Measured, Measured] | None = None,
) -> RenderableType:
    """What either graph skips of the other's steps; `count` hops of each."""
    names = [graph.provenance.dictionary.name for graph in (first, second)]
    if names[0] == names[1]:
        names = ["the first", "the second"]
    shares = plain_table("two steps of", "skipped by", *SHARES, right=SHARES)
    parts: list[RenderableType] = []
    sides = ((first, found.first), (second, found.second))
    for side, (own, skips) in enumerate(sides):
        here, there = names[side], names[1 - side]
        shares.add_row(*map(Text, (here, there, *_share_cells(skips))))
        lines = None if measured is None else measured[side]
        parts += [Text(""), _hops(own, skips, f"{here}, in two steps", count, lines)]
    return Group(shares, *parts)


def _share_cells(skips: Skips) -> tuple[str, ...]:
    null = percent(skips.skipped.null_mean) if skips.skipped.known_null else ""
    return percent(skips.skipped.value), null, percent(skips.lost), percent(skips.judged)


def _hops(
    own: AttributionGraph,
    skips: Skips,
    heading: str,
    count: int,
    measured: Measured | None,
) -> RenderableType:
    """Table of the hops of one graph, a line for each node of a hop."""
    if not skips.hops:
        return Text(f"{heading}: none is skipped")
    numbers = ("skipped", "of", "mediated", "graph says") if measured else ("skipped", "of")
    table = plain_table(heading, *numbers, "label", right=numbers, texts=("label",))
    names = Names(own)
    for place, hop in enumerate(skips.hops[:count]):
        cells = [percent(hop.skipped), percent(hop.step)]
        if measured:
            cells += _measured_cells(measured[place] if place < len(measured) else None)
        for row, node in enumerate(hop.nodes):
            shown = cells if row == 1 else [""] * len(cells)
            name = ("", "→ ", "→ ")[row] + str(own.nodes[node])
            text = ABSENT * (row == 1 and not hop.between) + one_line(label(names, node))
            table.add_row(*map(Text, (name, *shown)), Text(text))
    return table


def _measured_cells(found: Mediation | None) -> list[str]:
    shares = (None, None) if found is None else (found.share, found.predicted_share)
    return ["" if share is None else f"{share:.2f}" for share in shares]
