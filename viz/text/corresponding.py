"""Text of a comparison of two models."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from graphs.comparison.compare import Score
from graphs.comparison.concepts import Appearance, Concept
from graphs.comparison.correspond import Correspondence
from graphs.core.graph import AttributionGraph
from graphs.naming.names import Names
from viz.text.compared import comparison_scores, positions_text, scores_table
from viz.text.tables import plain_table
from viz.text.words import label, one_line, percent


def correspondence_text(
    first: AttributionGraph,
    second: AttributionGraph,
    found: Correspondence,
    concepts: list[Concept],
    paths: Score,
    count: int = 10,
) -> RenderableType:
    """Scores with their nulls, evidence, depth, concepts and the strongest matched features."""
    names = [one_line(graph.provenance.model.name) for graph in (first, second)]
    head = Text(f"{names[0]} and {names[1]}: {len(found.pairs)} features matched", style="bold")
    return Group(
        head,
        positions_text(first, second, found.comparison),
        Text(_shift(found)),
        "",
        scores_table(correspondence_scores(found, paths)),
        "",
        _evidence(found),
        "",
        _concepts(concepts, names, count),
        "",
        _pairs(first, second, found, count),
    )


def correspondence_scores(found: Correspondence, paths: Score) -> dict[str, Score]:
    """Scores by their displayed names."""
    scores = {
        "influence at matched features": found.matched,
        "the same, weighted by similarity": found.matched_weighted,
        **comparison_scores(found.comparison),
        "paths through the same concepts": paths,
    }
    if found.transported is not None:
        scores["influence moved by the plan"] = found.transported[0]
        scores["of that, to matched features"] = found.transported[1]
    return scores


def _shift(found: Correspondence) -> str:
    if len(found.pairs) == 0:
        return "no features are similar enough to be matched"
    depth = abs(found.shift)
    where = "deeper in the second" if found.shift > 0 else "deeper in the first"
    return f"matched features are on average {percent(depth)} of the depth {where}"


def _evidence(found: Correspondence) -> RenderableType:
    lines = plain_table(
        "evidence",
        "weight",
        "known",
        "matched",
        "any pair",
        right=("weight", "known", "matched", "any pair"),
    )
    for kind in found.evidence:
        matched = "" if np.isnan(kind.matched) else f"{kind.matched:.2f}"
        cells = (kind.name, f"{kind.weight:g}", percent(kind.known), matched)
        lines.add_row(*map(Text, (*cells, f"{kind.anywhere:.2f}")))
    return lines


def _concepts(concepts: list[Concept], names: list[str], count: int) -> RenderableType:
    """Table of concepts of both graphs, one below the other."""
    numbers = ("n", "influence", "depth")
    lines = plain_table("in", *numbers, "concept", right=numbers, texts=("concept",))
    for concept in concepts[:count]:
        for model, side in zip(names, (concept.first, concept.second), strict=True):
            name, *numbers_of_side = appearance_cells(side)
            lines.add_row(*map(Text, (model, *numbers_of_side, name)))
    return lines


def appearance_cells(side: Appearance | None) -> tuple[str, str, str, str]:
    """Name, number of features, influence and depth of a concept in one graph."""
    if side is None:
        return "–", "", "", ""
    return side.name, f"{side.features:,}", percent(side.influence), f"{side.depth:.2f}"


def _pairs(
    first: AttributionGraph, second: AttributionGraph, found: Correspondence, count: int
) -> RenderableType:
    """Table of the most influential matched features."""
    lines = plain_table(
        *("matched", "influence", "similarity", "label"),
        right=("influence", "similarity"),
        texts=("label",),
    )
    influence = found.influence()
    names = (Names(first), Names(second))
    for place in np.argsort(-influence.sum(axis=1), kind="stable")[:count].tolist():
        rows = (int(row) for row in found.pairs[place])
        similarity = f"{found.similarity[place]:.2f}"
        for own, row, share in zip(names, rows, influence[place], strict=True):
            cells = str(own.graph.nodes[row]), percent(float(share)), similarity, label(own, row)
            lines.add_row(*map(Text, cells))
            similarity = ""
    return lines
