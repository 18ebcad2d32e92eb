"""Commands that exchange graphs with other programs: export, import."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import circuits
import graphs
from headwater.arguments.options import (
    MOST,
    AsJson,
    EdgeThreshold,
    GraphPath,
    KeepErrors,
    NodeThreshold,
)
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.opened import open_graph
from headwater.outputs.formats import Format, format_of, write_as
from headwater.outputs.places import Kind, Output, graph_files, output_to, require_outputs
from headwater.terminal.printing import print_json, print_line

MIB = 2**20
PRUNE = graphs.PruneSettings()  # defaults come from the settings, so that they cannot differ


@app.command("export")
def export_command(
    graph: GraphPath,
    out: Annotated[Path, typer.Option(help="Write the export here.")],
    format: Annotated[
        Format | None, typer.Option(help="File format; default: by the suffix of --out.")
    ] = None,
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
    format = format or format_of(out) or Format.NEURONPEDIA
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
        write_as(format, part, out, annotations)
    if as_json:
        counts = {"n_nodes": len(part), "n_edges": part.weights.nnz, **graphs.hidden(part, whole)}
        print_json({**counts, "files": [str(file) for file in files], "complaints": complaints})
        return
    text = (
        f"{len(part):,} of {len(whole):,} nodes and {part.weights.nnz:,} of "
        f"{whole.weights.nnz:,} edges in {' and '.join(map(str, files))}"
    )
    if len(part) < len(whole) and not full:
        text += f": pruned to {node_threshold:.0%} of the influence; --full keeps everything"
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
    spelled_by = None if tokenizer is None else circuits.load_tokenizer(tokenizer)
    spell = None if spelled_by is None else partial(circuits.spell, tokenizer=spelled_by)
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
