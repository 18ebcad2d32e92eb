"""Commands that make pictures of graphs: view a page, figure a file for a paper."""

from __future__ import annotations

import re
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

import viz
from graphs.groups.overview import GROUPS
from headwater.arguments.files import file_option
from headwater.arguments.options import AsJson, GraphPath
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.opened import open_graph
from headwater.outputs.formats import figure_output
from headwater.outputs.places import Kind, graph_files, output_to, require_outputs
from headwater.terminal.printing import print_json, print_line, remark
from viz.page.page import MOST_GRAPHS
from viz.page.part import ALLOWED_NODES, MOST_NODES
from viz.paper.formats import Width

LONGEST_NAME = 100  # letters of a page's name


@app.command("view")
def view_command(
    graph: GraphPath,
    others: Annotated[
        list[Path] | None, typer.Argument(help="Graphs to compare it with, on the same page.")
    ] = None,
    html: Annotated[
        Path | None,
        file_option(
            "--out",
            "--html",
            help="Write the page here; default: beside the first graph.",
        ),
    ] = None,
    nodes: Annotated[
        int, typer.Option(min=1, max=ALLOWED_NODES, help="Nodes on the page at most.")
    ] = MOST_NODES,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a page of a graph, or of several to compare: one HTML file without dependencies."""
    paths = [graph, *(others or [])]
    if len(paths) > MOST_GRAPHS:
        raise UsageError(
            f"A page holds at most {MOST_GRAPHS} graphs, got {len(paths)}: make two pages."
        )
    page = html or graph.parent / f"{page_name(paths)}.html"
    require_outputs(output_to(page, Kind.PAGE), *graph_files(*paths))
    read = [open_graph(path) for path in paths]
    viz.write_pages([(one.graph, one.annotations) for one in read], page, nodes, paths)
    if show and not webbrowser.open(page.resolve().as_uri()):
        remark(f"No browser could be opened: open {page} in one.")
    if as_json:
        print_json({"page": str(page)})
        return
    print_line(f"page: {page}")


def page_name(paths: list[Path]) -> str:
    """Name of the page of these graphs, so that no page of one of them is replaced."""
    stems = list(dict.fromkeys(path.stem for path in paths))
    if len(stems) == 1 and len(paths) > 1:  # of different folders
        stems += [paths[1].absolute().parent.name]
    name = "-".join(stems)
    return name if len(name) <= LONGEST_NAME else f"{stems[0]}-and-{len(paths) - 1}-more"


@app.command("figure")
def figure_command(
    graph: GraphPath,
    out: Annotated[Path, file_option("--out", help="Write the figure here: .svg, .pdf or .png.")],
    width: Annotated[
        Width, typer.Option(help="As wide as a column (85 mm) or a page (174 mm) of a journal.")
    ] = Width.COLUMN,
    at_most: Annotated[
        int, typer.Option("--at-most", min=0, help="Groups at most, those made by hand included.")
    ] = GROUPS,
    groups: Annotated[
        list[str] | None,
        typer.Option(help="NAME,NAME,…: only these groups; a name may have a comma and a blank."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a figure for a paper: the prompt, groups above it, the answer, arrows by influence."""
    require_outputs(figure_output(out), *graph_files(graph))
    read = open_graph(graph)
    names = [name for text in groups or () for name in re.split(r",(?! )", text) if name]
    figure = viz.paper_figure(read.graph, read.annotations, width, at_most, names)
    if figure_remark := figure.write(out):
        remark(figure_remark)
    if as_json:
        print_json({"figure": str(out), "caption": " ".join(figure.caption)})
        return
    for sentence in figure.caption:
        print_line(sentence)
    print_line(f"figure: {out}")
