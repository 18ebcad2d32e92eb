"""Tables of features for and against a prediction."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.reports.opposing import Effect, Opposing
from viz.text.tables import plain_table
from viz.text.words import one_line


def opposing_text(found: Opposing, target: str, rival: str | None) -> RenderableType:
    """Features by their effect on a prediction and its rival."""
    parts = [
        (f"for {target!r}" + f" and not {rival!r}" * (rival is not None), found.helping),
        (f"for {rival!r} and not {target!r}" if rival else f"against {target!r}", found.hindering),
    ]
    if rival is not None:
        parts.append((f"suppress {rival!r}", found.suppressing))
    tables = [_table(heading, some, target, rival) for heading, some in parts]
    return Group(*(line for table in tables for line in (table, "")))


def _table(
    heading: str, effects: tuple[Effect, ...], target: str, rival: str | None
) -> RenderableType:
    numbers = (f"on {target!r}", *([f"on {rival!r}", "difference"] if rival else []))
    table = plain_table(heading, *numbers, "label", right=numbers, texts=("label",))
    for one in effects:
        cells = [f"{one.on:+.3f}"]
        if one.on_rival is not None:
            cells += [f"{one.on_rival:+.3f}", f"{one.difference:+.3f}"]
        table.add_row(*map(Text, (one.node, *cells, one_line(one.label))))
    return table
