"""Page: attribution graphs as a self-contained HTML file.

The page consists of the files of `viz/viewer` (body, style, scripts in order of dependence),
plotly's script, and the data of the graphs; scripts and data are compressed.  Without JavaScript
it shows a table of the strongest nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

from graphs.analysis.strengths import Strengths, strongest
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS
from graphs.naming.names import Names
from viz.html.columns import as_bytes, from_bytes
from viz.html.document import GENERATOR, PAGE_POLICY, SERVED_POLICY, document, write_document
from viz.html.packed import packed, unpacked
from viz.page.engine import engine_part
from viz.page.overview import part_overview
from viz.page.pair import pair_data
from viz.page.part import MOST_NODES, Part, part
from viz.page.payload import graph_data, placed
from viz.text.effects import MEANING
from viz.text.words import heading, label, number, percent, position_text

TABLE_ROWS = 50
MOST_GRAPHS = 8  # of a page: all pairs are matched in advance

VIEWER = Path(__file__).parents[1] / "viewer"
# Values, drawing, panels, page: each depends only on those before it, and all share one scope.
_ORDER = """
unpack
numbers data attention stability pruning paths parts places state problems filed mine storage
elements palette apart pens texts limits drawing edges budget hulls labels focus
plot over lists members detail looks heads agreement effects intervening subgraph
boxes summary grouped words panels sides
viewer pointing frequency graphs controls legend strip choosing render annotations actions printing
keys start
"""
SCRIPTS = tuple(_ORDER.split())


def write_page(
    graph: AttributionGraph,
    path: Path | str,
    annotations: Annotations = NO_ANNOTATIONS,
    most_nodes: int = MOST_NODES,
    file: Path | None = None,
) -> None:
    """Write a graph atomically as one HTML file; an existing file is replaced.

    A larger graph is reduced to its strongest `most_nodes` nodes, and the page states it.  `file`
    is the graph's own file: what the page saves is named after it.
    Raises GraphFileError, which names the path, if the file cannot be written.
    """
    write_document(page_text([(graph, annotations)], most_nodes, files=[file]), path)


def write_pages(
    shown: Sequence[tuple[AttributionGraph, Annotations]],
    path: Path | str,
    most_nodes: int = MOST_NODES,
    files: Sequence[Path | None] = (),
) -> None:
    """Write several graphs as one HTML file, in which any two can be compared.

    `files` are the graphs' own, as in `write_page`.

    Raises GraphFileError as `write_page` does, and ValueError for more than MOST_GRAPHS.
    """
    write_document(page_text(shown, most_nodes, files=files), path)


def served_page(graph: AttributionGraph, annotations: Annotations, file: Path) -> str:
    """A graph as a page of the local server, which stores its annotations beside its file."""
    return page_text([(graph, annotations)], served=True, files=[file])


def page_text(
    shown: Sequence[tuple[AttributionGraph, Annotations]],
    most_nodes: int = MOST_NODES,
    *,
    served: bool = False,
    files: Sequence[Path | None] = (),
) -> str:
    """Graphs as HTML; two are shown side by side, of more than two only the first."""
    if not 1 <= len(shown) <= MOST_GRAPHS:
        raise ValueError(f"A page holds from 1 to {MOST_GRAPHS} graphs, got {len(shown)}.")
    parts = [part(graph, most_nodes) for graph, _ in shown]
    notes = [annotations for _, annotations in shown]
    names = file_names([*files, *[None] * (len(shown) - len(files))])
    body = _body(parts, _data(parts, notes, names) | {"served": served, "regimes": MEANING})
    policy = SERVED_POLICY if served else PAGE_POLICY
    title = " | ".join(heading(graph) for graph, _ in shown)
    return document(title, GENERATOR, _file("viewer.css"), body, policy)


def page_data(text: str) -> Any:
    """The data in a page's text: JSON-like, with arrays of numpy as columns.

    Raises ValueError for a page without it.
    """
    return from_bytes(unpacked(text, "data"))


def file_names(files: Sequence[Path | None]) -> list[str | None]:
    """Names of graph files, with the folder where two files have the same."""
    names = [file and file.name for file in files]
    return [
        file and (f"{file.absolute().parent.name}/{name}" if names.count(name) > 1 else name)
        for file, name in zip(files, names, strict=True)
    ]


def _data(
    parts: Sequence[Part], notes: Sequence[Annotations], files: Sequence[str | None]
) -> dict[str, Any]:
    overviews = [part_overview(one, own) for one, own in zip(parts, notes, strict=True)]
    together = zip(parts, notes, files, overviews, strict=True)
    return {
        "graphs": [
            graph_data(one, placed(one), annotations, file, overview)
            for one, annotations, file, overview in together
        ],
        "pairs": [
            {
                "of": [first, second],
                "sides": pair_data(
                    parts[first], parts[second], (overviews[first], overviews[second])
                ),
            }
            for first, second in combinations(range(len(parts)), 2)
        ],
    }


def _body(parts: Sequence[Part], data: object) -> str:
    first, *others = (_file(f"{name}.js") for name in SCRIPTS)
    tables = "\n".join(map(_table, parts))
    return f"""{_file("viewer.html")}
<noscript>This page needs JavaScript; the table below works without it.
{tables}</noscript>
<script>
{first}</script>
{packed("data", as_bytes(data))}
{packed("viewer", "".join(others).encode())}
{engine_part()}"""


def _file(name: str) -> str:
    return (VIEWER / name).read_text(encoding="utf-8")


def _table(held: Part) -> str:
    rows = strongest(held.strengths.arrived, TABLE_ROWS).tolist()
    names = Names(held.graph)
    body = "\n".join(_table_row(names, held.strengths, row) for row in rows)
    which = f"the {len(rows)} most influential of {held.n_nodes:,} nodes"
    which = which if len(rows) < held.n_nodes else "all nodes by influence"
    return f"""<table>
<caption>{escape(heading(held.graph))}: {which}</caption>
<thead><tr><th scope="col">node</th><th scope="col">label</th><th scope="col">token</th>\
<th scope="col" class="number">influence</th><th scope="col" class="number">activation</th></tr>\
</thead>
<tbody>
{body}
</tbody>
</table>"""


def _table_row(names: Names, measured: Strengths, row: int) -> str:
    graph = names.graph
    is_target = graph.nodes.kind[row] in TARGET_KINDS
    influence = "" if is_target else percent(float(measured.influence[row]))
    numbers = (influence, number(float(graph.nodes.activation[row])))
    cells = [
        f"<td>{escape(label(names, row))}</td>",
        f"<td>{escape(position_text(graph, row))}</td>",
    ]
    cells += [f'<td class="number">{text}</td>' for text in numbers]
    return f'<tr><th scope="row">{graph.nodes[row]}</th>{"".join(cells)}</tr>'
