"""Text of a comparison of two graphs of one dictionary."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from graphs.analysis.influence import influence_shares
from graphs.comparison.compare import Comparison, Score
from graphs.comparison.head_overlap import HeadOverlap
from graphs.core.graph import AttributionGraph
from graphs.core.identity import token_keys
from graphs.core.nodes import NodeKind
from graphs.naming.names import Names
from viz.text.tables import plain_table
from viz.text.words import label, percent, quoted

HEADS = 5  # that are listed


def comparison_text(
    first: AttributionGraph,
    second: AttributionGraph,
    found: Comparison,
    heads: HeadOverlap | None = None,
    count: int = 10,
) -> RenderableType:
    """Scores with nulls, aligned tokens that differ, features and heads that changed most."""
    parts: list[RenderableType] = [
        scores_table(comparison_scores(found, heads)),
        "",
        positions_text(first, second, found),
        "",
        _changes(first, second, found, count),
    ]
    if heads is not None:
        parts += ["", _changed_heads(first, heads)]
    return Group(*parts)


def comparison_scores(found: Comparison, heads: HeadOverlap | None = None) -> dict[str, Score]:
    """Scores by their displayed names."""
    scores = {
        "features in common, by influence": found.features,
        "edges in common, by influence": found.edges,
        "rank correlation of common edges": found.ranks,
    }
    return scores if heads is None else {**scores, "heads in common, by influence": heads.overlap}


def scores_table(scores: Mapping[str, Score]) -> RenderableType:
    """Each score with its null, as mean ± sd, and its p-value."""
    lines = plain_table("score", "value", "null", "p", right=("value", "null", "p"))
    for name, score in scores.items():
        lines.add_row(*map(Text, (name, *score_cells(score))))
    return lines


def score_cells(score: Score) -> tuple[str, str, str]:
    """Value, null as mean ± sd, and p-value of a score; empty if unknown."""
    if np.isnan(score.value):
        return "too few", "", ""
    null = f"{score.null_mean:.3f} ± {np.std(score.known_null):.3f}" if score.known_null else ""
    return f"{score.value:.3f}", null, f"{score.p_value:.3f}" if score.known_null else ""


def positions_text(
    first: AttributionGraph, second: AttributionGraph, found: Comparison
) -> RenderableType:
    """Aligned tokens that differ, and tokens without an aligned one."""
    ones, others = first.provenance.tokens, second.provenance.tokens
    keys = token_keys(first.provenance, second.provenance)
    partners: list[int] = found.positions.tolist()
    pairs = [
        f"{quoted(ones[pos])} ↔ {quoted(others[there])}"
        for pos, there in enumerate(partners)
        if there >= 0 and keys[0][pos] != keys[1][there]
    ]
    alone = [quoted(token) for token, there in zip(ones, partners, strict=True) if there < 0]
    alone += [quoted(others[pos]) for pos in sorted(set(range(len(others))) - set(partners))]
    lines = [f"tokens that differ: {', '.join(pairs)}"] if pairs else ["the same tokens"]
    if alone:
        lines.append(f"tokens without an aligned one: {', '.join(alone)}")
    return Group(*map(Text, lines))


def _changed_heads(first: AttributionGraph, heads: HeadOverlap) -> RenderableType:
    """Table of the heads whose share of what heads write differs most."""
    numbers = ("first", "second", "change")
    lines = plain_table("head", "at", *numbers, right=numbers)
    for layer, head, pos, before, after in heads.changed(HEADS):
        sign = "+" if after > before else "−"
        cells = percent(before), percent(after), f"{sign}{percent(abs(after - before))}"
        lines.add_row(*map(Text, (f"{layer}.{head}", quoted(first.token_text(pos)), *cells)))
    return lines if lines.row_count else Text("no head writes another share")


def _changes(
    first: AttributionGraph, second: AttributionGraph, found: Comparison, count: int
) -> RenderableType:
    """Table of the features whose influence differs most."""
    lines = plain_table(
        "feature",
        "first",
        "second",
        "change",
        "label",
        right=("first", "second", "change"),
        texts=("label",),
    )
    shares = [influence_shares(graph) for graph in (first, second)]
    names = {id(graph): Names(graph) for graph in (first, second)}
    rows: list[tuple[AttributionGraph, int, float, float]] = [
        (first, int(one), float(pair[0]), float(pair[1]))
        for one, pair in zip(found.match.first, found.influence, strict=True)
    ]
    rows += [(first, int(row), float(shares[0][row]), 0.0) for row in found.only_first]
    rows += [(second, int(row), 0.0, float(shares[1][row])) for row in found.only_second]
    features = [
        row for row in rows if row[0].nodes.kind[row[1]] == NodeKind.FEATURE and row[2] != row[3]
    ]
    if not features:
        return Text("no feature has another influence")
    features.sort(key=lambda row: (-abs(row[3] - row[2]), str(row[0].nodes[row[1]])))
    for graph, row, before, after in features[:count]:
        change = percent(abs(after - before))
        sign = "+" if after > before else "−"
        cells = (str(graph.nodes[row]), percent(before), percent(after), f"{sign}{change}")
        lines.add_row(*map(Text, cells), Text(label(names[id(graph)], row)))
    return lines
