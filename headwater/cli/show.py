"""Commands that show and prune one graph: show, prune."""

from __future__ import annotations

import re
from typing import Annotated

import typer

import graphs
import viz
from graphs.naming.names import Names, feature_label
from headwater.arguments.options import (
    AsJson,
    EdgeScores,
    EdgeThreshold,
    GraphOut,
    GraphPath,
    KeepErrors,
    NodeThreshold,
    PageOut,
)
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.opened import open_graph
from headwater.outputs.formats import graph_output, write_both
from headwater.outputs.places import Kind, graph_files, output_to, require_outputs
from headwater.terminal.printing import output, print_json, remark
from headwater.terminal.summary import scores_of_part, show_summary

PRUNE = graphs.PruneSettings()  # defaults come from the settings, so that they cannot differ


@app.command("show")
def show_command(
    graph: GraphPath,
    per_layer: Annotated[int, typer.Option(min=1, help="Features shown per layer.")] = 3,
    feature: Annotated[
        str | None, typer.Option(help="LAYER/INDEX: show the description of this feature instead.")
    ] = None,
    why: Annotated[
        str | None,
        typer.Option(help="TOKEN: show the features that promote or suppress this prediction."),
    ] = None,
    rival: Annotated[
        str | None, typer.Option("--not", help="TOKEN: with --why, contrast with this prediction.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a graph: prompt, predictions, strongest nodes per layer, scores, checks."""
    if feature is not None and why is not None:
        raise UsageError("--feature and --why exclude each other: give one of them.")
    if rival is not None and why is None:
        raise UsageError("--not needs --why: give the prediction to contrast it with.")
    read, annotations, _ = open_graph(graph)
    if feature is not None:
        show_feature(Names(read, annotations), feature, as_json)
        return
    if why is not None:
        show_opposing(read, why, rival, as_json)
        return
    show_summary(read, as_json, {}, per_layer, annotations=annotations)
    raise typer.Exit(1 if read.provenance.failures else 0)


def show_feature(names: Names, name: str, as_json: bool) -> None:
    """Print a feature's description.  Raises UsageError if the graph has none."""
    graph, node = names.graph, name.removeprefix("feature:")  # a node's name will do
    name = re.sub(r"@\d+$", "", node)
    description = graph.descriptions.get(name)
    if description is None:
        known = ", ".join(sorted(graph.descriptions)[:3])
        raise UsageError(
            f"The graph has no description of {name!r}: "
            + (
                f"name one of its {len(graph.descriptions)} described features, as in {known}."
                if known
                else "its dictionary came without feature files."
            )
        )
    if as_json:
        print_json(description.model_dump(mode="json"))
        return
    output.print(viz.description_text(name, description, feature_label(names, node)))


def show_opposing(
    graph: graphs.AttributionGraph, target: str, rival: str | None, as_json: bool
) -> None:
    """Print the features that promote a prediction, suppress it, or suppress its rival."""
    found = graphs.opposing(graph, target, rival)
    for sentence in found.remarks:
        remark(sentence)
    if as_json:
        print_json(found.as_json())
        return
    output.print(viz.opposing_text(found, target, rival))


@app.command("prune")
def prune_command(
    graph: GraphPath,
    node_threshold: NodeThreshold = PRUNE.node_threshold,
    edge_threshold: EdgeThreshold = PRUNE.edge_threshold,
    keep_errors: KeepErrors = False,
    edge_scores: Annotated[
        EdgeScores,
        typer.Option(help="full: rank edges on the full graph; kept: on kept nodes, as published."),
    ] = EdgeScores.FULL,
    patterns: Annotated[
        bool,
        typer.Option(
            "--patterns",
            help="What makes heads look where they look carries influence too: needs a trace with "
            "--attention scores.",
        ),
    ] = False,
    out: GraphOut = None,
    html: PageOut = None,
    as_json: AsJson = False,
) -> None:
    """Keep the nodes and edges with most influence."""
    outputs = (*graph_output(out), *output_to(html, Kind.PAGE, "--html"))
    require_outputs(outputs, *graph_files(graph))
    settings = graphs.PruneSettings(
        node_threshold, edge_threshold, keep_errors, edge_scores.value, patterns
    )
    whole, annotations, _ = open_graph(graph)
    pruned = graphs.prune(whole, settings)
    written = write_both(pruned, out, html, annotations, graph)
    parts = scores_of_part(whole, pruned)
    show_summary(pruned, as_json, written, scores=parts, annotations=annotations)
    raise typer.Exit(1 if pruned.provenance.checks.failures else 0)
