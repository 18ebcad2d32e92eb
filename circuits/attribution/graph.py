"""From rows to a graph: its nodes and seed, the checks that it passed, its labels, its header.

One check replays the local replacement model: features, errors, constants and linear paths are
added layer by layer to the embedding, through the frozen attention.  If anything is missing, the
logits differ.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array, vstack
from torch import Tensor

from circuits.attribution.local_replacement import (
    LocalReplacement,
    attention_sinks,
    dictionary_fit,
)
from circuits.attribution.responses import Inner, sweep_inside
from circuits.attribution.rows import CollectedRows, Sweeper
from circuits.attribution.sources import Sources, node_table
from circuits.attribution.sweep import sweep_in_place
from circuits.attribution.targets import ResponsePart, Targets
from circuits.attribution.trace_settings import TraceSettings
from circuits.features.active import ActiveFeatures, FeatureSource
from circuits.features.labels import LABELS_PER_LAYER, output_tokens
from circuits.machine import exact, in_float64, moved, on_device
from circuits.model.frozen import Covectors, DamagedWeights
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from circuits.recording.attention import attended, attention_constant
from circuits.recording.precision import Precision
from circuits.recording.record import relative_difference
from graphs.analysis.influence import error_influence_share, ranks, resolved_share
from graphs.core.graph import AttributionGraph, row_sizes
from graphs.core.head_totals import HeadTotals
from graphs.core.nodes import Description, NodeKind, NodeTable
from graphs.core.provenance import Checks, FeatureReading, Provenance, Reading, Sink
from graphs.core.responses import FrozenNorm, Responses

ROWS_AT_ONCE = 4096  # whose covectors are gathered together
# A row with a larger relative error violates conservation.  In bfloat16 correct rows are off by up
# to 0.014 in Gemma 3 270M and SmolLM2-135M and by 0.084 in tiny random models (but for neurons near
# zero whose few sources cancel), rows of misread models by 0.26 and more.
CONSERVATION_LIMITS = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.2}
TF32_LIMIT = 0.02  # rows swept in TF32 are off by up to 4e-4 in Gemma 3 270M, and 8e-4 on a GPU
# Relative difference of recorded logits from the model's own in float64.  transformers computes
# RMSNorm in float32 and the recording does not, which accounts for up to 7e-7 (SmolLM2-135M).
RECORDING_LIMIT = 1e-5


def build_graph(
    sweeper: Sweeper,
    rows: CollectedRows,
    subject: Subject,
    source: FeatureSource,
    settings: TraceSettings,
    progress: Progress = ignore_progress,
) -> AttributionGraph:
    """The graph of these rows.

    Raises DamagedWeights for rows that overflow.
    """
    local, sources = sweeper.local, sweeper.sources
    progress("check", 0, 1)
    totals = _head_totals(sweeper, rows) if settings.heads else None
    numbers = _Numbers.of(sweeper, totals)
    nodes, seed = _nodes(sources, local.targets, numbers.value)
    whole_seed = np.concatenate([seed, np.zeros(rows.n_nodes - len(seed))])
    influence = rows.influence(whole_seed)[: len(seed)]
    limit = CONSERVATION_LIMITS.get(local.frozen.dtype)
    if sweeper.attention.precision == Precision.TF32:
        limit = TF32_LIMIT
    progress("graph", 0, 1)
    weights = rows.matrix()
    inner = None
    if settings.inner_rows:
        progress("norms", 0, 1)
        inner = sweep_inside(sweeper, rows, weights, whole_seed, settings.inner_rows)
    progress("check", 0, 1)
    residuals = np.array([*rows.residuals, *(inner.rows.residuals if inner else [])])
    expanded = rows.expanded()[: len(seed)]
    replayed = replay_difference(local, sources)
    checks = _checks(nodes, seed, influence, expanded, residuals, replayed, local, limit)
    heads = None
    if totals is not None:
        sizes = row_sizes(weights) + rows.dropped_absolute()
        heads, miss = _head_columns(totals, numbers, sizes)
        checks = checks.model_copy(update={"heads_max": miss})
    progress("label", 0, 1)
    columns = sources.feature_column
    strongest = _strongest(local.features, influence[columns], settings.labels)
    tokens = output_tokens(local.frozen, local.features, strongest, subject.spell)
    sinks = attention_sinks(local, influence[columns])
    progress("graph", 0, 1)
    return AttributionGraph(
        nodes=nodes,
        weights=first_nodes(weights, len(nodes)),
        seed=seed,
        dropped=rows.dropped()[: len(nodes)],
        dropped_absolute=rows.dropped_absolute()[: len(nodes)],
        expanded=expanded,
        provenance=_provenance(subject, sweeper, settings, checks, sinks, numbers),
        output_tokens=dict(zip(columns[strongest].tolist(), tokens, strict=True)),
        descriptions=_descriptions(source, local.features, strongest),
        responses=_responses(sweeper, rows, weights, numbers, inner),
        heads=heads,
    )


class _Numbers(NamedTuple):
    """Numbers of targets and of rows of the final norm, brought to the host by one copy."""

    value: Float[ndarray, " target"]
    constant: Float[ndarray, " target"]
    squares: Float[ndarray, "layer 2"]  # as in `Sources`
    norms: tuple[Float[ndarray, " row"], ...]  # values
    heads: tuple[ndarray, ...]  # parts, rest and value of `_Totals`

    @staticmethod
    def of(sweeper: Sweeper, totals: _Totals | None) -> _Numbers:
        targets, squares = sweeper.local.targets, sweeper.sources.squares.flatten()
        columns = [targets.value, targets.constant, squares, *(one.value for one in sweeper.norms)]
        if totals is not None:
            columns += [totals.parts.flatten(), totals.rest, totals.value]
        ends = np.cumsum([len(column) for column in columns])[:-1]
        whole = in_float64(torch.cat([exact(column) for column in columns])).numpy()
        value, constant, squares, *rest = np.split(whole, ends)
        heads = tuple(rest[len(sweeper.norms) :])
        return _Numbers(
            value, constant, squares.reshape(-1, 2), tuple(rest[: len(sweeper.norms)]), heads
        )


class _Totals(NamedTuple):
    """What heads write into the nodes with rows."""

    node: Int[ndarray, " row"]
    parts: Float[Tensor, "row layer head"]
    rest: Float[Tensor, " row"]
    value: Float[Tensor, " row"]  # what the two add up to


def _head_totals(sweeper: Sweeper, rows: CollectedRows) -> _Totals:
    """What heads write into expanded features and targets, in the order of nodes."""
    local, sources = sweeper.local, sweeper.sources
    features, targets = local.features, local.targets
    chosen = np.flatnonzero(rows.expanded()[sources.feature_column])
    row = on_device(chosen, features.layer.device)
    value = (features.value - features.constant).index_select(0, row)
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, max(1, len(chosen)), ROWS_AT_ONCE):
        covectors = [features.covectors(chosen[start : start + ROWS_AT_ONCE])]
        if start + ROWS_AT_ONCE >= len(chosen):
            covectors.append(targets.covectors)
        parts.append(_in_place(sweeper, Covectors.joined(covectors)))
    behind = np.arange(len(targets.described)) + sources.first_column[-1]
    return _Totals(
        node=np.concatenate([sources.feature_column[chosen], behind]),
        parts=torch.cat([heads for heads, _ in parts]),
        rest=torch.cat([rest for _, rest in parts]),
        value=torch.cat([value, targets.value - targets.constant]),
    )


def _in_place(sweeper: Sweeper, covectors: Covectors) -> tuple[Tensor, Tensor]:
    """As `sweep_in_place`, in the order in which the targets are given."""
    local = sweeper.local
    order = np.argsort(-covectors.level, kind="stable")
    back = on_device(np.argsort(order), covectors.covector.device)
    found = sweep_in_place(local.frozen, local.recording, sweeper.sources, covectors.take(order))
    return found[0].index_select(0, back), found[1].index_select(0, back)


def _head_columns(
    totals: _Totals, numbers: _Numbers, sizes: Float[ndarray, " node"]
) -> tuple[HeadTotals, float]:
    """The same on the host, and the largest difference from a value over its row's absolute sum."""
    parts, rest, value = numbers.heads
    parts = parts.reshape(totals.parts.shape)
    miss, own = np.abs(parts.sum((1, 2)) + rest - value), sizes[totals.node]
    misses = np.divide(miss, own, out=np.zeros_like(miss), where=own > 0)
    number = np.float64 if totals.parts.dtype == torch.float64 else np.float32
    kept = HeadTotals(totals.node, parts.astype(number), rest.astype(number))
    return kept, float(misses.max(initial=0.0))


def _nodes(
    sources: Sources, targets: Targets, value: Float[ndarray, " target"]
) -> tuple[NodeTable, Float[ndarray, " node"]]:
    """All nodes, sources first, and the seed of influence."""
    table = node_table([(targets.kind, -1, targets.covectors.pos, targets.index, np.nan, value)])
    columns = zip(sources.nodes.columns().values(), table.columns().values(), strict=True)
    seed = np.concatenate([np.zeros(len(sources.nodes)), targets.covectors.weight])
    return NodeTable(*(np.concatenate(pair) for pair in columns)), seed


def _responses(
    sweeper: Sweeper,
    rows: CollectedRows,
    weights: csr_array,
    numbers: _Numbers,
    inner: Inner | None,
) -> Responses:
    """Rows of the final norm, and those inside the model if there are any."""
    local, sources, count = sweeper.local, sweeper.sources, sweeper.n_explained
    values, features = [*numbers.norms], local.features.numbers
    parts, swept = [*sweeper.norms], [(rows, weights, count)]
    flows = np.zeros((rows.n_nodes, 0))
    if inner is not None:
        parts += inner.parts
        values += [in_float64(part.value).numpy() for part in inner.parts]
        swept.append((inner.rows, inner.rows.matrix(), sources.first_column[-1]))
        flows = np.concatenate(inner.flows)
    constant, threshold = np.full(count, np.nan), np.full(count, np.nan)
    reads_norm = np.array(local.features.reads_norm)[local.features.on_host.layer]
    constant[sources.feature_column] = np.where(reads_norm, features.constant, np.nan)
    reads_norm = [_reads_norm(one, local.features) for one in local.targets.readings]
    constant[len(sources.nodes) :] = np.where(reads_norm, numbers.constant, np.nan)
    threshold[sources.feature_column] = features.threshold
    return Responses(
        norms=tuple(
            _frozen_norm(part, value)
            for part, value in zip(parts, values, strict=True)
            if part.norm is not None
        ),
        neurons=None if inner is None else inner.neurons,
        constant=np.concatenate([constant, *(_constants(part) for part in parts)]),
        threshold=threshold,
        nodes=_response_nodes(parts, values),
        weights=csr_array(vstack([_rows_from(one, first, count) for _, one, first in swept])),
        dropped=np.concatenate([one.dropped()[first:] for one, _, first in swept]),
        dropped_absolute=np.concatenate(
            [one.dropped_absolute()[first:] for one, _, first in swept]
        ),
        flows=flows,
    )


def _reads_norm(reading: Reading, features: ActiveFeatures) -> bool:
    """Whether a target reads the residual through a norm; a dictionary may read it as it is."""
    if isinstance(reading, FeatureReading) and reading.what == "feature":
        return features.reads_norm[reading.layer]
    return reading.norm is not None


def _frozen_norm(part: ResponsePart, value: Float[ndarray, " row"]) -> FrozenNorm:
    """The norm that a part has rows of; the first has its residual."""
    norm, covectors = part.norm, part.covectors
    assert norm is not None
    assert norm.eps is not None
    layer, width = int(covectors.layer[0]), len(norm.gain)
    return FrozenNorm(
        before=part.before,
        layer=layer,
        pos=int(covectors.pos[0]),
        mean_square=float(value[0]) / width + norm.eps,
        width=width,
        dimensions=width - norm.centred,
    )


def _constants(part: ResponsePart) -> Float[ndarray, " row"]:
    """Of the values of rows the parts that come from biases."""
    return np.zeros(len(part)) if part.norm else in_float64(part.constant).numpy()


def _response_nodes(parts: list[ResponsePart], values: list[ndarray]) -> NodeTable:
    none = np.zeros(0, dtype=np.int64)
    groups = [
        (part.kind, part.covectors.layer, part.covectors.pos, part.index, np.nan, value)
        for part, value in zip(parts, values, strict=True)
    ]
    return node_table(groups or [(NodeKind.NORM, none, none, none)])


def _rows_from(weights: csr_array, first: int, count: int) -> csr_array:
    """Rows from `first` on, over the first nodes; no other has weights into them."""
    start = weights.indptr[first]
    parts = (weights.data[start:], weights.indices[start:], weights.indptr[first:] - start)
    return csr_array(parts, shape=(weights.shape[0] - first, count))


def _checks(
    nodes: NodeTable,
    seed: Float[ndarray, " node"],
    influence: Float[ndarray, " node"],
    expanded: Bool[ndarray, " node"],
    residuals: Float[ndarray, " row"],
    replayed: float,
    local: LocalReplacement,
    limit: float | None,
) -> Checks:
    frozen = local.frozen
    if not np.all(np.isfinite(residuals)):
        raise DamagedWeights(
            f"Rows of the graph overflow {frozen.dtype} because weights are too large: use --dtype "
            "float64, or download the weights of the model and dictionary again."
        )
    return Checks(
        conservation_max=float(residuals.max()),
        conservation_median=float(np.median(residuals)),
        conservation_limit=limit,
        replay_max_difference=replayed,
        recording_max_difference=frozen.recording_difference,
        recording_limit=None if frozen.recording_difference is None else RECORDING_LIMIT,
        influence_resolved=resolved_share(nodes, expanded, seed, influence),
        error_influence_share=error_influence_share(nodes, influence),
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
        residual = moved(residual, block.device)
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
    return moved(residual, frozen.device)


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
    settings: TraceSettings,
    checks: Checks,
    sinks: tuple[Sink, ...],
    numbers: _Numbers,
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
        fit=dictionary_fit(local, numbers.squares),
        sinks=sinks,
        targets=local.targets.described,
        settings=_header_settings(settings),
        checks=checks,
    )


def first_nodes(weights: csr_array, count: int) -> csr_array:
    """The rows and columns of the first nodes, on which no other column has weights."""
    end = weights.indptr[count]
    parts = (weights.data[:end], weights.indices[:end], weights.indptr[: count + 1])
    return csr_array(parts, shape=(count, count))


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
        "inner_rows": settings.inner_rows,
    }
