"""Audit page: all pairs of an audit, with links to the page of each pair, as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from graphs.interventions.mediators import Audited
from viz.html.document import GENERATOR, GREY, document, write_document
from viz.page.comparison_page import PAGE_STYLE, html_table
from viz.text.audited import (
    FEATURE_HEADINGS,
    KIND_HEADINGS,
    MEDIATOR_HEADINGS,
    audit_title,
    feature_rows,
    kind_rows,
    mediator_cells,
    pair_cells,
    pair_text,
)
from viz.text.words import visible

_FEATURES = 200  # in the table, those with the largest effect
_STYLE = f"""{PAGE_STYLE}
  body {{ width: auto; max-width: 1500px; }}
  section {{ overflow-x: auto; }}
  details {{ margin: 8px 0; }}
  summary {{ cursor: pointer; }}
  .prompt {{ margin: 4px 0 4px 16px; white-space: pre-wrap; overflow-wrap: anywhere; }}
  .note, details caption {{ color: {GREY}; }}
"""
_PAIR_HEADINGS = (
    "pair",
    "first predicts",
    "second predicts",
    "explained",
    "difference",
    "mediated",
    "null",
)
_MEANING = """<p class="note">Difference: the explained value on the second prompt less that on the
first; where it is called a size it has no sign.  Mediated: the share of the difference in the
explained value that is reproduced when the features with the largest attribution to it all get
their activations from the other prompt and nothing else is frozen; a share with a minus sign works
against the difference.  Null: the same with random features of the same layers whose activations
also differ, as mean ± sd.</p>"""


def write_audit(
    found: Sequence[Audited], pages: Sequence[str], problems: Sequence[str], path: Path | str
) -> None:
    """Write the page of an audit atomically; `pages` are addresses of the pairs' pages.

    Raises GraphFileError.
    """
    title = audit_title(found)
    kinds = html_table("Kinds of pairs", KIND_HEADINGS, kind_rows(found), numbers={1, 2, 3, 4, 5})
    body = f"""<h1>{escape(title)}</h1>
{_problems(problems)}
<section>{_pairs(found, pages)}</section>
{_MEANING}
{f"<section>{kinds}</section>" if any(one.pair.kind for one in found) else ""}
<section>{_features(found)}</section>
<h1>Each pair</h1>
{"".join(map(_pair, found))}"""
    text = document(title, GENERATOR, _STYLE, body)
    write_document(text, path)


def _pairs(found: Sequence[Audited], pages: Sequence[str]) -> str:
    rows: list[tuple[str, ...]] = []
    for one in found:
        _, _, here, _, there, *numbers = pair_cells(one)
        rows.append((pair_text(one), here, there, *numbers))
    return html_table("Pairs", _PAIR_HEADINGS, rows, {4, 5, 6}, links=pages)


def _features(found: Sequence[Audited]) -> str:
    rows = feature_rows(found, {one.pair.identifier: pair_text(one) for one in found})
    caption = "Mediating features"
    if len(rows) > _FEATURES:
        caption += f": {_FEATURES} of {len(rows):,}"
    return html_table(caption, FEATURE_HEADINGS, rows[:_FEATURES], {1, 2, 3, 4})


def _pair(one: Audited) -> str:
    rows = [mediator_cells(mediator) for mediator in one.mediators]
    caption = "Features with the largest attribution, and the share that each mediates alone"
    prompts = "\n".join(
        f'<p class="prompt">{escape(visible(text))}</p>'
        for text in (one.pair.first, one.pair.second)
    )
    table = html_table(caption, MEDIATOR_HEADINGS, rows, numbers={3, 4, 5, 6})
    return f"""<details>
<summary>{escape(visible(pair_text(one)))}</summary>
{prompts}
<p class="note">{_compared(one)}  Folder: {escape(visible(one.pair.identifier))}</p>
<section>{table}</section>
{"".join(f"<p>{escape(failure)}</p>" for failure in one.failures)}
</details>
"""


def _compared(one: Audited) -> str:
    """The explained value on both prompts, in the order of the difference."""
    here, there = (answer.value for answer in one.answers)
    target = escape(visible(one.target.strip()))
    return f"{target}: {there:+.2f} on the second, {here:+.2f} on the first: {one.difference:+.2f}."


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    items = "".join(f"<li>{escape(visible(problem))}</li>" for problem in problems)
    return f"<p>Left out:</p><ul>{items}</ul>"
