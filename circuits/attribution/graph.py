"""From rows to a graph: its nodes and seed, the checks that it passed, its labels, its header.

One check replays the local replacement model: features, errors, constants and linear paths are
added layer by layer to the embedding, through the frozen attention.  If anything is missing, the
logits differ.

Attention sinks are named in the header: models direct unused attention to one position, mostly the
first, whose residual grows a hundredfold.  If it is BOS, it is a prefix position without features.
If it is an ordinary token, its features are as large as its residual: they influence everything and
reveal little about the prompt.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.rows import CollectedRows, Sweeper
from circuits.attribution.sources import Sources, node_table
from circuits.attribution.targets import Targets
from circuits.features.active import ActiveFeatures, FeatureSource
from circuits.features.labels import LABELS_PER_LAYER, output_tokens
from circuits.machine import in_float64
from circuits.model.frozen import DamagedWeights
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from circuits.recording.attention import attended, attention_constant
from circuits.recording.precision import Precision
from circuits.recording.record import relative_difference
from graphs.analysis.influence import ranks, resolved_share
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import Description, NodeKind, NodeTable
from graphs.core.provenance import Checks, Provenance, Sink

# A row with a larger relative error violates conservation.  In bfloat16 correct rows are off by up
# to 0.014 in Gemma 3 270M and SmolLM2-135M and by 0.084 in tiny random models (but for neurons near
# zero whose few sources cancel), rows of misread models by 0.26 and more.
CONSERVATION_LIMITS = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.2}
TF32_LIMIT = 0.02  # rows swept in TF32 are off by up to 4e-4 in Gemma 3 270M, and 8e-4 on a GPU
# Relative difference of recorded logits from the model's own in float64.  transformers computes
# RMSNorm in float32 and the recording does not, which accounts for up to 7e-7 (SmolLM2-135M).
RECORDING_LIMIT = 1e-5
# Of the residual's norm to the median.  Without BOS, the first token of SmolLM2-135M has 157 to
# 234; no other token of it or of Gemma 3 270M has more than 12.
LEAST_RATIO = 100.0


def build_graph(
    sweeper: Sweeper,
    rows: CollectedRows,
    subject: Subject,
    source: FeatureSource,
    settings: dict[str, Any],
    labels: int,
    progress: Progress = ignore_progress,
) -> AttributionGraph:
    """The graph of these rows; `labels` of its features, the most influential, are labelled.

    Raises DamagedWeights for rows that overflow.
    """
    local, sources = sweeper.local, sweeper.sources
    progress("check", 0, 1)
    nodes, seed = _nodes(sources, local.targets)
    influence = rows.influence(seed)
    limit = CONSERVATION_LIMITS.get(local.frozen.dtype)
    if sweeper.attention.precision == Precision.TF32:
        limit = TF32_LIMIT
    checks = _checks(nodes, seed, influence, rows, replay_difference(local, sources), local, limit)
    progress("label", 0, 1)
    columns = sources.feature_column
    strongest = _strongest(local.features, influence[columns], labels)
    tokens = output_tokens(local.frozen, local.features, strongest, subject.spell)
    sinks = attention_sinks(local, influence[columns])
    progress("graph", 0, 1)
    return AttributionGraph(
        nodes=nodes,
        weights=rows.matrix(),
        seed=seed,
        dropped=rows.dropped(),
        dropped_absolute=rows.dropped_absolute(),
        expanded=rows.expanded(),
        provenance=_provenance(subject, sweeper, settings, checks, sinks),
        output_tokens=dict(zip(columns[strongest].tolist(), tokens, strict=True)),
        descriptions=_descriptions(source, local.features, strongest),
    )


def _nodes(sources: Sources, targets: Targets) -> tuple[NodeTable, Float[ndarray, " node"]]:
    """All nodes, sources first, and the seed of influence."""
    table = node_table(
        [
            (
                targets.kind,
                -1,
                targets.covectors.pos,
                targets.index,
                np.nan,
                in_float64(targets.value).numpy(),
            )
        ]
    )
    columns = zip(sources.nodes.columns().values(), table.columns().values(), strict=True)
    seed = np.concatenate([np.zeros(len(sources.nodes)), targets.covectors.weight])
    return NodeTable(*(np.concatenate(pair) for pair in columns)), seed


def _checks(
    nodes: NodeTable,
    seed: Float[ndarray, " node"],
    influence: Float[ndarray, " node"],
    rows: CollectedRows,
    replayed: float,
    local: LocalReplacement,
    limit: float | None,
) -> Checks:
    frozen = local.frozen
    residuals, expanded = np.array(rows.residuals), rows.expanded()
    if not np.all(np.isfinite(residuals)):
        raise DamagedWeights(
            f"Rows of the graph overflow {frozen.dtype} because weights are too large: use --dtype "
            "float64, or download the weights of the model and dictionary again."
        )
    ends = nodes.is_kind(NodeKind.TOKEN, NodeKind.POSITION, NodeKind.BIAS, NodeKind.ERROR)
    at_errors = influence[nodes.is_kind(NodeKind.ERROR)].sum()
    at_ends = influence[ends].sum()
    return Checks(
        conservation_max=float(residuals.max()),
        conservation_median=float(np.median(residuals)),
        conservation_limit=limit,
        replay_max_difference=replayed,
        recording_max_difference=frozen.recording_difference,
        recording_limit=None if frozen.recording_difference is None else RECORDING_LIMIT,
        influence_resolved=resolved_share(nodes, expanded, seed, influence),
        error_influence_share=float(at_errors / at_ends) if at_ends > 0 else 0.0,
        active_features=local.features.found,
        expanded_features=int(expanded[nodes.is_kind(NodeKind.FEATURE)].sum()),
    )


def replay_difference(local: LocalReplacement, sources: Sources) -> float:
    """Largest difference of a replayed logit from the model's own, over the largest logit."""
    recording, norm, pos = local.recording, local.frozen.final_norm, local.recording.position
    residual = replay(local, sources)[pos]
    final = norm.linear(residual, recording.final_denominator[pos]) + norm.bias
    return relative_difference(local.frozen.logits(final), recording.logits)


def replay(local: LocalReplacement, sources: Sources) -> Float[Tensor, "pos d_model"]:
    """The final residual stream of the local replacement model."""
    frozen, recording = local.frozen, local.recording
    residual = torch.stack(sources.inputs).sum(0)
    reads: list[Tensor] = []  # what each layer's MLP reads
    for layer, entering in enumerate(sources.layers):
        block, recorded = frozen.blocks[layer], recording.blocks[layer]
        values = (residual / recorded.attention_denominator[:, None]) @ block.value.T
        before, residual = residual, residual + attended(block, recorded, values)
        residual[: sources.first] += attention_constant(block, recorded)[: sources.first]
        residual[: sources.first] += recorded.contribution[: sources.first]
        swept = residual[sources.first :]
        swept += entering.attention_constant
        reads.append((before if frozen.parallel else residual)[sources.first :].clone())
        for read, path in entering.linear.items():
            swept += path.forward(reads[read], sources.first)
        swept.index_add_(0, entering.tiles.pos, entering.tiles.vectors.sum(1))
    return residual


def attention_sinks(
    local: LocalReplacement, influence: Float[ndarray, " feat"]
) -> tuple[Sink, ...]:
    """The sinks behind the prefix; `influence` is that of the features.

    Residuals are those that the MLPs read, compared with the median over positions of each layer.
    """
    recording, features = local.recording, local.features
    norms = torch.stack([block.mlp_residual.float().norm(dim=1) for block in recording.blocks])
    # Of two middle values the lower: two tokens suffice.
    median = norms.median(1, keepdim=True).values
    ratios, layers = torch.where(median > 0, norms / median, 0.0).cpu().max(0)
    pos, total = features.on_host.pos, float(influence.sum())
    return tuple(
        Sink(
            pos=at,
            layer=int(layers[at]),
            ratio=float(ratios[at]),
            influence=float(influence[pos == at].sum()) / total if total > 0 else 0.0,
        )
        for at in range(recording.prompt.n_prefix, len(recording.prompt))
        if ratios[at] > LEAST_RATIO
    )


def _strongest(
    features: ActiveFeatures, influence: Float[ndarray, " feat"], count: int
) -> Int[ndarray, " chosen"]:
    """The most influential features, and some of every layer, strongest first."""
    order = np.argsort(-influence, kind="stable")
    rank = ranks(features.on_host.layer, influence)[order]
    place = np.arange(len(order))
    return order[(place < count) | (rank < min(count, LABELS_PER_LAYER))]


def _descriptions(
    source: FeatureSource, features: ActiveFeatures, rows: Int[ndarray, " row"]
) -> dict[str, Description]:
    """The dictionary's descriptions of these features, by layer/index."""
    layers, indices = features.on_host.layer[rows], features.on_host.index[rows]
    found: dict[str, Description] = {}
    for layer, index in sorted(set(zip(layers.tolist(), indices.tolist(), strict=True))):
        description = source.describe(layer, index)
        if description is not None:
            found[f"{layer}/{index}"] = description
    return found


def _provenance(
    subject: Subject,
    sweeper: Sweeper,
    settings: dict[str, Any],
    checks: Checks,
    sinks: tuple[Sink, ...],
) -> Provenance:
    local, prompt = sweeper.local, sweeper.local.recording.prompt
    return Provenance(
        generator=f"headwater {version('headwater')}",
        model=subject.identity,
        dictionary=local.features.identity,
        dtype=str(local.frozen.dtype).removeprefix("torch."),
        precision=sweeper.attention.precision,
        prompt=prompt.text,
        tokens=prompt.tokens,
        token_ids=prompt.ids,
        n_prefix=prompt.n_prefix,
        opening=prompt.opening,
        sinks=sinks,
        targets=local.targets.described,
        settings=settings,
        checks=checks,
    )
