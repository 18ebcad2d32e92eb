"""The command line: trace, show, prune, export, estimate.

Exit codes: 0 done, 1 done but a check failed, 2 bad usage or bad input.  Bad input is answered
with one sentence on standard error; nothing is written without --out or --html.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import numpy as np
import torch
import typer
from rich.console import Console

import graphs
import viz
from circuits.architectures import UnsupportedArchitecture
from circuits.expand import Expansion
from circuits.features import FeatureSource
from circuits.frozen import DamagedWeights
from circuits.models import ModelNotFound
from circuits.neurons import Neurons
from circuits.options import (
    Against,
    AsJson,
    Chat,
    Device,
    DType,
    EdgeScores,
    EdgeThreshold,
    Everything,
    FeatureKind,
    Format,
    GraphPath,
    KeepErrors,
    KeptShare,
    Mass,
    MaxFeatures,
    MaxLogits,
    Model,
    NodeThreshold,
    Position,
    Prompted,
    Revision,
    TargetTokens,
    Tolerance,
    Transcoders,
    Type,
)
from circuits.progress import progress_bar
from circuits.subject import DeviceError, Subject, read_subject
from circuits.targets import TargetSettings
from circuits.tokens import PromptError, TargetError, read_prompt, single_token
from circuits.trace import TraceSettings, estimate_trace, trace
from circuits.transcoders import DictionaryMismatch
from circuits.usage import UsageError, require_consistent, require_places
from circuits.weights import WeightsFormatError, read_transcoders

DEFAULT_MODEL = "gemma-3-270m"

app = typer.Typer(
    help="Circuit tracing and attribution graphs for language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# Where there is no terminal there is no width either: wide enough for a whole line.
output = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


P = ParamSpec("P")
R = TypeVar("R")
INPUT_ERRORS = (
    DamagedWeights,
    DeviceError,
    DictionaryMismatch,
    ModelNotFound,
    PromptError,
    TargetError,
    UnsupportedArchitecture,
    UsageError,
    WeightsFormatError,
    graphs.GraphFileError,
)


# Defaults come from the settings themselves, so that they cannot differ.
TARGETS, EXPANSION, PRUNE = TargetSettings(), Expansion(), graphs.PruneSettings()


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Answer bad input with one sentence and exit code 2."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except INPUT_ERRORS as error:
            errors.print(f"headwater: {error}", markup=False)
            raise typer.Exit(2) from error

    return run


@app.command("trace")
@plain_errors
def trace_command(
    prompt: Prompted,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    transcoders: Transcoders = None,
    features: FeatureKind = None,
    target: TargetTokens = None,
    against: Against = None,
    position: Position = TARGETS.position,
    max_logits: MaxLogits = TARGETS.max_logits,
    probability_mass: Mass = TARGETS.probability_mass,
    max_features: MaxFeatures = EXPANSION.max_features,
    tolerance: Tolerance = EXPANSION.tolerance,
    kept_share: KeptShare = EXPANSION.kept_share,
    everything: Everything = False,
    chat: Chat = False,
    dtype: Type = DType.FLOAT32,
    device: Device = "cpu",
    out: Annotated[Path | None, typer.Option(help="Write the graph here (.safetensors).")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Trace a prompt: which features, at which layers and tokens, made the prediction."""
    require_places(out, html)
    require_consistent(
        transcoders=transcoders, features=features, targets=target or [], against=against
    )
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        spelled = subject.tokenizer
        settings = TraceSettings(
            targets=TargetSettings(
                tokens=tuple(single_token(text, spelled) for text in target or ()),
                against=None if against is None else single_token(against, spelled),
                position=position,
                probability_mass=probability_mass,
                max_logits=max_logits,
            ),
            expansion=Expansion(max_features, tolerance, kept_share, everything),
        )
        source = read_source(subject, transcoders, max_features)
        graph = trace(read_prompt(prompt, spelled, chat=chat), subject, source, settings, progress)
        progress("write", 0, 1)
        if out is not None:
            graphs.write_graph(graph, out)
        if html is not None:
            viz.write_page(graphs.prune(graph), html)
    show_summary(graph, as_json, {"graph": out, "page": html})
    raise typer.Exit(1 if graph.provenance.checks.failures else 0)


@app.command("estimate")
@plain_errors
def estimate_command(
    prompt: Prompted,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    transcoders: Transcoders = None,
    features: FeatureKind = None,
    max_features: MaxFeatures = EXPANSION.max_features,
    everything: Everything = False,
    chat: Chat = False,
    dtype: Type = DType.FLOAT32,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Say what a trace will cost: features, rows, seconds and peak memory."""
    require_consistent(transcoders=transcoders, features=features, targets=[], against=None)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        source = read_source(subject, transcoders, max_features)
        text = read_prompt(prompt, subject.tokenizer, chat=chat)
        expansion = Expansion(max_features=max_features, everything=everything)
        cost = estimate_trace(text, subject, source, TraceSettings(expansion=expansion), progress)
    if as_json:
        print_json(asdict(cost))
        return
    output.print(
        f"{cost.active_features:,} active features, {cost.rows:,} rows, "
        f"{cost.flops / 1e9:,.0f} GFLOP at {cost.gflops_per_second:,.0f} GFLOP/s\n"
        f"about {cost.seconds:.1f} s after loading, {cost.peak_bytes / 2**30:.1f} GiB at the peak"
    )


@app.command("show")
@plain_errors
def show_command(
    graph: GraphPath,
    per_layer: Annotated[int, typer.Option(min=1, help="Features shown per layer.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show a graph: prompt, predictions, strongest nodes per layer, scores, checks."""
    read = graphs.read_graph(graph)
    show_summary(read, as_json, {}, per_layer)
    raise typer.Exit(1 if read.provenance.checks.failures else 0)


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


def read_source(subject: Subject, transcoders: Path | None, max_features: int) -> FeatureSource:
    """Transcoders from a folder, or the model's own neurons."""
    if transcoders is None:
        return Neurons(max_features)
    frozen = subject.frozen
    read = read_transcoders(transcoders, dtype=frozen.dtype, device=frozen.device)
    read.require_fit(frozen)
    return read


def show_summary(
    graph: graphs.AttributionGraph,
    as_json: bool,
    written: dict[str, Path | None],
    per_layer: int = 3,
    scores: dict[str, graphs.Scores] | None = None,
) -> None:
    """Print a graph's summary, scores of its parts and what was written."""
    summary = graphs.summarise(graph, per_layer)
    files = {name: str(path) for name, path in written.items() if path is not None}
    if as_json:
        parts = {name: asdict(found) for name, found in (scores or {}).items()}
        print_json({**summary.as_json(), "files": files, "scores_by_convention": parts})
        return
    output.print(viz.summary_tables(summary))
    for name, found in (scores or {}).items():
        output.print(
            f"{name}: replacement {found.replacement:.3f}, completeness {found.completeness:.3f}"
        )
    for name, path in files.items():
        output.print(f"{name}: {path}", markup=False, soft_wrap=True)


def print_json(data: dict[str, object]) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(data) + "\n")


def scores_of_part(
    whole: graphs.AttributionGraph, part: graphs.AttributionGraph
) -> dict[str, graphs.Scores]:
    """Scores of the full graph and of a pruned one, in both conventions."""
    kept = np.zeros(len(whole), dtype=bool)
    kept[[whole.find(node) for node in part.nodes]] = True
    return {
        "full graph": graphs.scores(whole),
        "kept nodes, the rest absorbed into errors": graphs.scores(whole, kept, "absorbed"),
        "kept nodes, the rest left out": graphs.scores(whole, kept, "renormalised"),
    }


def main() -> None:
    """Entry point of the `headwater` command."""
    app()
