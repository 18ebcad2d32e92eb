"""The pipeline: prompt → recording → active features → rows → graph.

Every stage before the graph yields frozen data of one prompt; progress goes to a callback.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from circuits.attribution.cost import (
    Plan,
    require_room,
    require_room_to_gather,
    require_room_to_record,
    require_room_to_sweep,
)
from circuits.attribution.estimate import Estimate, estimate
from circuits.attribution.graph import build_graph
from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.rows import Expansion, expand, prepare_sweep
from circuits.attribution.targets import TargetSettings
from circuits.features.active import FeatureSource
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from circuits.recording.record import require_recordable
from graphs.core.graph import AttributionGraph


@dataclass(frozen=True)
class TraceSettings:
    """One trace: what to explain, how far to expand, how many features to label."""

    targets: TargetSettings = field(default_factory=TargetSettings)
    expansion: Expansion = field(default_factory=Expansion)
    labels: int = 256  # most influential features to label; some of each layer always are


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
    frozen = subject.frozen
    require_recordable(frozen, prompt, settings.targets.position)
    with torch.inference_mode():
        if not force:
            require_room_to_record(frozen, source, len(prompt))
            require_room_to_sweep(frozen, prompt)
            require_room_to_gather(frozen, prompt, source)
        local = local_replacement(prompt, subject, source, settings.targets, progress)
        plan = Plan(local, settings.expansion)
        if not force:
            require_room(plan)
        progress("sources", 0, 1)
        sweeper = prepare_sweep(local, plan.split)
        progress("sweep", 0, 1)
        rows = expand(sweeper, settings.expansion, progress)
        header, labels = _header_settings(settings), settings.labels
        return build_graph(sweeper, rows, subject, source, header, labels, progress)


def estimate_trace(
    prompt: Prompt,
    subject: Subject,
    source: FeatureSource,
    settings: TraceSettings | None = None,
    progress: Progress = ignore_progress,
) -> Estimate:
    """The cost of `trace` with the same arguments, from one forward pass.  Raises as `trace`."""
    settings = settings or TraceSettings()
    require_recordable(subject.frozen, prompt, settings.targets.position)
    require_room_to_record(subject.frozen, source, len(prompt))
    with torch.inference_mode():
        start = time.perf_counter()
        local = local_replacement(prompt, subject, source, settings.targets, progress)
        before = time.perf_counter() - start
        return estimate(local, settings.expansion, settings.labels, before)


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
