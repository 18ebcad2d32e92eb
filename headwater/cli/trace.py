"""Commands on prompts: trace, estimate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

import graphs
import viz
from circuits.attribution.rows import Expansion
from circuits.attribution.target_names import named_targets
from circuits.attribution.targets import TargetSettings
from circuits.features.files.source import read_source
from circuits.machine import gigabytes
from circuits.model.prompt import DEFAULT_RULE, PromptRule, read_prompt
from circuits.model.subject import read_subject
from circuits.pipe import TraceSettings, estimate_trace, trace
from circuits.progress import progress_bar
from circuits.recording.attention import Precision
from headwater.cli.app import app
from headwater.cli.opening_remarks import remark_mismatches, remark_once
from headwater.cli.options import (
    Against,
    AsJson,
    BosRule,
    Chat,
    Device,
    DType,
    Everything,
    FeatureKind,
    Fill,
    Force,
    HowPrecise,
    KeptShare,
    Mass,
    MaxFeatures,
    MaxLogits,
    Memory,
    Model,
    Position,
    PrefixLength,
    ReadAt,
    Revision,
    TargetTokens,
    Tolerance,
    Transcoders,
    Type,
    WriteAt,
    in_bytes,
    source_choice,
)
from headwater.cli.prompted import Prompted, PromptFile, given_prompt
from headwater.cli.summary import show_summary
from headwater.cli.usage import require_consistent
from headwater.outputs.places import Kind, output_to, require_outputs
from headwater.terminal.printing import errors, output, print_json

DEFAULT_MODEL = "atlas-large"
# Defaults come from the settings themselves, so that they cannot differ.
TARGETS, EXPANSION = TargetSettings(), Expansion()


@app.command("trace")
def trace_command(
    prompt: Prompted = None,
    prompt_file: PromptFile = None,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    transcoders: Transcoders = None,
    read_at: ReadAt = None,
    write_at: WriteAt = None,
    fill: Fill = None,
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
    bos: BosRule = DEFAULT_RULE.bos,
    n_prefix: PrefixLength = DEFAULT_RULE.n_prefix,
    dtype: Type = DType.FLOAT32,
    device: Device = "auto",
    precision: HowPrecise = Precision.IEEE,
    memory: Memory = None,
    force: Force = False,
    out: Annotated[Path | None, typer.Option(help="Write the graph here (.safetensors).")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Trace a prompt: which features, at which layers and tokens, led to the prediction."""
    written = (*output_to(out, Kind.GRAPH), *output_to(html, Kind.PAGE, "--html"))
    require_outputs(written, model, transcoders, prompt_file)
    given = given_prompt(prompt, prompt_file)
    require_consistent(
        transcoders=transcoders, features=features, targets=target or [], against=against
    )
    choice = source_choice(transcoders, features, max_features, read_at, write_at, fill)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        expansion = Expansion(max_features, tolerance, kept_share, everything)
        source = read_source(subject, choice, in_bytes(memory))
        text = read_prompt(given, subject.tokenizer, PromptRule(bos, n_prefix), chat=chat)
        remark_mismatches([text], source)
        target_settings = TargetSettings(
            position=position, probability_mass=probability_mass, max_logits=max_logits
        )
        targets, remarks = named_targets(subject, text, target or (), against, target_settings)
        remark_once(remarks)
        settings = TraceSettings(targets, expansion, precision=precision, memory=in_bytes(memory))
        graph = trace(text, subject, source, settings, progress, force=force)
        progress("write", 0, 1)
        if out is not None:
            graphs.write_graph(graph, out)
        if html is not None:
            viz.write_page(graph, html)
    show_summary(graph, as_json, {"graph": out, "page": html})
    raise typer.Exit(1 if graph.provenance.checks.failures else 0)


@app.command("estimate")
def estimate_command(
    prompt: Prompted = None,
    prompt_file: PromptFile = None,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    transcoders: Transcoders = None,
    read_at: ReadAt = None,
    write_at: WriteAt = None,
    fill: Fill = None,
    features: FeatureKind = None,
    target: TargetTokens = None,
    against: Against = None,
    position: Position = TARGETS.position,
    max_logits: MaxLogits = TARGETS.max_logits,
    probability_mass: Mass = TARGETS.probability_mass,
    max_features: MaxFeatures = EXPANSION.max_features,
    everything: Everything = False,
    chat: Chat = False,
    bos: BosRule = DEFAULT_RULE.bos,
    n_prefix: PrefixLength = DEFAULT_RULE.n_prefix,
    dtype: Type = DType.FLOAT32,
    device: Device = "auto",
    precision: HowPrecise = Precision.IEEE,
    memory: Memory = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what a trace will cost: features, rows, seconds and peak memory."""
    given = given_prompt(prompt, prompt_file)
    require_consistent(
        transcoders=transcoders, features=features, targets=target or [], against=against
    )
    choice = source_choice(transcoders, features, max_features, read_at, write_at, fill)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        expansion = Expansion(max_features=max_features, everything=everything)
        source = read_source(subject, choice, in_bytes(memory))
        text = read_prompt(given, subject.tokenizer, PromptRule(bos, n_prefix), chat=chat)
        remark_mismatches([text], source)
        target_settings = TargetSettings(
            position=position, probability_mass=probability_mass, max_logits=max_logits
        )
        targets, remarks = named_targets(subject, text, target or (), against, target_settings)
        remark_once(remarks)
        settings = TraceSettings(targets, expansion, precision=precision, memory=in_bytes(memory))
        cost = estimate_trace(text, subject, source, settings, progress)
    if as_json:
        print_json(asdict(cost))
        return
    place = subject.frozen.device
    output.print(
        f"{cost.active_features:,} active features, {cost.rows:,} rows, "
        f"{cost.flops / 1e9:,.0f} GFLOP at {cost.gflops_per_second:,.0f} GFLOP/s\n"
        f"about {cost.seconds:.1f} s after loading, {gigabytes(cost.peak_bytes)} of "
        f"{gigabytes(cost.free_bytes)} at the peak"
        + (f", and {gigabytes(cost.device_bytes)} more on {place}" if cost.device_bytes else "")
    )
