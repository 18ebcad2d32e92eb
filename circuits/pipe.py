"""The pipe: prompt → recording → active features → rows → graph.

Everything before the graph is frozen data of one prompt; timing and progress are told to a
callback and are nobody else's business.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from circuits.attribution.estimate import Estimate, Plan, estimate
from circuits.attribution.expand import Expansion, expand, prepare_sweep
from circuits.attribution.replay import replay_difference
from circuits.attribution.room import (
    require_room,
    require_room_to_gather,
    require_room_to_record,
    require_room_to_sweep,
)
from circuits.attribution.rows import SparseRows
from circuits.attribution.sinks import attention_sinks
from circuits.attribution.sources import Sources, node_table
from circuits.attribution.targets import Targets, TargetSettings, read_targets
from circuits.features.active import ActiveFeatures, FeatureSource
from circuits.features.top_tokens import LABELS_PER_LAYER, output_tokens
from circuits.model.frozen import DamagedWeights, FrozenModel
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from circuits.recording.record import Recording, record, require_possible
from graphs.analysis.influence import resolved_share
from graphs.core.descriptions import Description
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind, NodeTable
from graphs.core.provenance import Checks, Provenance, Sink

# Above this relative miss a row does not conserve.  In bfloat16 right rows miss by up to 0.014 in
# Gemma 3 270M and SmolLM2-135M and by 0.084 in tiny random models, rows of models that were read
# wrongly by 0.26 and more.
CONSERVATION_LIMITS = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.2}
# Of recorded logits from the model's own in float64.  transformers computes RMSNorm in float32 and
# the recording does not, which makes up to 7e-7 (SmolLM2-135M).
RECORDING_LIMIT = 1e-5


@dataclass(frozen=True)
class TraceSettings:
    """One trace: what to explain, how far to expand, how many features to label."""

    targets: TargetSettings = field(default_factory=TargetSettings)
    expansion: Expansion = field(default_factory=Expansion)
    labels: int = 256  # features of most influence that are labelled; of each layer at least some


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
    dictionary of another model, DamagedWeights for logits that are not finite, and unless it is
    forced DoesNotFit for a trace that memory will not hold.
    """
    settings = settings or TraceSettings()
    frozen = subject.frozen
    require_possible(frozen, prompt, settings.targets.position)
    with torch.inference_mode():
        if not force:
            require_room_to_record(frozen, source, len(prompt))
            require_room_to_sweep(frozen, prompt)
            require_room_to_gather(frozen, prompt, source)
        recording, targets, features = read_active(
            prompt, subject, source, settings.targets, progress
        )
        plan = Plan(frozen, recording, features, settings.expansion, targets.covectors)
        if not force:
            require_room(plan)
        progress("sources", 0, 1)
        sweeper = prepare_sweep(frozen, recording, features, targets, plan.floor)
        sources = sweeper.sources
        progress("sweep", 0, 1)
        rows = expand(sweeper, targets, settings.expansion, progress)
        progress("check", 0, 1)
        nodes, seed = _nodes(sources, targets)
        reached = rows.influence(seed)
        replayed = replay_difference(frozen, recording, sources)
        checks = _checks(nodes, seed, reached, rows, features.found, replayed, frozen)
        progress("label", 0, 1)
        columns = sources.feature_column.cpu().numpy()
        strongest = _strongest(features, reached[columns], settings.labels)
        tokens = output_tokens(subject.frozen, features, strongest, subject.spell)
        sinks = attention_sinks(recording, features, reached[columns])
    progress("graph", 0, 1)
    return AttributionGraph(
        nodes=nodes,
        weights=rows.matrix(),
        seed=seed,
        dropped=rows.dropped(),
        dropped_absolute=rows.dropped_absolute(),
        expanded=rows.expanded(),
        provenance=_provenance(subject, prompt, features, targets, settings, checks, sinks),
        output_tokens=dict(zip(columns[strongest].tolist(), tokens, strict=True)),
        descriptions=_descriptions(source, features, strongest),
    )


def _strongest(
    features: ActiveFeatures, reached: Float[ndarray, " feat"], count: int
) -> Int[ndarray, " chosen"]:
    """The features of most influence, and of every layer some, strongest first."""
    order = np.argsort(-reached, kind="stable")
    layer = features.layer.cpu().numpy()[order]
    by_layer = np.argsort(layer, kind="stable")
    rank = np.empty_like(order)
    starts = np.searchsorted(layer[by_layer], layer[by_layer])
    rank[by_layer] = np.arange(len(order)) - starts
    place = np.arange(len(order))
    return order[(place < count) | (rank < min(count, LABELS_PER_LAYER))]


def estimate_trace(
    prompt: Prompt,
    subject: Subject,
    source: FeatureSource,
    settings: TraceSettings | None = None,
    progress: Progress = ignore_progress,
) -> Estimate:
    """What `trace` with the same arguments will cost, from one forward pass.  Raises as `trace`."""
    settings = settings or TraceSettings()
    require_possible(subject.frozen, prompt, settings.targets.position)
    require_room_to_record(subject.frozen, source, len(prompt))
    with torch.inference_mode():
        start = time.perf_counter()
        recording, targets, features = read_active(
            prompt, subject, source, settings.targets, progress
        )
        return estimate(
            subject.frozen,
            recording,
            features,
            settings.expansion,
            targets.covectors,
            labels=settings.labels,
            before=time.perf_counter() - start,
        )


def read_active(
    prompt: Prompt,
    subject: Subject,
    source: FeatureSource,
    settings: TargetSettings,
    progress: Progress = ignore_progress,
) -> tuple[Recording, Targets, ActiveFeatures]:
    """The first stages of a trace, to which interventions come back.  Raises as `trace`."""
    progress("record", 0, 1)
    recording = record(subject.frozen, prompt, settings.position)
    targets = read_targets(subject.frozen, recording, settings, subject.spell)
    progress("features", 0, 1)
    return recording, targets, source.activate(subject.frozen, recording, targets.covectors)


def _nodes(sources: Sources, targets: Targets) -> tuple[NodeTable, Float[ndarray, " node"]]:
    """All nodes, sources first, and the seed of influence."""
    table = node_table(
        [
            (
                targets.kind,
                -1,
                targets.covectors.pos.cpu().numpy(),
                targets.index.cpu().numpy(),
                np.nan,
                targets.value.double().cpu().numpy(),
            )
        ]
    )
    columns = zip(sources.nodes.columns().values(), table.columns().values(), strict=True)
    seed = np.concatenate([np.zeros(len(sources.nodes)), targets.covectors.weight.cpu().numpy()])
    return NodeTable(*(np.concatenate(pair) for pair in columns)), seed


def _provenance(
    subject: Subject,
    prompt: Prompt,
    features: ActiveFeatures,
    targets: Targets,
    settings: TraceSettings,
    checks: Checks,
    sinks: tuple[Sink, ...],
) -> Provenance:
    return Provenance(
        generator=f"headwater {version('headwater')}",
        model=subject.identity,
        dictionary=features.identity,
        dtype=str(subject.frozen.dtype).removeprefix("torch."),
        prompt=prompt.text,
        tokens=prompt.tokens,
        token_ids=prompt.ids,
        context_only=prompt.context_only,
        opening=prompt.opening,
        sinks=sinks,
        targets=targets.described,
        settings={
            **asdict(settings.expansion),
            "position": settings.targets.position,
            "probability_mass": settings.targets.probability_mass,
            "max_logits": settings.targets.max_logits,
            "tokens": list(settings.targets.tokens),
            "against": settings.targets.against,
            "labels": settings.labels,
        },
        checks=checks,
    )


def _checks(
    nodes: NodeTable,
    seed: Float[ndarray, " node"],
    reached: Float[ndarray, " node"],
    rows: SparseRows,
    found: int,
    replayed: float,
    frozen: FrozenModel,
) -> Checks:
    residuals, expanded = np.array(rows.residuals), rows.expanded()
    if not np.all(np.isfinite(residuals)):
        raise DamagedWeights(
            f"Weights are so large that rows of the graph overflow {frozen.dtype}: choose --dtype "
            "float64, or get the weights of model and dictionary again."
        )
    ends = nodes.is_kind(NodeKind.TOKEN, NodeKind.POSITION, NodeKind.BIAS, NodeKind.ERROR)
    at_errors = reached[nodes.is_kind(NodeKind.ERROR)].sum()
    at_ends = reached[ends].sum()
    return Checks(
        conservation_max=float(residuals.max()),
        conservation_median=float(np.median(residuals)),
        conservation_limit=CONSERVATION_LIMITS.get(frozen.dtype),
        replay_max_difference=replayed,
        recording_max_difference=frozen.recording_difference,
        recording_limit=None if frozen.recording_difference is None else RECORDING_LIMIT,
        influence_resolved=resolved_share(nodes, expanded, seed, reached),
        error_influence_share=float(at_errors / at_ends) if at_ends > 0 else 0.0,
        active_features=found,
        expanded_features=int(expanded[nodes.is_kind(NodeKind.FEATURE)].sum()),
    )


def _descriptions(
    source: FeatureSource, features: ActiveFeatures, rows: Int[ndarray, " row"]
) -> dict[str, Description]:
    """What the dictionary knows about these features, by layer and index."""
    layers, indices = features.layer.cpu().numpy()[rows], features.index.cpu().numpy()[rows]
    found: dict[str, Description] = {}
    for layer, index in sorted(set(zip(layers.tolist(), indices.tolist(), strict=True))):
        description = source.describe(layer, index)
        if description is not None:
            found[f"{layer}/{index}"] = description
    return found
