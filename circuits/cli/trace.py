"""Commands on prompts: trace, estimate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

import graphs
import viz
from circuits.atlas.shipped import ATLAS, atlas_transcoders
from circuits.cli.app import app, errors, output, plain_errors, print_json, remark
from circuits.cli.openings import say_mismatches
from circuits.cli.options import (
    Against,
    AsJson,
    BosRule,
    Chat,
    ContextOnly,
    Device,
    DType,
    Everything,
    FeatureKind,
    Features,
    Fill,
    Force,
    KeptShare,
    Mass,
    MaxFeatures,
    MaxLogits,
    Model,
    Position,
    ReadAt,
    Revision,
    TargetTokens,
    Tolerance,
    Transcoders,
    Type,
    WriteAt,
)
from circuits.cli.outputs import Kind, output_to, require_outputs
from circuits.cli.prompted import Prompted, PromptFile, given_prompt
from circuits.cli.summary import show_summary
from circuits.cli.usage import UsageError, require_consistent
from circuits.expand import Expansion
from circuits.features import FeatureSource
from circuits.filled import Filled
from circuits.memory import gigabytes
from circuits.naming import named_token
from circuits.neurons import Neurons
from circuits.points import ReadPoint, WritePoint
from circuits.progress import progress_bar
from circuits.subject import Subject, read_subject
from circuits.targets import TargetSettings
from circuits.tokens import DEFAULT_RULE, Prompt, PromptRule, read_prompt
from circuits.trace import TraceSettings, estimate_trace, trace
from circuits.weights import read_transcoders

DEFAULT_MODEL = "atlas-large"
# Defaults come from the settings themselves, so that they cannot differ.
TARGETS, EXPANSION = TargetSettings(), Expansion()


@app.command("trace")
@plain_errors
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
    context_only: ContextOnly = DEFAULT_RULE.context_only,
    dtype: Type = DType.FLOAT32,
    device: Device = "cpu",
    force: Force = False,
    out: Annotated[Path | None, typer.Option(help="Write the graph here (.safetensors).")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Trace a prompt: which features, at which layers and tokens, made the prediction."""
    written = (*output_to(out, Kind.GRAPH), *output_to(html, Kind.PAGE, "--html"))
    require_outputs(written, model, transcoders, prompt_file)
    given = given_prompt(prompt, prompt_file)
    require_consistent(
        transcoders=transcoders, features=features, targets=target or [], against=against
    )
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        expansion = Expansion(max_features, tolerance, kept_share, everything)
        points = Points(read_at, write_at, fill is not None)
        source = read_source(subject, transcoders, features, max_features, points)
        text = read_prompt(given, subject.tokenizer, PromptRule(bos, context_only), chat=chat)
        say_mismatches([text], source)
        targets = read_target_settings(
            subject, text, target, against, position, probability_mass, max_logits
        )
        settings = TraceSettings(targets, expansion)
        graph = trace(text, subject, source, settings, progress, force=force)
        progress("write", 0, 1)
        if out is not None:
            graphs.write_graph(graph, out)
        if html is not None:
            viz.write_page(graph, html)
    show_summary(graph, as_json, {"graph": out, "page": html})
    raise typer.Exit(1 if graph.provenance.checks.failures else 0)


@app.command("estimate")
@plain_errors
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
    context_only: ContextOnly = DEFAULT_RULE.context_only,
    dtype: Type = DType.FLOAT32,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Say what a trace will cost: features, rows, seconds and peak memory."""
    given = given_prompt(prompt, prompt_file)
    require_consistent(
        transcoders=transcoders, features=features, targets=target or [], against=against
    )
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        expansion = Expansion(max_features=max_features, everything=everything)
        points = Points(read_at, write_at, fill is not None)
        source = read_source(subject, transcoders, features, max_features, points)
        text = read_prompt(given, subject.tokenizer, PromptRule(bos, context_only), chat=chat)
        say_mismatches([text], source)
        targets = read_target_settings(
            subject, text, target, against, position, probability_mass, max_logits
        )
        cost = estimate_trace(text, subject, source, TraceSettings(targets, expansion), progress)
    if as_json:
        print_json(asdict(cost))
        return
    output.print(
        f"{cost.active_features:,} active features, {cost.rows:,} rows, "
        f"{cost.flops / 1e9:,.0f} GFLOP at {cost.gflops_per_second:,.0f} GFLOP/s\n"
        f"about {cost.seconds:.1f} s after loading, {gigabytes(cost.peak_bytes)} of "
        f"{gigabytes(cost.free_bytes)} at the peak"
        + (f", and {gigabytes(cost.device_bytes)} on {device}" if cost.device_bytes else "")
    )


@dataclass(frozen=True)
class Points:
    """What the options say about transcoders beyond their name."""

    read: ReadPoint | None = None
    write: WritePoint | None = None
    filled: bool = False  # with neurons, where there are no transcoders


def read_source(
    subject: Subject,
    transcoders: str | None,
    features: Features | None,
    max_features: int,
    points: Points,
) -> FeatureSource:
    """Transcoders by their reference; else those that ship with the model; else its neurons."""
    reference = transcoders
    if reference is None and features is None:
        reference = shipped_transcoders(subject)
    if reference is None:
        if points != Points():
            raise UsageError(
                "--read-at, --write-at and --fill say something about transcoders: give "
                "--transcoders."
            )
        return Neurons(max_features)
    read = read_transcoders(reference, read=points.read, write=points.write)
    read.require_fit(subject.frozen)
    return Filled(read, Neurons(max_features)) if points.filled else read


def shipped_transcoders(subject: Subject) -> str | None:
    """The transcoders that come with a model, if any do."""
    name = subject.identity.name
    return str(atlas_transcoders(name)) if name in ATLAS else None


def read_target_settings(
    subject: Subject,
    prompt: Prompt,
    target: list[str] | None,
    against: str | None,
    position: int,
    probability_mass: float,
    max_logits: int,
) -> TargetSettings:
    """Targets by the tokens that the options name; where that is a choice, it is said."""

    def token(text: str) -> int:
        named = named_token(text, subject, prompt, position)
        if named.remark:
            remark(named.remark)
        return named.token

    return TargetSettings(
        tokens=tuple(map(token, target or ())),
        against=None if against is None else token(against),
        position=position,
        probability_mass=probability_mass,
        max_logits=max_logits,
    )
