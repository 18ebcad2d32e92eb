"""Page: an attribution graph as one HTML file that needs nothing else.

Figure, how to read it, and the strongest nodes as a table.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from graphs.descriptions import Description, Example
from graphs.files import atomic_write
from graphs.graph import AttributionGraph
from graphs.nodes import TARGET_KINDS
from viz.document import FONT, GREY, INK, PALE, SIDE, document, plot
from viz.figure import figure
from viz.strengths import Strengths, strengths, strongest
from viz.words import heading, label, number, percent, position_text, quoted, visible

TABLE_ROWS = 50

_STYLE = f"""
  body {{ margin: 0; background: white; color: {INK}; font: 14px/1.5 {FONT}; }}
  figure, section {{ margin: 0 auto; width: fit-content; max-width: 100%; }}
  .scroll {{ overflow-x: auto; overflow-y: hidden; }}
  figcaption, section {{ box-sizing: border-box; padding: 0 {SIDE}px; }}
  figcaption {{ max-width: 64rem; padding-top: 8px; color: {GREY}; }}
  section {{ width: 1400px; padding-bottom: 48px; }}
  table {{ width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }}
  caption {{ padding: 32px 0 8px; text-align: left; font-size: 16px; font-weight: bold; }}
  th, td {{ padding: 3px 16px 3px 0; border-bottom: 1px solid {PALE}; text-align: left; }}
  th {{ font-weight: normal; white-space: nowrap; }}
  thead th {{ border-color: {GREY}; color: {GREY}; }}
  details {{ color: {GREY}; }}
  details p {{ margin: 2px 0; color: {INK}; }}
  mark {{ background: none; color: inherit; }}
  td {{ overflow-wrap: anywhere; white-space: pre-wrap; }}
  .number {{ padding-right: 0; padding-left: 16px; text-align: right; white-space: nowrap; }}
  .unseen {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip: rect(0 0 0 0); }}
  @media print {{
    @page {{ size: landscape; margin: 10mm; }}
    figure {{ zoom: 0.7; }}
    .modebar-container {{ display: none; }}
    section {{ width: auto; padding: 0; break-before: page; font-size: 11px; }}
    tr {{ break-inside: avoid; }}
  }}
"""

_READING = """Each mark is a node at its token and layer; its area grows with its influence, the
part of what reaches the outputs that passes through it. Lines are the direct effects that carry
most influence, from the lower node to the upper one; stronger lines carry more. The words beside
features are the tokens whose logits they raise most. Point at a node for its strongest inputs
and outputs, in percent of all that enters the receiving node; drag to zoom, double-click to zoom
out, click the legend to hide a kind."""
_ALTERNATIVE = "Attribution graph; the table below lists its strongest nodes"


def write_page(graph: AttributionGraph, path: Path | str) -> None:
    """Write a graph as one HTML file, whole or not at all; a file that is there is replaced.

    Raises GraphFileError, with the path in its text, if the file cannot be written.
    """
    text = page_text(graph)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def page_text(graph: AttributionGraph) -> str:
    """A graph as the text of one HTML file."""
    body = f"""<figure>
<div class="scroll" role="img" tabindex="0" aria-label="{_ALTERNATIVE}">
{plot(figure(graph), "graph", "attribution-graph")}
</div>
<noscript>The figure needs JavaScript; the table below does not.</noscript>
<figcaption>{_READING}</figcaption>
</figure>
<section>
{_table(graph)}
</section>"""
    return document(heading(graph), graph.provenance.generator, _STYLE, body)


def _table(graph: AttributionGraph) -> str:
    measured = strengths(graph)
    rows = strongest(measured.arrived, TABLE_ROWS).tolist()
    body = "\n".join(_table_row(graph, measured, row) for row in rows)
    which = f"The {len(rows)} nodes with the most influence, of {len(graph):,}"
    return f"""<table>
<caption>{which if len(rows) < len(graph) else "All nodes by influence"}</caption>
<thead><tr><th scope="col">node</th><th scope="col">label</th><th scope="col">token</th>\
<th scope="col" class="number">influence</th><th scope="col" class="number">activation</th></tr>\
</thead>
<tbody>
{body}
</tbody>
</table>"""


def _table_row(graph: AttributionGraph, measured: Strengths, row: int) -> str:
    is_target = graph.nodes.kind[row] in TARGET_KINDS
    influence = "" if is_target else percent(float(measured.influence[row]))
    numbers = (influence, number(float(graph.nodes.activation[row])))
    cells = [
        f"<td>{escape(label(graph, row))}{_details(graph.description(row))}</td>",
        f"<td>{escape(position_text(graph, row))}</td>",
    ]
    cells += [f'<td class="number">{text}</td>' for text in numbers]
    return f'<tr><th scope="row">{graph.nodes[row]}</th>{"".join(cells)}</tr>'


def _details(description: Description | None) -> str:
    """Output tokens and examples of a feature, folded away; empty where nothing is known."""
    if description is None:
        return ""
    lines = [_example(example, description.largest or 1.0) for example in description.examples]
    for word, tokens in (
        ("says", description.said),
        ("raises", description.raised),
        ("lowers", description.lowered),
    ):
        if tokens:
            lines.append(escape(f"{word} {' '.join(map(quoted, tokens))}"))
    if description.frequency is not None:
        lines.append(f"fires on {percent(description.frequency)} of tokens")
    if not lines:
        return ""
    body = "".join(f"<p>{line}</p>" for line in lines)
    return f"<details><summary>examples</summary>{body}</details>"


def _example(example: Example, largest: float) -> str:
    """A text whose tokens are coloured by the feature's activation at them."""
    pieces: list[str] = []
    for token, activation in zip(example.tokens, example.activations, strict=True):
        share = min(1.0, max(0.0, activation / largest))
        text = escape(visible(token).replace("␣", " "))
        if share > 0.005:
            shade = f"background: rgb(240 140 40 / {share:.0%})"
            text = f'<mark style="{shade}" title="{number(activation)}">{text}</mark>'
        pieces.append(text)
    return "".join(pieces)
