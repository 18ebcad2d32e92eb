"""Commands on prompts: trace, estimate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from shlex import quote

import typer

import circuits
from circuits.atlas.shipped import DEFAULT_MODEL
from circuits.attribution.trace_settings import Expansion, TargetSettings, TraceSettings
from circuits.features.kept_in import KeptIn
from circuits.model.data_type import DType
from circuits.model.prompt_rule import DEFAULT_RULE
from circuits.progress import progress_bar
from circuits.recording.precision import Precision
from headwater.arguments.options import (
    Against,
    AsJson,
    AttentionParts,
    BosRule,
    Chat,
    Device,
    DictionaryIn,
    DirectionFiles,
    Everything,
    FeatureKind,
    Fill,
    Force,
    GraphOut,
    HowPrecise,
    InnerRows,
    KeptShare,
    Mass,
    MaxFeatures,
    MaxLogits,
    Memory,
    Model,
    NoAttention,
    PageOut,
    Position,
    PrefixLength,
    ReadAt,
    ReadBefore,
    ReadLayers,
    Revision,
    SequenceText,
    TargetTokens,
    Tolerance,
    Transcoders,
    Type,
    WriteAt,
    source_choice,
)
from headwater.arguments.prompted import Prompted, PromptFile, given_prompt
from headwater.arguments.usage import UsageError, require_consistent
from headwater.attended import with_attention
from headwater.choosing import AttentionKept, in_bytes
from headwater.cli.app import app
from headwater.explaining import Input, directions, explained
from headwater.openings import rule_beside
from headwater.outputs.formats import graph_output, is_named_as_ours, write_both
from headwater.outputs.places import Kind, output_to, require_outputs
from headwater.terminal.opening_remarks import remark_mismatches, remark_once
from headwater.terminal.printing import errors, output, print_json, print_line
from headwater.terminal.summary import show_summary

# Defaults come from the settings themselves, so that they cannot differ.
TARGETS, EXPANSION, TRACE = TargetSettings(), Expansion(), TraceSettings()


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
    dictionary_in: DictionaryIn = KeptIn.AUTO,
    features: FeatureKind = None,
    target: TargetTokens = None,
    against: Against = None,
    sequence: SequenceText = None,
    direction: DirectionFiles = None,
    layer: ReadLayers = None,
    before: ReadBefore = Input.MLP,
    position: Position = TARGETS.position,
    max_logits: MaxLogits = TARGETS.max_logits,
    probability_mass: Mass = TARGETS.probability_mass,
    max_features: MaxFeatures = EXPANSION.max_features,
    tolerance: Tolerance = EXPANSION.tolerance,
    kept_share: KeptShare = EXPANSION.kept_share,
    everything: Everything = False,
    inner_rows: InnerRows = TRACE.inner_rows,
    attention: AttentionParts = AttentionKept.TOTALS,
    no_attention: NoAttention = False,
    chat: Chat = False,
    bos: BosRule = DEFAULT_RULE.bos,
    n_prefix: PrefixLength = DEFAULT_RULE.n_prefix,
    dtype: Type = DType.FLOAT32,
    device: Device = "auto",
    precision: HowPrecise = Precision.IEEE,
    memory: Memory = None,
    force: Force = False,
    out: GraphOut = None,
    html: PageOut = None,
    as_json: AsJson = False,
) -> None:
    """Trace a prompt: which features, at which layers and tokens, led to the prediction."""
    outputs = (*graph_output(out), *output_to(html, Kind.PAGE, "--html"))
    require_outputs(outputs, model, transcoders, prompt_file)
    given = given_prompt(prompt, prompt_file)
    if no_attention:
        if attention not in (AttentionKept.TOTALS, AttentionKept.NONE):
            raise UsageError(f"--no-attention and --attention {attention} exclude each other.")
        attention = AttentionKept.NONE
    require_consistent(
        transcoders=transcoders, features=features, targets=target or [], against=against
    )
    wanted = TargetSettings(
        directions=directions(direction or (), layer or (), before),
        position=position,
        probability_mass=probability_mass,
        max_logits=max_logits,
    )
    chosen = transcoders, features, max_features, read_at, write_at, fill, dictionary_in
    choice = source_choice(*chosen)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = circuits.read_subject(model, revision=revision, dtype=dtype, device=device)
        expansion = Expansion(max_features, tolerance, kept_share, everything)
        source = circuits.read_source(subject, choice, in_bytes(memory))
        rule = rule_beside(source, bos, n_prefix)
        text = circuits.read_prompt(given, subject.tokenizer, rule, chat=chat)
        remark_mismatches([text], source)
        parts = (target or (), against, sequence)
        text, targets, remarks = explained(subject, text, wanted, *parts)
        remark_once(remarks)
        settings = TraceSettings(
            targets,
            expansion,
            inner_rows=inner_rows,
            heads=attention.has_totals,
            precision=precision,
            memory=in_bytes(memory),
        )
        graph = circuits.trace(text, subject, source, settings, progress, force=force)
        graph = with_attention(graph, subject, source, attention, progress)
        remark_once(circuits.misfits(graph, subject, source))
        progress("write", 0, 1)
        written = write_both(graph, out, html)
    show_summary(graph, as_json, written)
    if output.is_terminal and not as_json:
        print_line(next_steps(out), "dim")
    raise typer.Exit(1 if graph.provenance.checks.failures else 0)


def next_steps(out: Path | None) -> str:
    """What to do with the graph."""
    if out is None or not is_named_as_ours(out):
        return "next: --out dallas.safetensors keeps the graph, to prune, view and test it"
    file = quote(str(out))
    return f"next: headwater view {file} --open, headwater paths {file}, headwater check {file}"


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
    dictionary_in: DictionaryIn = KeptIn.AUTO,
    features: FeatureKind = None,
    target: TargetTokens = None,
    against: Against = None,
    sequence: SequenceText = None,
    direction: DirectionFiles = None,
    layer: ReadLayers = None,
    before: ReadBefore = Input.MLP,
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
    wanted = TargetSettings(
        directions=directions(direction or (), layer or (), before),
        position=position,
        probability_mass=probability_mass,
        max_logits=max_logits,
    )
    chosen = transcoders, features, max_features, read_at, write_at, fill, dictionary_in
    choice = source_choice(*chosen)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = circuits.read_subject(model, revision=revision, dtype=dtype, device=device)
        expansion = Expansion(max_features=max_features, everything=everything)
        source = circuits.read_source(subject, choice, in_bytes(memory))
        rule = rule_beside(source, bos, n_prefix)
        text = circuits.read_prompt(given, subject.tokenizer, rule, chat=chat)
        remark_mismatches([text], source)
        parts = (target or (), against, sequence)
        text, targets, remarks = explained(subject, text, wanted, *parts)
        remark_once(remarks)
        settings = TraceSettings(targets, expansion, precision=precision, memory=in_bytes(memory))
        cost = circuits.estimate_trace(text, subject, source, settings, progress)
    if as_json:
        print_json(asdict(cost))
        return
    _show_cost(cost, subject.frozen)


def _show_cost(cost: circuits.Estimate, frozen: circuits.FrozenModel) -> None:
    """Print what a trace will cost."""
    peak, free, more, kept = map(
        circuits.gigabytes,
        (cost.peak_bytes, cost.free_bytes, cost.device_bytes, cost.dictionary_bytes),
    )
    if cost.streamed:
        kept = f"in its files, at most {kept} of it at once"
    lines = [
        f"{cost.active_features:,} active features, {cost.rows:,} rows, "
        f"{cost.flops / 1e9:,.0f} GFLOP at {cost.gflops_per_second:,.0f} GFLOP/s",
        f"about {cost.seconds:.1f} s after loading, {peak} of {free} at the peak"
        + (f", and {more} more on {frozen.device}" if cost.device_bytes else ""),
    ]
    if cost.dictionary_bytes:
        lines.append(f"dictionary: {kept} on {', '.join(map(str, frozen.devices))}")
    output.print("\n".join(lines))
