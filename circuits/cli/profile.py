"""The command that profiles a model's features over prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

import graphs
from circuits.cli.app import app, errors, plain_errors, print_json, say
from circuits.cli.opened import open_graph
from circuits.cli.openings import say_mismatches
from circuits.cli.options import (
    AsJson,
    BosRule,
    ContextOnly,
    Device,
    DType,
    FeatureKind,
    Fill,
    MaxFeatures,
    ReadAt,
    Revision,
    Transcoders,
    Type,
    WriteAt,
)
from circuits.cli.outputs import Kind, graph_files, output_to, require_outputs
from circuits.cli.trace import EXPANSION, Points, read_source
from circuits.profile import profile, read_texts
from circuits.progress import progress_bar
from circuits.subject import read_subject
from circuits.tokens import DEFAULT_RULE, PromptRule, read_prompt


@app.command("profile")
@plain_errors
def profile_command(
    model: Annotated[str, typer.Argument(help="Model, as for `headwater trace --model`.")],
    prompts: Annotated[Path, typer.Argument(help="Text file with one prompt a line.")],
    out: Annotated[Path, typer.Option(help="Write the profile here (.safetensors).")],
    of: Annotated[
        list[Path] | None, typer.Option(help="Only features of this graph; repeatable.")
    ] = None,
    revision: Revision = None,
    transcoders: Transcoders = None,
    read_at: ReadAt = None,
    write_at: WriteAt = None,
    fill: Fill = None,
    features: FeatureKind = None,
    max_features: MaxFeatures = EXPANSION.max_features,
    bos: BosRule = DEFAULT_RULE.bos,
    context_only: ContextOnly = DEFAULT_RULE.context_only,
    dtype: Type = DType.FLOAT32,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Record what features do over prompts, so that `headwater compare` can match two models."""
    read = (prompts, *graph_files(*(of or ())), model, transcoders)
    require_outputs(output_to(out, Kind.PROFILE), *read)
    texts = read_texts(prompts)
    wanted = set[tuple[int, int]]()
    for path in of or ():
        graph = open_graph(path).graph
        nodes = graph.nodes.take(graph.nodes.is_kind(graphs.NodeKind.FEATURE).nonzero()[0])
        wanted |= set(zip(nodes.layer.tolist(), nodes.index.tolist(), strict=True))
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        points = Points(read_at, write_at, fill is not None)
        source = read_source(subject, transcoders, features, max_features, points)
        rule = PromptRule(bos, context_only)
        say_mismatches((read_prompt(text, subject.tokenizer, rule) for text in texts), source)
        made = profile(subject, source, texts, wanted if of else None, progress, rule)
    graphs.write_profile(made, out)
    counts = {
        "features": len(made.layer),
        "prompts": len(texts),
        "tokens": made.activation.shape[1],
    }
    if as_json:
        print_json({**counts, "file": str(out)})
        return
    text = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    say(f"{text} in {out}")
