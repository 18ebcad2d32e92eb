"""The pipeline: prompt → recording → active features → rows → graph.

Every stage before the graph yields frozen data of one prompt; progress goes to a callback.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from numpy import ndarray

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
from circuits.attribution.rows import CollectedRows, Expansion, Sweeper, expand, prepare_sweep
from circuits.attribution.targets import TargetSettings
from circuits.features.active import FeatureSource
from circuits.machine import exactly
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from circuits.recording.attention import Precision, require_precision
from circuits.recording.record import require_recordable
from graphs.core.graph import AttributionGraph


@dataclass(frozen=True)
class TraceSettings:
    """One trace: what to explain, how far to expand, how many features to label."""

    targets: TargetSettings = field(default_factory=TargetSettings)
    expansion: Expansion = field(default_factory=Expansion)
    labels: int = 256  # most influential features to label; some of each layer always are
    precision: Precision = Precision.IEEE  # of the sweep's products in float32
    memory: int | None = None  # bytes to hold at most where the model is; None: what is free


def trace(
    prompt: Prompt,
    subject: Subject,
    source: FeatureSource,
    settings: TraceSettings | None = None,
    progress: Progress = ignore_progress,
    *,
    force: bool = False,
) -> AttributionGraph:
    """Attribute the model's next-token prediction on one prompt to tokens, features and errors.

    Raises PromptError for a prompt that does not fit the model, DictionaryMismatch for a
    dictionary of another model, DamagedWeights for logits that are not finite, and without
    `force` DoesNotFit for a trace that exceeds memory.
    """
    settings = settings or TraceSettings()
    expansion, memory = settings.expansion, settings.memory

    def planned(sweeper: Sweeper, rows: CollectedRows, order: ndarray) -> Sweeper:
        plan = plan_of(sweeper, rows, order)
        free = free_memory(plan.device, memory)
        if not force:
            require_room(plan, free, everything=expansion.everything)
        sweeper.working.within(int(free.device - plan.need().device))
        return sweeper.split_at(plan.split)

    with exactly():
        sweeper = _sweeper(prompt, subject, source, settings, progress, force=force)
        progress("sweep", 0, 1)
        rows = expand(sweeper, expansion, progress, planned)
        header, labels = _header_settings(settings), settings.labels
        return build_graph(sweeper, rows, subject, source, header, labels, progress)


def estimate_trace(
    prompt: Prompt,
    subject: Subject,
    source: FeatureSource,
    settings: TraceSettings | None = None,
    progress: Progress = ignore_progress,
) -> Estimate:
    """The cost of `trace` with the same arguments, from its first rows.  Raises as `trace`."""
    settings = settings or TraceSettings()
    stages = Stages(subject.frozen.device, progress)
    with exactly():
        sweeper = _sweeper(prompt, subject, source, settings, stages)
        begun = begin(sweeper, settings.expansion, stages)
        header, labels = _header_settings(settings), settings.labels
        build_graph(sweeper, begun.rows, subject, source, header, labels, stages)
        stages("end", 0, 1)
        return estimate(begun, stages.seconds, settings.memory)


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
    return prepare_sweep(local, precision=settings.precision, memory=memory)


def _header_settings(settings: TraceSettings) -> dict[str, Any]:
    """The settings as a graph's header has them."""
    targets = settings.targets
    return {
        **asdict(settings.expansion),
        "position": targets.position,
        "probability_mass": targets.probability_mass,
        "max_logits": targets.max_logits,
        "tokens": list(targets.tokens),
        "against": targets.against,
        "labels": settings.labels,
    }
