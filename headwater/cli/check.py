"""The command that tests a graph in its model: check."""

from __future__ import annotations

from typing import Annotated

import typer

import circuits
import graphs
import viz
from circuits.evaluation.evaluation_settings import CheckSettings
from circuits.graph_files.opened import is_ours
from circuits.progress import progress_bar
from graphs.formats.updates import keep_report
from headwater.arguments.options import (
    MOST_DRAWN,
    AsJson,
    Device,
    EdgeThreshold,
    GraphPath,
    NodeThreshold,
    TracedModel,
    TracedTranscoders,
)
from headwater.cli.app import app
from headwater.opened import open_graph
from headwater.outputs.kept import storing_error
from headwater.outputs.places import Kind, output_to, require_outputs
from headwater.terminal.printing import errors, output, print_json, print_line

# Defaults come from the settings, so that they cannot differ.
SETTINGS, PRUNING = CheckSettings(), graphs.PruneSettings()


@app.command("check")
def check_command(
    graph: GraphPath,
    features: Annotated[
        int,
        typer.Option(min=1, help="Features of highest influence, each ablated alone."),
    ] = SETTINGS.features,
    random_sets: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_DRAWN,
            help="Random sets of the circuit's size and layers, for the null.",
        ),
    ] = SETTINGS.random_sets,
    adversarial: Annotated[
        int,
        typer.Option(
            min=0,
            help="Features outside the circuit, found in the model to change most; 0: none.",
        ),
    ] = SETTINGS.adversarial,
    node_threshold: NodeThreshold = PRUNING.node_threshold,
    edge_threshold: EdgeThreshold = PRUNING.edge_threshold,
    model: TracedModel = None,
    transcoders: TracedTranscoders = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Test in the model whether a graph holds, and store the report in the graph's file."""
    read, ours = open_graph(graph).graph, is_ours(graph)
    if ours:
        require_outputs(output_to(graph, Kind.GRAPH), model, transcoders)
    settings = CheckSettings(
        features=features,
        random_sets=random_sets,
        adversarial=adversarial,
        prune=graphs.PruneSettings(node_threshold=node_threshold, edge_threshold=edge_threshold),
    )
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        report = circuits.check(
            circuits.experiment_on(read, model, transcoders, device), settings, progress
        )
    failures = read.with_report(report).provenance.failures
    problem = storing_error(lambda: keep_report(graph, read, report)) if ours else None
    if as_json:
        file = str(graph) if ours and problem is None else None
        found = {"report": report.model_dump(mode="json"), "remarks": report.remarks}
        print_json({**found, "failures": failures, "file": file})
    else:
        output.print(viz.report_table(report))
        for failure in failures:
            print_line(failure, "bold red")
        if problem is None:
            foreign = f"{graph} is another program's file: the report is not stored in it."
            print_line(f"graph: {graph}" if ours else foreign)
    if problem is not None:
        raise problem
    raise typer.Exit(1 if failures else 0)
