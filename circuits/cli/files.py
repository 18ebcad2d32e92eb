"""Commands on graph files: show, prune, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import graphs
import viz
from circuits.cli.app import app, output, plain_errors, print_json
from circuits.cli.options import (
    AsJson,
    EdgeScores,
    EdgeThreshold,
    Format,
    GraphPath,
    KeepErrors,
    NodeThreshold,
)
from circuits.cli.summary import scores_of_part, show_summary
from circuits.cli.usage import UsageError, require_places

PRUNE = graphs.PruneSettings()  # defaults come from the settings, so that they cannot differ


@app.command("show")
@plain_errors
def show_command(
    graph: GraphPath,
    per_layer: Annotated[int, typer.Option(min=1, help="Features shown per layer.")] = 3,
    feature: Annotated[
        str | None, typer.Option(help="LAYER/INDEX: what is known about this feature instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a graph: prompt, predictions, strongest nodes per layer, scores, checks."""
    read = graphs.read_graph(graph)
    if feature is not None:
        show_feature(read, feature, as_json)
        return
    show_summary(read, as_json, {}, per_layer)
    raise typer.Exit(1 if read.provenance.checks.failures else 0)


def show_feature(graph: graphs.AttributionGraph, name: str, as_json: bool) -> None:
    """Print a feature's description.  Raises UsageError if the graph has none."""
    description = graph.descriptions.get(name)
    if description is None:
        known = ", ".join(sorted(graph.descriptions)[:3])
        raise UsageError(
            f"The graph holds no description of {name!r}: "
            + (
                f"name one of its {len(graph.descriptions)} described features, as in {known}."
                if known
                else "its dictionary came without feature files."
            )
        )
    if as_json:
        print_json(description.model_dump(mode="json"))
        return
    output.print(viz.description_text(name, description), soft_wrap=True)


@app.command("prune")
@plain_errors
def prune_command(
    graph: GraphPath,
    node_threshold: NodeThreshold = PRUNE.node_threshold,
    edge_threshold: EdgeThreshold = PRUNE.edge_threshold,
    keep_errors: KeepErrors = False,
    edge_scores: Annotated[
        EdgeScores, typer.Option(help="full: ranked once; kept: again on kept nodes, as published.")
    ] = EdgeScores.FULL,
    out: Annotated[Path | None, typer.Option(help="Write the pruned graph here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of it here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Keep the nodes and edges that carry most influence."""
    require_places(out, html)
    settings = graphs.PruneSettings(node_threshold, edge_threshold, keep_errors, edge_scores.value)
    whole = graphs.read_graph(graph)
    pruned = graphs.prune(whole, settings)
    if out is not None:
        graphs.write_graph(pruned, out)
    if html is not None:
        viz.write_page(pruned, html)
    parts = scores_of_part(whole, pruned)
    show_summary(pruned, as_json, {"graph": out, "page": html}, scores=parts)
    raise typer.Exit(1 if pruned.provenance.checks.failures else 0)


@app.command("export")
@plain_errors
def export_command(
    graph: GraphPath,
    out: Annotated[Path, typer.Option(help="Write the export here.")],
    format: Annotated[Format, typer.Option(help="File format.")] = Format.NEURONPEDIA,
    full: Annotated[bool, typer.Option("--full", help="Do not prune first.")] = False,
    node_threshold: NodeThreshold = PRUNE.node_threshold,
    edge_threshold: EdgeThreshold = PRUNE.edge_threshold,
    keep_errors: KeepErrors = False,
    slug: Annotated[str | None, typer.Option(help="Name on Neuronpedia; else the file's.")] = None,
    scan: Annotated[str | None, typer.Option(help="Neuronpedia's id of the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a graph, pruned unless --full, in a format that other tools read."""
    require_places(out)
    whole = graphs.read_graph(graph)
    settings = graphs.PruneSettings(node_threshold, edge_threshold, keep_errors)
    chosen = whole if full else graphs.prune(whole, settings)
    if format == Format.NEURONPEDIA:
        graphs.write_neuronpedia(
            chosen,
            out,
            slug=slug or out.stem,
            scan=scan,
            node_threshold=None if full else node_threshold,
        )
    elif format == Format.NODE_LINK:
        graphs.write_node_link(chosen, out)
    else:
        graphs.write_graphml(chosen, out)
    if as_json:
        print_json({"n_nodes": len(chosen), "n_edges": chosen.weights.nnz, "file": str(out)})
        return
    text = f"{len(chosen):,} nodes and {chosen.weights.nnz:,} edges in {out}"
    output.print(text, markup=False, soft_wrap=True)
