"""Path descriptions: a path as a line of text.

    “ Dallas” → Texas (L3–L5) → say Austin (L6) → “ Austin”

A step is a node, or consecutive nodes that are in one group or have the same label.
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
from graphs.naming.names import Names
from viz.text.tables import plain_table
from viz.text.words import label, one_line, percent, quoted, short

_LONGEST = 32  # characters of a step


def describe_path(
    graph: AttributionGraph, nodes: tuple[int, ...], annotations: Annotations | None = None
) -> str:
    """Description of a path, from source to target."""
    return describe_paths(graph, [nodes], annotations)[0]


def describe_paths(
    graph: AttributionGraph,
    chains: Iterable[tuple[int, ...]],
    annotations: Annotations | None = None,
) -> list[str]:
    """Descriptions of paths, each from source to target."""
    notes = annotations or Annotations()
    groups, names = notes.group_names(graph), Names(graph, notes)
    layers: list[int] = graph.nodes.layer.tolist()

    @cache
    def name(row: int) -> str:
        return one_line(groups.get(row, "")) or step_label(names, row)

    def description(chain: tuple[int, ...]) -> str:
        steps: list[str] = []
        for step, rows in groupby(chain, key=name):
            of_step = [layers[row] for row in rows if layers[row] >= 0]
            steps.append(step + (f" ({_span(of_step)})" if of_step else ""))
        return " → ".join(steps)

    return [description(chain) for chain in chains]


def paths_text(
    graph: AttributionGraph, paths: Paths, annotations: Annotations | None = None
) -> RenderableType:
    """Share, sign and cumulative coverage of each path, and its nodes, from source to target."""
    notes = annotations or Annotations()
    groups, names = notes.group_names(graph), Names(graph, notes)
    lines = plain_table(
        "share", "", "covered", "node", "label", right=("share", "covered"), texts=("label",)
    )
    for path, covered in zip(paths.listed, paths.coverage, strict=True):
        sign = "+" if path.sign > 0 else "−"
        numbers = percent(path.share), sign, percent(covered)
        for step, row in enumerate(path.nodes):
            group = one_line(groups.get(row, ""))
            text = label(names, row)
            cells = str(graph.nodes[row]), f"{group}: {text}" if group else text
            lines.add_row(*map(Text, (*(numbers if step == 0 else ("", "", "")), *cells)))
    head = Text(f"{percent(paths.flow)} of all influence flows between these nodes")
    if not paths.listed:
        return Group(head, Text("no path leads from the first to the last: paths go up to targets"))
    return Group(head, "", lines)


def groups_text(
    graph: AttributionGraph, collapsed: Collapsed, whole: Scores, groups: Mapping[str, bool]
) -> RenderableType:
    """Influence and members of each group, and scores of the collapsed and the full graph.

    `groups` maps the name of each group to whether it is automatic.
    """
    lines = plain_table(
        "group",
        "by",
        "at",
        "layers",
        "features",
        "influence",
        right=("features", "influence"),
        texts=("group", "at"),
    )
    order: list[int] = np.argsort(-collapsed.arrived, kind="stable").tolist()
    for number in order:
        name, members = collapsed.names[number], collapsed.members[number]
        if name in groups:
            at = dict.fromkeys(int(pos) for pos in graph.nodes.pos[members] if pos >= 0)
            layers = [int(layer) for layer in graph.nodes.layer[members] if layer >= 0]
            cells = (
                one_line(name),
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


def step_label(names: Names, row: int) -> str:
    """Short label of a node as a step."""
    graph = names.graph
    if names.annotations.label(graph, row):
        return short(names.short(row), _LONGEST)
    kind = graph.nodes.kind[row]
    if kind == NodeKind.TOKEN or kind in TARGET_KINDS:
        return quoted(names.short(row))
    if kind == NodeKind.ERROR:
        return "error"
    known = names.short(row) if kind == NodeKind.FEATURE else ""
    return short(known, _LONGEST) if known else str(graph.nodes[row])


def _scored(scores: Scores) -> str:
    return f"replacement {scores.replacement:.3f}, completeness {scores.completeness:.3f}"


def _span(layers: list[int]) -> str:
    """The layers of a step, as in L3 or L3–L5."""
    low, high = min(layers), max(layers)
    return f"L{low}" if low == high else f"L{low}–L{high}"
