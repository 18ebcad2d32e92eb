"""Commands that exchange graphs with other programs: export, import."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import circuits
import graphs
from graphs.formats.neuronpedia.contents import Upload, hidden
from graphs.formats.neuronpedia.writer import LARGEST_UPLOAD, upload_problems
from graphs.formats.updates import keep_annotations
from headwater.arguments.files import file_option
from headwater.arguments.options import (
    EDGES_KEPT,
    NODES_KEPT,
    AsJson,
    GraphPath,
    KeepErrors,
)
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.opened import open_graph
from headwater.outputs.formats import (
    Format,
    FormatError,
    format_of,
    outputs_of,
    write_as,
)
from headwater.outputs.places import Kind, graph_files, output_to, require_outputs
from headwater.terminal.printing import print_json, print_line

MIB = 2**20
PRUNE = graphs.PruneSettings()  # defaults come from the settings, so that they cannot differ


@app.command("export")
def export_command(
    graph: GraphPath,
    out: Annotated[Path, file_option("--out", help="Write the export here.")],
    format: Annotated[
        Format | None, typer.Option(help="File format; default: by the suffix of --out.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Do not prune first, nor is a pruned graph unless asked."),
    ] = False,
    node_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help=f"{NODES_KEPT[:-1]}; default: {PRUNE.node_threshold:g}."
        ),
    ] = None,
    edge_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help=f"{EDGES_KEPT[:-1]}; default: {PRUNE.edge_threshold:g}."
        ),
    ] = None,
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
            min=1, help="Largest file for Neuronpedia in MiB; the graph is pruned to fit."
        ),
    ] = LARGEST_UPLOAD // MIB,
    as_json: AsJson = False,
) -> None:
    """Write a graph, pruned unless --full, in a format that other tools read."""
    format = format or format_of(out)
    outputs = outputs_of(format or Format.NEURONPEDIA, out)
    require_outputs(outputs, *graph_files(graph))
    if format is None:
        raise FormatError(
            f"{out} is not the name of an export: give --format, or a suffix as in .json. Our own "
            "files are written by `headwater prune`, pages by `headwater view`."
        )
    whole, annotations, _ = open_graph(graph)
    settings = graphs.PruneSettings(
        PRUNE.node_threshold if node_threshold is None else node_threshold,
        PRUNE.edge_threshold if edge_threshold is None else edge_threshold,
        keep_errors,
    )
    asked = node_threshold is not None or edge_threshold is not None or keep_errors
    as_it_is = full or (whole.is_part and not asked)
    pruned = whole if as_it_is else graphs.prune(whole, settings)
    complaints: list[str] = []
    if format == Format.NEURONPEDIA:
        start = None if as_it_is else settings.node_threshold
        upload = Upload(slug or None, scan or None, start)
        part = graphs.write_neuronpedia(pruned, out, upload, annotations, whole, largest * MIB)
        complaints = upload_problems(part, out, upload)
    else:
        write_as(part := pruned, out, annotations, format)
    files = [str(one.path) for one in outputs]
    if as_json:
        counts = {"n_nodes": len(part), "n_edges": part.weights.nnz, **hidden(part, whole)}
        print_json({**counts, "files": files, "complaints": complaints})
        return
    text = (
        f"{len(part):,} of {len(whole):,} nodes and {part.weights.nnz:,} of "
        f"{whole.weights.nnz:,} edges in {' and '.join(files)}"
    )
    if len(part) < len(pruned):
        text += f": pruned to fit into {largest:,} MiB; --largest allows more"
    elif len(part) < len(whole):
        kept = f"{settings.node_threshold:.0%} of the influence"
        text += f": pruned to {kept}; --full keeps everything"
    print_line(text)
    for sentence in complaints:
        print_line(sentence)


@app.command("import")
def import_command(
    graph: GraphPath,
    out: Annotated[Path, file_option("--out", help="Write the graph here (.safetensors).")],
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
    stored = keep_annotations(annotations.made_of(read), out)
    if as_json:
        files = [str(out), *([str(annotations_file)] if stored else [])]
        print_json({"n_nodes": len(read), "n_edges": read.weights.nnz, "files": files})
        return
    text = f"{len(read):,} nodes and {read.weights.nnz:,} edges in {out}"
    print_line(text)
    if annotations != graphs.NO_ANNOTATIONS:
        print_line(f"annotations: {annotations_file}{'' if stored else ' (existing file kept)'}")
