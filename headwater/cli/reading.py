"""Commands that read graphs: paths, group, consensus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import graphs
import viz
from graphs.comparison.consensus import Common
from graphs.core.identity import same_dictionary
from graphs.core.provenance import UNKNOWN
from graphs.groups.automatic import grouped_part, keep_groups, with_groups
from headwater.arguments.options import AsJson, GraphPath
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.graph import Graph
from headwater.opened import open_graph
from headwater.outputs.places import Kind, output_to, require_outputs
from headwater.terminal.printing import output, print_json, print_line

# Defaults come from the settings, so that they cannot differ.
GROUPING = graphs.GroupSettings()
MOST_PATHS = 100_000  # which take a minute and a gigabyte
SELECTION = "a node, token:TEXT, logit:TEXT, a kind, layer:N, group:NAME or concept:NAME"


@app.command("paths")
def paths_command(
    graph: GraphPath,
    sources: Annotated[
        list[str] | None, typer.Option("--from", help=f"Where paths start: {SELECTION}.")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--to", help="Where paths end; default: all targets.")
    ] = None,
    through: Annotated[
        list[str] | None,
        typer.Option(help="What paths pass through; several in their order along the path."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=MOST_PATHS, help="Number of paths.")] = 10,
    as_json: AsJson = False,
) -> None:
    """List the strongest paths from tokens to predictions, with a description of each."""
    opened = open_graph(graph)
    read = Graph.of(opened.graph, opened.annotations)
    found = read.paths(sources or (), targets or (), through or (), k)
    if as_json:
        descriptions = viz.describe_paths(
            read, (path.nodes for path in found.listed), read.annotations
        )
        print_json(
            {
                "flow": found.flow,
                "paths": [
                    {
                        "nodes": [str(read.nodes[row]) for row in path.nodes],
                        "weights": path.weights,
                        "share": path.share,
                        "sign": path.sign,
                        "coverage": covered,
                        "story": description,
                    }
                    for path, covered, description in zip(
                        found.listed, found.coverage, descriptions, strict=True
                    )
                ],
            }
        )
        return
    output.print(viz.paths_text(read, found, read.annotations))


@app.command("group")
def group_command(
    graph: GraphPath,
    tightness: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Least similarity of features in a group."),
    ] = GROUPING.tightness,
    profile: Annotated[
        Path | None, typer.Option(help="Profile of the dictionary: compare decoder rows as well.")
    ] = None,
    at_most: Annotated[
        int | None,
        typer.Option(
            "--at-most", min=0, help="Groups at most, of what pruning keeps; default: no limit."
        ),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Write the groups into the annotations beside the graph.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Group features that play the same role; groups made by hand are kept."""
    read, annotations, _ = open_graph(graph)
    annotations_file = graphs.annotations_path(graph)
    if save:
        require_outputs(output_to(annotations_file, Kind.ANNOTATIONS, "--save"), profile)
    known = None if profile is None else graphs.profile_of(read, profile)
    settings = graphs.GroupSettings(tightness=tightness)
    annotations = with_groups(read, annotations, settings, known, at_most)
    part = grouped_part(read, at_most)
    if save:
        annotations = keep_groups(part, annotations, annotations_file)
    collapsed = graphs.collapse(part, annotations.rows(part))
    whole = graphs.scores(part)
    if as_json:
        print_json(
            {
                "groups": [group.model_dump(mode="json") for group in annotations.groups],
                "arrived": dict(zip(collapsed.names, collapsed.arrived.tolist(), strict=True)),
                "scores": {"collapsed": asdict(collapsed.scores), "full": asdict(whole)},
                "file": str(annotations_file) if save else None,
            }
        )
        return
    automatic = {group.name: group.automatic for group in annotations.groups}
    output.print(viz.groups_text(part, collapsed, whole, automatic))
    if part is not read:
        print_line(f"Of {len(read):,} nodes, those that pruning keeps are grouped: {len(part):,}.")
    if save:
        print_line(f"annotations: {annotations_file}")


@app.command("consensus")
def consensus_command(
    files: Annotated[
        list[Path], typer.Argument(metavar="GRAPHS", help="Graph files of one dictionary.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Nodes and edges to show.")] = 15,
    level: Annotated[float, typer.Option(help="Confidence level of the intervals.")] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Find what graphs of several prompts have in common, with intervals over the prompts."""
    if len(files) < 2:
        raise UsageError(f"Expected at least two graph files, got {len(files)}.")
    if not 0.0 < level < 1.0:
        raise UsageError(f"--level must be between 0 and 1, got {level}.")
    read = [open_graph(file).graph for file in files]
    for file, graph in zip(files, read, strict=True):
        if graph.provenance.dictionary.name == UNKNOWN:
            raise UsageError(
                f"{file} does not name the dictionary of its features, so they cannot be found "
                "in the other graphs: leave it out."
            )
        if not same_dictionary(read[0], graph):
            raise UsageError(
                f"{files[0]} has features of {_of(read[0])}, {file} of {_of(graph)}: "
                "trace all with one dictionary."
            )
    found = graphs.consensus(read, level)
    if not as_json:
        output.print(viz.consensus_text(read[0], found, top))
        return
    print_json(
        {
            "prompts": len(read),
            "left_out": found.left_out,
            "nodes": [
                {"node": str(node), **numbers}
                for node, numbers in zip(found.nodes, _numbers(found.at_nodes), strict=True)
            ],
            "edges": [
                {"source": str(source), "target": str(target), **numbers}
                for (source, target), numbers in zip(
                    found.ends, _numbers(found.along_edges), strict=True
                )
            ],
            "heads": None
            if found.at_heads is None
            else [
                {"head": str(head), **numbers}
                for head, numbers in zip(found.heads, _numbers(found.at_heads), strict=True)
            ],
        }
    )


def _of(graph: graphs.AttributionGraph) -> str:
    return f"{graph.provenance.dictionary.name!r} in {graph.provenance.model.name!r}"


def _numbers(common: Common) -> list[dict[str, float]]:
    """One dictionary per row."""
    columns: dict[str, list[float]] = {
        name: getattr(common, name).tolist() for name in ("present", "mean", "low", "high")
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
