"""What several graphs have in common, for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphs.comparison.consensus import Common, Consensus
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeId, NodeKind
from viz.text.terminal import plain_table
from viz.text.words import percent, quoted, short

_LONGEST = 32  # letters of what a node says
_NUMBERS = ("prompts", "influence", "from", "to")


def consensus_text(first: AttributionGraph, found: Consensus, count: int = 15) -> RenderableType:
    """The nodes and edges of most influence; `first` is the graph whose positions they have."""
    said = {str(node): row for row, node in enumerate(first.nodes)}

    def words(node: NodeId) -> str:
        if node.kind == NodeKind.TOKEN and node.pos is not None:
            return f"token at {quoted(first.token_text(node.pos))}"
        if node.kind == NodeKind.TARGET:
            return "prediction"
        row = said.get(str(node))
        text = "" if row is None else first.said(row)
        return short(text, _LONGEST) if text else ""

    nodes = plain_table("node", "", *_NUMBERS, right=_NUMBERS)
    for place, node in enumerate(found.nodes[:count]):
        _add(nodes, (str(node), words(node)), found.at_nodes, place)
    edges = plain_table("from ", "to ", *_NUMBERS, right=_NUMBERS)
    for place, (source, target) in enumerate(found.ends[:count]):
        _add(edges, (str(source), str(target)), found.along_edges, place)
    head = Text(f"{percent(found.left_out)} of influence is at tokens that stand for none")
    return Group(head, "", nodes, "", edges)


def _add(lines: Table, names: tuple[str, ...], common: Common, place: int) -> None:
    numbers = (common.present, common.mean, common.low, common.high)
    told = [_signed(float(column[place])) for column in numbers]
    lines.add_row(*map(Text, (*names, *told)))


def _signed(share: float) -> str:
    return f"−{percent(-share)}" if share < 0 else percent(share)
