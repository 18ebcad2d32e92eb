"""The command that records feature activations over prompts: profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import circuits
import graphs
from circuits.model.data_type import DType
from circuits.model.prompt_rule import DEFAULT_RULE
from circuits.progress import progress_bar
from headwater.arguments.files import file_option
from headwater.arguments.options import (
    AsJson,
    BosRule,
    Device,
    FeatureKind,
    Fill,
    MaxFeatures,
    PrefixLength,
    ReadAt,
    Revision,
    Transcoders,
    Type,
    WriteAt,
    source_choice,
)
from headwater.arguments.prompted import INPUT, standard_input
from headwater.cli.app import app
from headwater.cli.trace import EXPANSION
from headwater.opened import open_graph
from headwater.openings import rule_beside
from headwater.outputs.places import Kind, graph_files, output_to, require_outputs
from headwater.terminal.opening_remarks import remark_mismatches
from headwater.terminal.printing import errors, print_json, print_line


@app.command("profile")
def profile_command(
    model: Annotated[str, typer.Argument(help="Model, as for `headwater trace --model`.")],
    prompts: Annotated[
        Path, typer.Argument(help="Text file with a prompt per line, or - for standard input.")
    ],
    out: Annotated[Path, file_option("--out", help="Write the profile here.")],
    of: Annotated[
        list[Path] | None, typer.Option(help="Only the features of this graph; repeatable.")
    ] = None,
    revision: Revision = None,
    transcoders: Transcoders = None,
    read_at: ReadAt = None,
    write_at: WriteAt = None,
    fill: Fill = None,
    features: FeatureKind = None,
    max_features: MaxFeatures = EXPANSION.max_features,
    bos: BosRule = DEFAULT_RULE.bos,
    n_prefix: PrefixLength = DEFAULT_RULE.n_prefix,
    dtype: Type = DType.FLOAT32,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Record feature activations over prompts, by which `headwater compare` matches two models."""
    read = (prompts, *graph_files(*(of or ())), model, transcoders)
    require_outputs(output_to(out, Kind.PROFILE), *read)
    given = standard_input(prompts)
    texts = circuits.read_texts(prompts) if given is None else circuits.texts_in(given, INPUT)
    wanted = set[tuple[int, int]]()
    for path in of or ():
        graph = open_graph(path).graph
        nodes = graph.nodes.take(graph.nodes.is_kind(graphs.NodeKind.FEATURE).nonzero()[0])
        wanted |= set(zip(nodes.layer.tolist(), nodes.index.tolist(), strict=True))
    choice = source_choice(transcoders, features, max_features, read_at, write_at, fill)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = circuits.read_subject(model, revision=revision, dtype=dtype, device=device)
        source = circuits.read_source(subject, choice)
        rule = rule_beside(source, bos, n_prefix)
        remark_mismatches(
            (circuits.read_prompt(text, subject.tokenizer, rule) for text in texts), source
        )
        made = circuits.profile(subject, source, texts, wanted if of else None, progress, rule)
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
    print_line(f"{text} in {out}")
