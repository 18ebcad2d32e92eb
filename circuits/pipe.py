"""The pipeline: prompt → recording → active features → rows → graph.

Every stage before the graph yields frozen data of one prompt; progress goes to a callback.
"""

from __future__ import annotations

from dataclasses import replace

from numpy import ndarray

from circuits.attribution.attention_flows import AttentionFlows
from circuits.attribution.cost import (
    free_memory,
    plan_of,
    require_room,
    require_room_for_sources,
    require_room_to_gather,
    require_room_to_record,
    require_room_to_sweep,
)
from circuits.attribution.estimate import Estimate, Stages, begin, estimate
from circuits.attribution.graph import build_graph
from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.rows import CollectedRows, Sweeper, expand, most_rows, prepare_sweep
from circuits.attribution.targets import BESIDE_INNER, final_norms, random_covectors
from circuits.attribution.trace_settings import TraceSettings
from circuits.features.active import FeatureSource
from circuits.features.files.source import SourceChoice, read_source
from circuits.machine import exactly
from circuits.model.prompt import Prompt, PromptError, TargetError, read_prompt
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from circuits.recording.attention import require_precision
from circuits.recording.record import require_recordable
from graphs.core.graph import AttributionGraph
from graphs.errors import HeadwaterError


class SettingsError(HeadwaterError):
    """What was given as settings of a trace is something else."""


def trace(
    prompt: Prompt | str,
    subject: Subject,
    source: FeatureSource | None = None,
    settings: TraceSettings | None = None,
    progress: Progress = ignore_progress,
    *,
    force: bool = False,
) -> AttributionGraph:
    """Attribute the model's next-token prediction on one prompt to tokens, features and errors.

    Without a source, the features are the transcoders that ship with the model, else its neurons.

    Raises PromptError for a prompt that does not fit the model, DictionaryMismatch for a
    dictionary of another model, DamagedWeights for logits that are not finite, SettingsError for
    settings of another kind, and without `force` DoesNotFit for a trace that exceeds memory.
    """
    prompt, source, settings = _asked(prompt, subject, source, settings)
    expansion, memory = settings.expansion, settings.memory

    def planned(sweeper: Sweeper, rows: CollectedRows, order: ndarray) -> Sweeper:
        plan = plan_of(sweeper, rows, order)
        free = free_memory(plan.device, memory)
        if not force:
            require_room(plan, free, everything=expansion.everything)
        sweeper.working.within(int(free.device - plan.need().device))
        # Below a split nothing flows row by row.
        return sweeper if sweeper.flows is not None else sweeper.split_at(plan.split)

    with exactly():
        sweeper = _sweeper(prompt, subject, source, settings, progress, force=force)
        progress("sweep", 0, 1)
        rows = expand(sweeper, expansion, progress, planned)
        return build_graph(sweeper, rows, subject, source, settings, progress)


def estimate_trace(
    prompt: Prompt | str,
    subject: Subject,
    source: FeatureSource | None = None,
    settings: TraceSettings | None = None,
    progress: Progress = ignore_progress,
) -> Estimate:
    """The cost of `trace` with the same arguments, from its first rows.  Raises as `trace`."""
    prompt, source, settings = _asked(prompt, subject, source, settings)
    stages = Stages(subject.frozen.device, progress)
    with exactly():
        sweeper = _sweeper(prompt, subject, source, settings, stages)
        begun = begin(sweeper, settings.expansion, stages)
        build_graph(sweeper, begun.rows, subject, source, settings, stages)
        stages("end", 0, 1)
        return estimate(begun, stages.seconds, source, settings.memory)


def _asked(
    prompt: object, subject: object, source: FeatureSource | None, settings: object
) -> tuple[Prompt, FeatureSource, TraceSettings]:
    """What a trace is of, with what was left out filled in."""
    if not isinstance(subject, Subject):
        raise SettingsError(
            f"The model is what read_subject returns, got {type(subject).__name__}: "
            "subject_of(model, tokenizer) takes a transformers model."
        )
    if isinstance(prompt, str):
        prompt = read_prompt(prompt, subject.tokenizer)
    if not isinstance(prompt, Prompt):
        raise PromptError(
            f"The prompt is a text or what read_prompt returns, got {type(prompt).__name__}: join "
            "tokens to one text, or give their ids to prompt_from_ids."
        )
    if settings is None:
        settings = TraceSettings()
    if not isinstance(settings, TraceSettings):
        raise SettingsError(
            f"settings is a TraceSettings, got {type(settings).__name__}: as in "
            "TraceSettings(expansion=Expansion(max_features=1000))."
        )
    words = [token for token in settings.targets.tokens if isinstance(token, str)]
    if words:
        raise TargetError(
            f"Targets are vocabulary ids, got {words[0]!r}: named_targets(subject, prompt, "
            f"[{words[0]!r}]) finds them."
        )
    return prompt, source or read_source(subject, SourceChoice()), settings


def _sweeper(
    prompt: Prompt,
    subject: Subject,
    source: FeatureSource,
    settings: TraceSettings,
    progress: Progress,
    *,
    force: bool = False,
) -> Sweeper:
    """A prompt recorded and its sources gathered, after each has been found to fit."""
    frozen, memory = subject.frozen, settings.memory
    require_recordable(frozen, prompt, settings.targets.position)
    require_precision(frozen, settings.precision)
    if not force:
        require_room_to_record(frozen, source, len(prompt), memory)
        require_room_to_sweep(frozen, prompt, memory)
        require_room_to_gather(frozen, prompt, source, memory)
    local = local_replacement(prompt, subject, source, settings.targets, progress)
    if not force:
        require_room_for_sources(local, memory)
    progress("sources", 0, 1)
    sweeper = prepare_sweep(local, precision=settings.precision, memory=memory)
    n_rows = most_rows(settings.expansion, len(local.features)) + len(local.targets.described)
    inside = settings.inner_rows > 0
    count = BESIDE_INNER if inside else random_covectors(n_rows)
    norms = final_norms(subject.frozen, local.recording, local.targets.covectors, count)
    flows = AttentionFlows(local, sweeper.sources.first) if inside else None
    return replace(sweeper, norms=norms, flows=flows)
