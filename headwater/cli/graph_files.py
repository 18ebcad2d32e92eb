"""Commands on graph files: show, prune, export, import."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import graphs
import viz
from circuits.model.loading import load_tokenizer
from circuits.model.spelling import spell as spell_token
from headwater.cli.app import app
from headwater.cli.options import (
    MOST,
    AsJson,
    EdgeScores,
    EdgeThreshold,
    Format,
    GraphPath,
    KeepErrors,
    NodeThreshold,
)
from headwater.cli.summary import scores_of_part, show_summary
from headwater.cli.usage import UsageError
from headwater.opened import open_graph
from headwater.outputs.places import Kind, Output, graph_files, output_to, require_outputs
from headwater.terminal.printing import output, print_json, print_line, remark

MIB = 2**20
WRITERS: dict[Format, Callable[[graphs.AttributionGraph, Path, graphs.Annotations], object]] = {
    Format.NODE_LINK: graphs.write_node_link,
    Format.GRAPHML: graphs.write_graphml,
    Format.GEXF: graphs.write_gexf,
    Format.DOT: graphs.write_dot,
    Format.PARQUET: graphs.write_parquet,
}
PRUNE = graphs.PruneSettings()  # defaults come from the settings, so that they cannot differ


@app.command("show")
def show_command(
    graph: GraphPath,
    per_layer: Annotated[int, typer.Option(min=1, max=MOST, help="Features shown per layer.")] = 3,
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
        show_feature(read, feature, as_json)
        return
    if why is not None:
        show_opposing(read, why, rival, as_json)
        return
    show_summary(read, as_json, {}, per_layer, annotations=annotations)
    raise typer.Exit(1 if read.provenance.failures else 0)


def show_feature(graph: graphs.AttributionGraph, name: str, as_json: bool) -> None:
    """Print a feature's description.  Raises UsageError if the graph has none."""
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
    output.print(viz.description_text(name, description), soft_wrap=True)


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
    out: Annotated[Path | None, typer.Option(help="Write the pruned graph here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of it here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Keep the nodes and edges with most influence."""
    outputs = (*output_to(out, Kind.GRAPH), *output_to(html, Kind.PAGE, "--html"))
    require_outputs(outputs, *graph_files(graph))
    settings = graphs.PruneSettings(node_threshold, edge_threshold, keep_errors, edge_scores.value)
    whole, annotations, _ = open_graph(graph)
    pruned = graphs.prune(whole, settings)
    if out is not None:
        graphs.write_graph(pruned, out)
        graphs.keep_annotations(annotations, out)
    if html is not None:
        viz.write_page(pruned, html, annotations)
    parts = scores_of_part(whole, pruned)
    written = {"graph": out, "page": html}
    show_summary(pruned, as_json, written, scores=parts, annotations=annotations)
    raise typer.Exit(1 if pruned.provenance.checks.failures else 0)


@app.command("export")
def export_command(
    graph: GraphPath,
    out: Annotated[Path, typer.Option(help="Write the export here.")],
    format: Annotated[Format, typer.Option(help="File format.")] = Format.NEURONPEDIA,
    full: Annotated[bool, typer.Option("--full", help="Do not prune first.")] = False,
    node_threshold: NodeThreshold = PRUNE.node_threshold,
    edge_threshold: EdgeThreshold = PRUNE.edge_threshold,
    keep_errors: KeepErrors = False,
    slug: Annotated[
        str | None,
        typer.Option(help="Name on Neuronpedia; default: as imported, else the file's name."),
    ] = None,
    scan: Annotated[
        str | None,
        typer.Option(help="Neuronpedia's id of the model; default: as imported, else by its name."),
    ] = None,
    largest: Annotated[
        int,
        typer.Option(
            min=1, max=MOST, help="Largest file for Neuronpedia in MiB; the graph is pruned to fit."
        ),
    ] = graphs.LARGEST_UPLOAD // MIB,
    as_json: AsJson = False,
) -> None:
    """Write a graph, pruned unless --full, in a format that other tools read."""
    files = graphs.parquet_paths(out) if format == Format.PARQUET and out.name else (out,)
    outputs = [Output(file, Kind[format.name]) for file in files]
    require_outputs(outputs, *graph_files(graph))
    whole, annotations, _ = open_graph(graph)
    settings = graphs.PruneSettings(node_threshold, edge_threshold, keep_errors)
    part = whole if full else graphs.prune(whole, settings)
    complaints: list[str] = []
    if format == Format.NEURONPEDIA:
        upload = graphs.Upload(slug or None, scan or None, None if full else node_threshold)
        part = graphs.write_neuronpedia(part, out, upload, annotations, whole, largest * MIB)
        complaints = graphs.upload_problems(part, out, upload)
    else:
        WRITERS[format](part, out, annotations)
    if as_json:
        counts = {"n_nodes": len(part), "n_edges": part.weights.nnz, **graphs.hidden(part, whole)}
        print_json({**counts, "files": [str(file) for file in files], "complaints": complaints})
        return
    text = (
        f"{len(part):,} of {len(whole):,} nodes and {part.weights.nnz:,} of "
        f"{whole.weights.nnz:,} edges in {' and '.join(map(str, files))}"
    )
    print_line(text)
    for sentence in complaints:
        print_line(sentence)


@app.command("import")
def import_command(
    graph: GraphPath,
    out: Annotated[Path, typer.Option(help="Write the graph here (.safetensors).")],
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Model whose tokenizer decodes the token ids of a .pt file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert another program's graph to ours, with its annotations in a file beside it."""
    require_outputs(output_to(out, Kind.GRAPH), *graph_files(graph), tokenizer)
    annotations_file = graphs.annotations_path(out)
    if tokenizer is not None and graph.suffix != ".pt":
        raise UsageError("--tokenizer is for .pt files, which have token ids only: leave it out.")
    spelled_by = None if tokenizer is None else load_tokenizer(tokenizer)
    spell = None if spelled_by is None else partial(spell_token, tokenizer=spelled_by)
    read, annotations, _ = open_graph(graph, spell)
    graphs.write_graph(read, out)
    stored = graphs.keep_annotations(annotations, out)
    if as_json:
        files = [str(out), *([str(annotations_file)] if stored else [])]
        print_json({"n_nodes": len(read), "n_edges": read.weights.nnz, "files": files})
        return
    text = f"{len(read):,} nodes and {read.weights.nnz:,} edges in {out}"
    print_line(text)
    if annotations != graphs.NO_ANNOTATIONS:
        print_line(f"annotations: {annotations_file}{'' if stored else ' (existing file kept)'}")
