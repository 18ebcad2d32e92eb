"""Text of a comparison of two models."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from graphs.comparison.compare import Score
from graphs.comparison.concepts import Appearance, Concept
from graphs.comparison.correspond import Correspondence
from graphs.core.graph import AttributionGraph
from viz.text.compared import comparison_scores, positions_text, scores_table
from viz.text.path_text import label_of
from viz.text.tables import plain_table
from viz.text.words import one_line, percent, short

_LONGEST = 28  # characters of a name


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
    """Table of concepts of both graphs."""
    numbers = ("n", "influence", "depth", "n ", "influence ", "depth ")
    headings = (names[0], *numbers[:3], names[1], *numbers[3:])
    lines = plain_table(*headings, right=numbers, texts=tuple(names))
    for concept in concepts[:count]:
        cells: list[str] = []
        for side in (concept.first, concept.second):
            name, *numbers_of_side = appearance_cells(side)
            cells += [name if side is None else short(name, _LONGEST), *numbers_of_side]
        lines.add_row(*map(Text, cells))
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
        "first",
        "label",
        "influence",
        "second",
        "label ",
        "influence ",
        "similarity",
        right=("influence", "influence ", "similarity"),
        texts=("label", "label "),
    )
    influence = found.influence()
    for place in np.argsort(-influence.sum(axis=1), kind="stable")[:count].tolist():
        one, other = (int(row) for row in found.pairs[place])
        a, b = (float(share) for share in influence[place])
        cells = (
            str(first.nodes[one]),
            label_of(first, one),
            percent(a),
            str(second.nodes[other]),
            label_of(second, other),
            percent(b),
            f"{found.similarity[place]:.2f}",
        )
        lines.add_row(*map(Text, cells))
    return lines
