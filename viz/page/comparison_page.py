"""Comparison page: scores, depth profiles and concepts of two graphs as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path

from graphs.comparison.compare import Score
from graphs.comparison.concepts import Concept
from graphs.core.graph import AttributionGraph
from viz.html.document import FONT, GENERATOR, GREY, INK, PALE, document, plot, write_document
from viz.plot.comparing import depth_profile, matched_flow, scores_with_null
from viz.text.compared import score_cells
from viz.text.corresponding import appearance_cells
from viz.text.origins import names_apart
from viz.text.words import heading, visible

PAGE_STYLE = f"""
  body {{ margin: 0 auto; width: 1100px; padding: 24px; background: white; color: {INK};
    font: 14px/1.5 {FONT}; }}
  h1 {{ font-size: 18px; margin: 0; }}
  .graph {{ color: {GREY}; margin: 4px 0; }}
  table {{ width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }}
  caption {{ padding: 24px 0 8px; text-align: left; font-size: 16px; font-weight: bold; }}
  th, td {{ padding: 3px 16px 3px 0; border-bottom: 1px solid {PALE}; text-align: left; }}
  th {{ font-weight: normal; }}
  thead th {{ border-color: {GREY}; color: {GREY}; }}
  td {{ overflow-wrap: anywhere; }}
  .number {{ text-align: right; white-space: nowrap; }}
"""


def write_comparison(
    first: AttributionGraph,
    second: AttributionGraph,
    scores: Mapping[str, Score],
    concepts: Sequence[Concept],
    path: Path | str,
) -> None:
    """Write a comparison atomically as one HTML file.  Raises GraphFileError."""
    text = comparison_page(first, second, scores, concepts)
    write_document(text, path)


def comparison_page(
    first: AttributionGraph,
    second: AttributionGraph,
    scores: Mapping[str, Score],
    concepts: Sequence[Concept],
) -> str:
    """A comparison as HTML; `scores` are by displayed name."""
    graphs = (first, second)
    names = names_apart(first, second)
    headings = "\n".join(f'<p class="graph">{escape(heading(graph))}</p>' for graph in graphs)
    body = f"""<h1>{escape(visible(names[0]))} and {escape(visible(names[1]))}</h1>
{headings}
{plot(scores_with_null(scores), "scores", "scores")}
{_scores(scores)}
{plot(depth_profile(graphs, names), "depth", "influence-by-depth", with_script=False)}
{plot(matched_flow(concepts, names), "concepts", "concepts", with_script=False)}
{_concepts(concepts, names)}"""
    title = f"{visible(names[0])} and {visible(names[1])}"
    return document(title, GENERATOR, PAGE_STYLE, body)


def _scores(scores: Mapping[str, Score]) -> str:
    rows = [(name, *score_cells(score)) for name, score in scores.items()]
    return html_table("Scores", ("score", "value", "null", "p"), rows, numbers={1, 2, 3})


def _concepts(concepts: Sequence[Concept], names: tuple[str, ...]) -> str:
    rows = [
        (*appearance_cells(concept.first), *appearance_cells(concept.second))
        for concept in concepts
    ]
    columns = ("features", "influence", "depth")
    headings = (names[0], *columns, names[1], *columns)
    return html_table("Concepts", headings, rows, numbers={1, 2, 3, 5, 6, 7})


def html_table(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: set[int],
    links: Sequence[str] = (),
) -> str:
    """An HTML table of text cells; columns in `numbers` are aligned right.

    `links` are link targets of the first cell of each row.
    """

    def cells(row: Sequence[str], tag: str, link: str = "") -> str:
        kinds = [f'{tag} class="number"' if place in numbers else tag for place in range(len(row))]
        texts = [escape(visible(cell)) if cell else "" for cell in row]
        if link:
            texts[0] = f'<a href="{escape(link)}">{texts[0]}</a>'
        pairs = zip(kinds, texts, strict=True)
        return "".join(f"<{kind}>{text}</{tag}>" for kind, text in pairs)

    linked = zip_longest(rows, links, fillvalue="")
    body = "\n".join(f"<tr>{cells(row, 'td', link)}</tr>" for row, link in linked)
    return f"""<table>
<caption>{caption}</caption>
<thead><tr>{cells(headings, "th")}</tr></thead>
<tbody>
{body}
</tbody>
</table>"""
