"""Stories: what went on, as a line of text.

    “ Dallas” → Texas (L3–L5) → say Austin (L6) → “ Austin”

A step is a node, or all neighbours on the way that belong to one group or say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from itertools import groupby

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from graphs.analysis.paths import Paths
from graphs.analysis.scores import Scores
from graphs.core.annotations import Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS, NodeKind
from graphs.groups.collapse import Collapsed
from viz.text.terminal import plain_table
from viz.text.words import one_line, percent, quoted, short

_LONGEST = 32  # letters of a step


def story(
    graph: AttributionGraph, nodes: tuple[int, ...], annotations: Annotations | None = None
) -> str:
    """A chain of nodes, from the source to the target, in words."""
    return stories(graph, [nodes], annotations)[0]


def stories(
    graph: AttributionGraph,
    chains: Iterable[tuple[int, ...]],
    annotations: Annotations | None = None,
) -> list[str]:
    """Chains of nodes, each from the source to the target, in words."""
    said = annotations or Annotations()
    names = said.group_names(graph)
    layers: list[int] = graph.nodes.layer.tolist()

    @cache
    def name(row: int) -> str:
        return one_line(names.get(row, "")) or said_of(graph, row, said)

    def told(chain: tuple[int, ...]) -> str:
        steps: list[str] = []
        for step, rows in groupby(chain, key=name):
            among = [layers[row] for row in rows if layers[row] >= 0]
            steps.append(step + (f" ({_span(among)})" if among else ""))
        return " → ".join(steps)

    return [told(chain) for chain in chains]


def paths_text(
    graph: AttributionGraph, paths: Paths, annotations: Annotations | None = None
) -> RenderableType:
    """Each path's share, sign, what it and those before it cover, and its story."""
    lines = plain_table("share", "", "covered", "path", right=("share", "covered"))
    told = stories(graph, (path.nodes for path in paths.listed), annotations)
    for path, covered, said in zip(paths.listed, paths.coverage, told, strict=True):
        sign = "+" if path.sign > 0 else "−"
        lines.add_row(*map(Text, (percent(path.share), sign, percent(covered), said)))
    head = Text(f"{percent(paths.flow)} of all influence goes between these nodes")
    return Group(head, "", lines) if paths.listed else head


def groups_text(
    graph: AttributionGraph, collapsed: Collapsed, whole: Scores, groups: Mapping[str, bool]
) -> RenderableType:
    """Each group's influence and members, and the scores of the collapsed and the full graph.

    `groups` says of every group whether it is automatic.
    """
    lines = plain_table(
        "group", "by", "at", "layers", "features", "influence", right=("features", "influence")
    )
    order: list[int] = np.argsort(-collapsed.arrived, kind="stable").tolist()
    for number in order:
        name, members = collapsed.names[number], collapsed.members[number]
        if name in groups:
            at = dict.fromkeys(int(pos) for pos in graph.nodes.pos[members] if pos >= 0)
            layers = [int(layer) for layer in graph.nodes.layer[members] if layer >= 0]
            cells = (
                short(name, _LONGEST),
                "program" if groups[name] else "person",
                ", ".join(quoted(graph.token_text(pos)) for pos in at),
                _span(layers) if layers else "",
                f"{len(members):,}",
                percent(float(collapsed.arrived[number])),
            )
            lines.add_row(*map(Text, cells))
    return Group(
        lines,
        "",
        Text(f"{len(collapsed):,} nodes with groups collapsed: {_scored(collapsed.scores)}"),
        Text(f"{len(graph):,} nodes in full: {_scored(whole)}"),
    )


def said_of(graph: AttributionGraph, row: int, annotations: Annotations | None = None) -> str:
    """A node in a few words."""
    own = None if annotations is None else annotations.said(graph, row)
    if own:
        return short(own, _LONGEST)
    kind = graph.nodes.kind[row]
    if kind == NodeKind.TOKEN:
        return quoted(graph.token_text(int(graph.nodes.pos[row])))
    if kind in TARGET_KINDS:
        place = int(np.searchsorted(graph.target_rows(), row))
        return quoted(graph.provenance.targets[place].text)
    if kind == NodeKind.ERROR:
        return "unexplained"
    if kind == NodeKind.FEATURE:
        description = graph.description(row)
        if description is not None and description.label:
            return short(description.label, _LONGEST)
        tokens = graph.output_tokens.get(row, ())
        return f"say {quoted(tokens[0])}" if tokens else str(graph.nodes[row])
    return str(graph.nodes[row])


def _scored(scores: Scores) -> str:
    return f"replacement {scores.replacement:.3f}, completeness {scores.completeness:.3f}"


def _span(layers: list[int]) -> str:
    """The layers of a step, as in L3 or L3–L5."""
    low, high = min(layers), max(layers)
    return f"L{low}" if low == high else f"L{low}–L{high}"
