"""Two models over many prompts, for a terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from rich.console import Group, RenderableType
from rich.text import Text

from graphs.comparison.compare import Score
from graphs.comparison.many_prompts import Across, interval, known_mean
from graphs.core.graph import AttributionGraph
from viz.html.document import GENERATOR, document, plot, write_document
from viz.page.comparison_page import PAGE_STYLE, html_table
from viz.plot.comparing import depth_profile, scores_beside_null
from viz.text.compared import score_cells
from viz.text.terminal import plain_table
from viz.text.words import one_line, visible

_NAMES = {
    "features": "features in common, by influence",
    "matched": "influence at matched features",
    "alike": "the same, by how alike they are",
    "edges": "edges in common, by influence",
    "ranks": "rank correlation of common edges",
}
_TRAITS = {
    "features": "features",
    "depth": "their depth, 0 to 1",
    "edges": "edges on the way from tokens",
    "direct": "influence over one edge",
}
_HEADINGS = ("score", "mean", "95 % of prompts like these", "shuffled prompts", "p")


def prompts_text(
    first: Sequence[AttributionGraph],
    second: Sequence[AttributionGraph],
    names: Sequence[str],
    found: Across,
) -> RenderableType:
    """Scores beside those of shuffled prompts, and the prompts that differ most and least."""
    head = Text(one_line(f"{_title(first, second)}: {len(names)} prompts"), style="bold")
    lines = plain_table(*_HEADINGS, right=_HEADINGS[1:])
    for row in _rows(found):
        lines.add_row(*map(Text, row))
    head_of_traits = tuple(map(one_line, _trait_headings(first, second)))
    of_each = plain_table(*head_of_traits, right=head_of_traits[1:])
    for row in _trait_rows(found):
        of_each.add_row(*map(Text, row))
    main = next(iter(found.each))
    values = found.each[main]
    order = [int(place) for place in np.argsort(values) if not np.isnan(values[place])]
    ends = plain_table(_NAMES[main], "", "graph", right=("",))
    for word, place in (("least", order[0]), ("most", order[-1])) if order else ():
        ends.add_row(*map(Text, (word, f"{values[place]:.3f}", one_line(names[place]))))
    return Group(head, "", lines, "", of_each, "", ends)


def prompt_scores(found: Across) -> dict[str, Score]:
    """The scores by the names under which they are shown."""
    return {_NAMES[name]: score for name, score in found.scores.items()}


def write_prompts(
    first: Sequence[AttributionGraph],
    second: Sequence[AttributionGraph],
    found: Across,
    path: Path | str,
) -> None:
    """Write the comparison as one HTML file, whole or not at all.  Raises GraphFileError."""
    names = [side[0].provenance.model.name for side in (first, second)]
    body = f"""<h1>{escape(visible(_title(first, second)))}</h1>
<p class="graph">{len(first):,} prompts; by chance: graphs of different prompts</p>
{plot(scores_beside_null(prompt_scores(found)), "scores", "scores")}
{html_table("Scores", _HEADINGS, _rows(found), numbers={1, 2, 3, 4})}
{html_table("How each computes", _trait_headings(first, second), _trait_rows(found), {1, 2, 3})}
{plot(depth_profile((first, second), names), "depth", "influence-by-depth", with_script=False)}"""
    text = document(visible(_title(first, second)), GENERATOR, PAGE_STYLE, body)
    write_document(text, path)


def _trait_headings(
    first: Sequence[AttributionGraph], second: Sequence[AttributionGraph]
) -> tuple[str, ...]:
    names = [side[0].provenance.model.name for side in (first, second)]
    return "how each computes", *names, "difference, 95 %"


def _title(first: Sequence[AttributionGraph], second: Sequence[AttributionGraph]) -> str:
    return " and ".join(side[0].provenance.model.name for side in (first, second))


def _rows(found: Across) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, score in found.scores.items():
        value, chance, likely = score_cells(score)
        rows.append((_NAMES[name], value, _span(found.each[name]), chance, likely))
    return rows


def _trait_rows(found: Across) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, values in found.traits.items():
        one, other = ("" if np.isnan(m) else f"{m:.3g}" for m in map(known_mean, values.T))
        rows.append((_TRAITS[name], one, other, _span(values[:, 1] - values[:, 0])))
    return rows


def _span(values: Float[ndarray, " prompt"]) -> str:
    low, high = interval(values)
    return "" if np.isnan(low) else f"{low:.3f} to {high:.3f}"
