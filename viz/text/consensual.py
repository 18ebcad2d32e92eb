"""Text of a consensus of several graphs."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphs.comparison.consensus import Common, Consensus
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeId, NodeKind
from graphs.naming.names import Names
from viz.text.tables import plain_table
from viz.text.words import one_line, percent, quoted

_NUMBERS = ("prompts", "influence", "from", "to")


def consensus_text(first: AttributionGraph, found: Consensus, count: int = 15) -> RenderableType:
    """Most influential nodes, edges and heads; others are aligned with the `first` graph."""
    rows = {str(node): row for row, node in enumerate(first.nodes)}
    names = Names(first)

    def words(node: NodeId) -> str:
        if node.kind == NodeKind.TOKEN and node.pos is not None:
            return f"token at {quoted(first.token_text(node.pos))}"
        if node.kind == NodeKind.TARGET:
            return "prediction"
        row = rows.get(str(node))
        text = "" if row is None else names.label(row)
        return one_line(text)

    nodes = plain_table("node", "label", *_NUMBERS, right=_NUMBERS, texts=("label",))
    for place, node in enumerate(found.nodes[:count]):
        _add(nodes, (str(node), words(node)), found.at_nodes, place)
    edges = plain_table("from ", "to ", *_NUMBERS, right=_NUMBERS)
    for place, (source, target) in enumerate(found.ends[:count]):
        _add(edges, (str(source), str(target)), found.along_edges, place)
    head = Text(f"{percent(found.left_out)} of influence is at positions without an aligned one")
    parts: list[RenderableType] = [head, "", nodes, "", edges]
    if found.at_heads is not None and found.heads:
        heads = plain_table("writes", "at", *_NUMBERS, right=_NUMBERS)
        for place, node in enumerate(found.heads[:count]):
            at = quoted(first.token_text(node.pos or 0))
            _add(heads, (f"head {node.layer}.{node.index}", at), found.at_heads, place)
        parts += ["", heads]
    return Group(*parts)


def _add(lines: Table, names: tuple[str, ...], common: Common, place: int) -> None:
    numbers = (common.present, common.mean, common.low, common.high)
    cells = [_signed(float(column[place])) for column in numbers]
    lines.add_row(*map(Text, (*names, *cells)))


def _signed(share: float) -> str:
    return f"−{percent(-share)}" if share < 0 else percent(share)
