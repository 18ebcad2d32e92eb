"""Text of attention taken apart: heads of edges, paths of heads, entries, scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from graphs.attention.edge_heads import EdgeHeads
from graphs.attention.entries import AttentionEntries
from graphs.attention.head_paths import HeadPaths
from graphs.attention.scores import AttentionScore, ScorePairs, Side, is_context
from graphs.core.graph import AttributionGraph
from graphs.core.head_totals import strongest_heads
from graphs.core.nodes import NodeKind
from graphs.naming.names import Names
from viz.text.tables import plain_table
from viz.text.words import label, one_line, percent, plain_label, quoted

PER_EDGE = 4  # heads that are named per edge
HEADS = 8  # that are listed with what they carry
NAMED = 3  # components of each side that are named per reason
CONTEXT = "context"


def heads_text(
    graph: AttributionGraph, found: EdgeHeads, entries: AttentionEntries, count: int
) -> RenderableType:
    """Where to look, the heads that carry most, and the strongest edges with their heads."""
    carried, past = found.carried(graph)
    names = Names(graph)
    table = plain_table("head", "carries", "most of", "label", right=("carries",), texts=("label",))
    for layer, head, share in strongest_heads(carried, HEADS):
        edge = int(np.argmax(np.abs(found.parts[:, layer, head])))
        target = int(found.target[edge])
        named = f"{graph.nodes[int(found.source[edge])]} → {graph.nodes[target]}"
        cells = f"{layer}.{head}", percent(share), named
        table.add_row(*map(Text, (*cells, one_line(label(names, target)))))
    remark = Text(f"past all attention goes {percent(past)} of the influence along edges")
    return Group(
        entries_text(graph, entries), "", table, remark, "", edges_text(graph, found, count)
    )


def edges_text(graph: AttributionGraph, found: EdgeHeads, count: int) -> RenderableType:
    """Edges with the heads that they cross first."""
    table = plain_table(
        "edge",
        "weight",
        "past",
        "first head",
        "label",
        right=("weight", "past"),
        texts=("label",),
        wraps=("first head",),
    )
    names = Names(graph)
    for edge in range(min(count, len(found.weight))):
        named = found.strongest(edge, PER_EDGE)
        heads = ", ".join(f"{layer}.{head} {part:+.2f}" for layer, head, part in named)
        rest = float(found.parts[edge].sum(dtype=np.float64)) - sum(part for *_, part in named)
        others = int((found.parts[edge] != 0).sum()) - len(named)
        source, target = int(found.source[edge]), int(found.target[edge])
        numbers = f"{found.weight[edge]:+.2f}", f"{found.bypass[edge]:+.2f}"
        more = f"{others} others {rest:+.2f}" if others else ""
        for mark, row, cells in (
            ("", source, (*numbers, heads)),
            ("→ ", target, ("", "", more)),
        ):
            node, text = f"{mark}{graph.nodes[row]}", one_line(label(names, row))
            table.add_row(*map(Text, (node, *cells, text)))
    return table


def paths_of_heads_text(
    graph: AttributionGraph, source: int, target: int, found: HeadPaths
) -> RenderableType:
    """One edge by paths of heads, and by the heads that it passes anywhere."""
    ends = _ends(graph, source, target, found.weight)
    numbers = "part", "share"
    table = plain_table("over heads", *numbers, right=numbers, wraps=("over heads",))
    for path in found.paths:
        over = " → ".join(f"{layer}.{number}" for layer, number in path.heads)
        table.add_row(*map(Text, (over or "past attention", *_part(path.weight, found.weight))))
    table.add_row(*map(Text, ("all other paths", *_part(found.rest, found.weight))))
    through = plain_table("anywhere through", *numbers, right=numbers)
    for layer, number, part in strongest_heads(found.through, HEADS):
        through.add_row(*map(Text, (f"{layer}.{number}", *_part(part, found.weight))))
    return Group(ends, "", table, "", through)


def reasons_text(
    graph: AttributionGraph,
    ends: tuple[int, int],
    paths: HeadPaths,
    reasons: Sequence[tuple[float, AttentionScore]],
    labels: dict[int, str],
) -> RenderableType:
    """Why an edge is there: its main heads, and what made each look from target to source."""
    parts: list[RenderableType] = [_ends(graph, *ends, paths.weight), "", Text(_over(paths))]
    for part, score in reasons:
        odds = "" if score.log_odds is None else f", log odds {score.log_odds:+.2f}"
        share = _part(part, paths.weight)[1]
        heading = (
            f"head {score.layer}.{score.head} carries {share} of it; from "
            f"{_place(graph, score.query)} it gives {_place(graph, score.key)} "
            f"{score.attention[score.key]:.2f} of its attention{odds}, because of"
        )
        what = "score" if score.odds is None else "difference"
        table = plain_table("", "node", what, "label", right=(what,), texts=("label",))
        for side, where in (("at_query", "query"), ("at_keys", "key")):
            weight = getattr(score.explained, side).weight
            for at in strongest_components(score, side, NAMED):
                cells = where, str(score.nodes[at]), f"{weight[at]:+.2f}"
                table.add_row(*map(Text, (*cells, one_line(_label(graph, score, labels, at)))))
                where = ""
        parts += ["", Text(heading), table]
    return Group(*parts)


def _over(paths: HeadPaths) -> str:
    """Over which heads an edge goes, as a sentence."""
    past = sum((path.weight for path in paths.paths if not path.heads), 0.0)
    alone = [path for path in paths.paths if len(path.heads) == 1]
    shares = [_part(path.weight, paths.weight)[1] for path in alone[:PER_EDGE]]
    some = ", ".join(
        f"{path.heads[0][0]}.{path.heads[0][1]} ({share})"
        for path, share in zip(alone, shares, strict=False)
        if share != "0%"
    )
    rest = paths.weight - past - sum(path.weight for path in alone)
    shares = [_part(one, paths.weight)[1] for one in (past, rest)]
    sentence = f"{shares[0]} of it goes past all attention"
    if some:
        sentence += f", the rest over heads {some}"
    return f"{sentence}; {shares[1]} over several heads or weaker ones"


def _ends(graph: AttributionGraph, source: int, target: int, weight: float) -> RenderableType:
    ends, names = (
        plain_table("edge", "weight", "label", right=("weight",), texts=("label",)),
        Names(graph),
    )
    for mark, row, number in (("", source, f"{weight:+.3f}"), ("→ ", target, "")):
        cells = f"{mark}{graph.nodes[row]}", number, one_line(label(names, row))
        ends.add_row(*map(Text, cells))
    return ends


def entries_text(graph: AttributionGraph, found: AttentionEntries) -> RenderableType:
    """Where to look: the entries that carry most into a target."""
    heading = f"carries into {one_line(label(Names(graph), found.target))}"
    table = plain_table("head", "from", "to", heading, "attention", right=(heading, "attention"))
    for at in range(len(found.flow)):
        places = (_place(graph, int(column[at])) for column in (found.key, found.query))
        numbers = f"{found.flow[at]:+.2f}", f"{found.attention[at]:.2f}"
        table.add_row(*map(Text, (f"{found.layer[at]}.{found.head[at]}", *places, *numbers)))
    return table


def score_text(
    graph: AttributionGraph,
    found: AttentionScore,
    pairs: ScorePairs,
    labels: dict[int, str],
    count: int,
) -> RenderableType:
    """Why a head looks at a key: both sides by component, and the strongest pairs."""
    query, key = _place(graph, found.query), _place(graph, found.key)
    lines: list[RenderableType] = [
        Text(
            f"head {found.layer}.{found.head} at {query} gives {key} "
            f"{found.attention[found.key]:.2f} of its attention, score {found.score.value:+.3f}"
        )
    ]
    if found.odds is None:
        lines.append(Text("no other key competes: only the score is taken apart"))
    else:
        rivals = np.flatnonzero(found.competitors > 0).tolist()
        against = _place(graph, rivals[0]) if len(rivals) == 1 else f"{len(rivals)} other keys"
        odds = "" if found.log_odds is None else f", log odds {found.log_odds:+.3f}"
        lines.append(Text(f"against {against}: difference of scores {found.odds.value:+.3f}{odds}"))
    for name, which in ((f"at the query {query}", "at_query"), ("at the keys", "at_keys")):
        lines += ["", _side(graph, found, name, which, labels, count)]
    lines += ["", *_pairs(graph, found, pairs, labels)]
    return Group(*lines)


def _side(
    graph: AttributionGraph,
    found: AttentionScore,
    heading: str,
    which: str,
    labels: dict[int, str],
    count: int,
) -> RenderableType:
    """One side: its strongest components, then sums by kind."""
    score: Side = getattr(found.score, which)
    odds: Side | None = None if found.odds is None else getattr(found.odds, which)
    names = ("score",) if odds is None else ("difference", "norms run", "score")
    columns = [score.weight]
    if odds is not None:
        columns = [odds.weight, odds.running, score.weight]
    table = plain_table(heading, *names, "label", right=names, texts=("label",))

    def add(name: str, numbers: Sequence[float | None], text: str = "") -> None:
        cells = ["" if number is None else f"{number:+.2f}" for number in numbers]
        table.add_row(*map(Text, (name, *cells, one_line(text))))

    for at in strongest_components(found, which, count):
        add(str(found.nodes[at]), [float(c[at]) for c in columns], _label(graph, found, labels, at))
    for name, members in _kinds(found, graph.provenance.n_prefix).items():
        constants = [None] * len(columns)
        if name == CONTEXT:
            own = [score.constant]
            constants = own if odds is None else [odds.constant, 0.0, score.constant]
        sums = [
            float(c[members].sum()) + (k or 0.0) for c, k in zip(columns, constants, strict=True)
        ]
        if any(sums):
            add(name, sums)
    return table


def strongest_components(found: AttentionScore, which: str, count: int) -> list[int]:
    """The components of a side that matter most to the difference, or to the score."""
    weight = np.abs(getattr(found.explained, which).weight)
    order = np.argsort(-weight, kind="stable")[:count]
    return order[weight[order] > 0].tolist()


def _kinds(found: AttentionScore, n_prefix: int) -> dict[str, np.ndarray]:
    """Components by what they are; tokens of the prefix and all constants are context."""
    nodes = found.nodes
    context = is_context(nodes, n_prefix)
    return {
        "all features": nodes.is_kind(NodeKind.FEATURE),
        "all errors": nodes.is_kind(NodeKind.ERROR),
        "all tokens": nodes.is_kind(NodeKind.TOKEN, NodeKind.POSITION) & ~context,
        CONTEXT: context,
    }


def _pairs(
    graph: AttributionGraph, found: AttentionScore, pairs: ScorePairs, labels: dict[int, str]
) -> list[RenderableType]:
    table = plain_table(
        "pair of the score", "", "part", "labels", right=("part",), texts=("labels",)
    )
    rows = zip(pairs.query.tolist(), pairs.key.tolist(), pairs.weight.tolist(), strict=True)
    for query, key, weight in rows:
        names = [CONTEXT if at < 0 else str(found.nodes[at]) for at in (query, key)]
        texts = [_label(graph, found, labels, at) if at >= 0 else CONTEXT for at in (query, key)]
        cells = names[0], f"× {names[1]}", f"{weight:+.2f}", one_line(" × ".join(texts))
        table.add_row(*map(Text, cells))
    energy = pairs.singular_values**2
    rank = int(np.searchsorted(np.cumsum(energy) / (energy.sum() or 1.0), 0.9)) + 1
    share = "" if pairs.share is None else f"{percent(pairs.share)} of the sizes of all pairs, "
    return [
        table,
        Text(
            f"these are {share}{percent(pairs.energy)} of their squares; "
            f"{rank} of {len(energy)} dimensions hold 90% of these"
        ),
    ]


def _label(graph: AttributionGraph, found: AttentionScore, labels: dict[int, str], at: int) -> str:
    node = found.nodes[at]
    if at in labels:
        return labels[at]
    if node in graph:
        return label(Names(graph), graph.find(node))
    return "" if node.kind == NodeKind.FEATURE else plain_label(graph, node)


def _part(part: float, whole: float) -> tuple[str, str]:
    share = f"{part / whole:.0%}" if whole else ""
    return f"{part:+.3f}", "0%" if share == "-0%" else share


def _place(graph: AttributionGraph, pos: int) -> str:
    return f"{quoted(graph.token_text(pos))} @{pos}"
