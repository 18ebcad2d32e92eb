"""Text and page of a comparison over many prompts."""

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
from graphs.comparison.many_prompts import PromptSetComparison, interval, known_mean
from graphs.core.graph import AttributionGraph
from viz.html.document import GENERATOR, document, plot, write_document
from viz.page.comparison_page import PAGE_STYLE, html_table
from viz.plot.comparing import depth_profile, scores_with_null
from viz.text.compared import score_cells
from viz.text.tables import plain_table
from viz.text.words import one_line, visible

_NAMES = {
    "features": "features in common, by influence",
    "matched": "influence at matched features",
    "alike": "the same, weighted by similarity",
    "edges": "edges in common, by influence",
    "ranks": "rank correlation of common edges",
}
_TRAITS = {
    "features": "features",
    "depth": "depth of features, 0 to 1",
    "edges": "edges per path from tokens",
    "direct": "influence over a single edge",
}
_HEADINGS = ("score", "mean", "95 % interval", "null", "p")


def prompts_text(
    first: Sequence[AttributionGraph],
    second: Sequence[AttributionGraph],
    names: Sequence[str],
    found: PromptSetComparison,
) -> RenderableType:
    """Scores with their nulls, traits, and the prompts with the most and least in common."""
    head = Text(one_line(f"{_title(first, second)}: {len(names)} prompts"), style="bold")
    lines = plain_table(*_HEADINGS, right=_HEADINGS[1:])
    for row in _rows(found):
        lines.add_row(*map(Text, row))
    trait_headings = tuple(map(one_line, _trait_headings(first, second)))
    traits = plain_table(*trait_headings, right=trait_headings[1:])
    for row in _trait_rows(found):
        traits.add_row(*map(Text, row))
    main = next(iter(found.per_prompt))
    values = found.per_prompt[main]
    order = [int(place) for place in np.argsort(values) if not np.isnan(values[place])]
    ends = plain_table(_NAMES[main], "", "graph", right=("",), texts=("graph",))
    for word, place in (("least", order[0]), ("most", order[-1])) if order else ():
        ends.add_row(*map(Text, (word, f"{values[place]:.3f}", one_line(names[place]))))
    return Group(head, "", lines, "", traits, "", ends)


def prompt_scores(found: PromptSetComparison) -> dict[str, Score]:
    """Scores by their displayed names."""
    return {_NAMES[name]: score for name, score in found.scores.items()}


def write_prompts(
    first: Sequence[AttributionGraph],
    second: Sequence[AttributionGraph],
    found: PromptSetComparison,
    path: Path | str,
) -> None:
    """Write the comparison atomically as one HTML file.  Raises GraphFileError."""
    names = [side[0].provenance.model.name for side in (first, second)]
    body = f"""<h1>{escape(visible(_title(first, second)))}</h1>
<p class="graph">{len(first):,} prompts; null: graphs of different prompts</p>
{plot(scores_with_null(prompt_scores(found)), "scores", "scores")}
{html_table("Scores", _HEADINGS, _rows(found), numbers={1, 2, 3, 4})}
{html_table("Traits of the graphs", _trait_headings(first, second), _trait_rows(found), {1, 2, 3})}
{plot(depth_profile((first, second), names), "depth", "influence-by-depth", with_script=False)}"""
    text = document(visible(_title(first, second)), GENERATOR, PAGE_STYLE, body)
    write_document(text, path)


def _trait_headings(
    first: Sequence[AttributionGraph], second: Sequence[AttributionGraph]
) -> tuple[str, ...]:
    names = [side[0].provenance.model.name for side in (first, second)]
    return "trait", *names, "difference, 95 % interval"


def _title(first: Sequence[AttributionGraph], second: Sequence[AttributionGraph]) -> str:
    return " and ".join(side[0].provenance.model.name for side in (first, second))


def _rows(found: PromptSetComparison) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, score in found.scores.items():
        value, null, p_value = score_cells(score)
        rows.append((_NAMES[name], value, _span(found.per_prompt[name]), null, p_value))
    return rows


def _trait_rows(found: PromptSetComparison) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, values in found.traits.items():
        one, other = ("" if np.isnan(m) else f"{m:.3g}" for m in map(known_mean, values.T))
        rows.append((_TRAITS[name], one, other, _span(values[:, 1] - values[:, 0])))
    return rows


def _span(values: Float[ndarray, " prompt"]) -> str:
    low, high = interval(values)
    return "" if np.isnan(low) else f"{low:.3f} to {high:.3f}"
