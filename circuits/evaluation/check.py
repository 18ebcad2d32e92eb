"""Check: a graph's report card, from interventions in the model (see `graphs.core.report`).

Sets of features are ablated in the free regime.  They are drawn from all features that are active
on the prompt, also those pruned from the graph.
"""

from __future__ import annotations

from importlib.metadata import version
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from circuits.evaluation.ablation import Ablation
from circuits.evaluation.adversary import adversary
from circuits.evaluation.attention_claims import attention_report
from circuits.evaluation.evaluation_settings import CheckSettings
from circuits.evaluation.recomputed import rows_report
from circuits.evaluation.replacement import replacement_report
from circuits.features.hybrid import Filled
from circuits.features.transcoder_set import TranscoderSet
from circuits.interventions.experiment import Experiment
from circuits.interventions.intervene import Outcomes, intervene
from circuits.interventions.origin import ExperimentError
from circuits.machine import in_float64
from circuits.progress import Progress, ignore_progress
from graphs.analysis.prune import prune
from graphs.core.graph import AttributionGraph, row_sizes
from graphs.core.nodes import NodeKind
from graphs.core.regime import Regime
from graphs.core.report import (
    KS,
    CurveReport,
    EffectReport,
    Order,
    Receivers,
    Report,
    StrongestReport,
)
from graphs.interventions.changes import Change, Intervention
from graphs.interventions.permuted import with_permuted_edges
from graphs.interventions.predict import predict
from graphs.interventions.reporting import areas, effect_report, running_report, set_report


def check(
    experiment: Experiment,
    settings: CheckSettings | None = None,
    progress: Progress = ignore_progress,
) -> Report:
    """Test a graph in its model.  Raises ExperimentError if all seeds of its targets are 0."""
    settings = settings or CheckSettings()
    if not experiment.graph.seed.any():
        raise ExperimentError(
            "No target of the graph has a seed, so there is nothing to test: trace again."
        )
    source, local = experiment.source, experiment.local
    dictionary = source.transcoders if isinstance(source, Filled) else source
    replaced = None
    if isinstance(dictionary, TranscoderSet):
        progress("replace", 0, 1)
        replaced = replacement_report(local.frozen, local.recording, dictionary)
    features = Ablation(experiment)
    report = Report(
        generator=f"headwater {version('headwater')}",
        rows=rows_report(experiment),
        running=running_report(experiment.graph),
        effects=_effects(features, settings, progress),
        replacement=replaced,
    )
    circuit = _circuit(features, settings)
    parts = {
        **_sets(features, circuit, settings, progress),
        "adversarial": adversary(features, circuit, settings, progress),
        "strongest": _strongest(features, settings, progress),
        "attention": attention_report(experiment, settings.seed),
    }
    return report.model_copy(update=parts)


def _effects(
    features: Ablation, settings: CheckSettings, progress: Progress
) -> tuple[EffectReport, ...]:
    """The strongest features of the graph, each ablated alone, in every regime."""
    experiment, graph = features.experiment, features.experiment.graph
    strongest = (features.nodes[number] for number in features.order.tolist())
    nodes = islice((node for node in strongest if node in graph), settings.features)
    interventions = [Intervention(str(node), (Change(node, 0.0),)) for node in nodes]
    if not interventions:
        return ()
    found: list[EffectReport] = []
    for regime in Regime:
        outcomes = intervene(experiment, interventions, regime, progress=progress)
        found.extend(effect_reports(graph, outcomes, settings.permutations, settings.seed))
    return tuple(found)


def effect_reports(
    graph: AttributionGraph, outcomes: Outcomes, permutations: int = 0, seed: int = 0
) -> tuple[EffectReport, ...]:
    """Predicted and measured effects at the targets, and at features predicted to change.

    Where anything runs, predictions are made in both orders, which are the same elsewhere, and the
    null is what so many graphs with permuted edges predict of the same effects.
    """
    inner = graph.nodes.is_kind(NodeKind.FEATURE) & graph.expanded
    receivers: dict[Receivers, Int[ndarray, " node"]] = {
        "targets": graph.target_rows(),
        "features": np.flatnonzero(inner),
    }
    found: list[EffectReport] = []
    orders: dict[Order, ndarray] = {"first": outcomes.predicted}
    if outcomes.regime != Regime.FROZEN:
        orders["full"] = predict(graph, outcomes.interventions, outcomes.through, "full")
    drawn = _permuted(graph, outcomes, permutations, seed)
    for on, rows in receivers.items():
        first = outcomes.predicted[:, rows]
        has_prediction = np.isfinite(first) & ((first != 0) | _everything_reaches(graph, rows))
        if not np.any(has_prediction):
            continue
        measured, dropped = outcomes.measured[:, rows][has_prediction], _dropped(graph, rows)
        for order, every in orders.items():
            predicted = every[:, rows][has_prediction]
            null = [one[:, rows][has_prediction] for one in drawn if order == "first"]
            parts = (outcomes.regime, on, predicted, measured, dropped, order, null)
            found.append(effect_report(*parts))
    return tuple(found)


def _everything_reaches(
    graph: AttributionGraph, rows: Int[ndarray, " node"]
) -> Bool[ndarray, " node"]:
    """Whether every feature can affect a node: targets behind the last layer."""
    readings = (target.reading for target in graph.provenance.targets)
    final = [one is None or one.layer is None for one in readings]
    return np.isin(rows, graph.target_rows()[final])


def _permuted(
    graph: AttributionGraph, outcomes: Outcomes, permutations: int, seed: int
) -> list[Float[ndarray, "intervention node"]]:
    """The same effects as graphs with permuted edges predict them."""
    if outcomes.regime == Regime.FROZEN:
        return []
    generator = np.random.default_rng(seed)
    drawn = (with_permuted_edges(graph, generator) for _ in range(permutations))
    return [predict(one, outcomes.interventions, outcomes.through) for one in drawn]


def _dropped(graph: AttributionGraph, rows: Int[ndarray, " node"]) -> float:
    """Share of the rows' absolute sum that the graph has dropped."""
    lost = float(graph.dropped_absolute[rows].sum())
    return lost / (float(row_sizes(graph.weights)[rows].sum()) + lost or 1.0)


def _circuit(features: Ablation, settings: CheckSettings) -> Bool[ndarray, " feat"]:
    """The features of the pruned graph."""
    graph = features.experiment.graph
    pruned = "prune" in graph.provenance.settings  # a pruned graph is the circuit
    return features.inside(graph if pruned else prune(graph, settings.prune))


def _sets(
    features: Ablation,
    circuit: Bool[ndarray, " feat"],
    settings: CheckSettings,
    progress: Progress,
) -> dict[str, object]:
    """Necessity, sufficiency and the curve, from the ablation of many sets of features."""
    if len(features) == 0:
        return {}
    generator = np.random.default_rng(settings.seed)
    random_sets = [features.random_set(circuit, generator) for _ in range(settings.random_sets)]
    orders = [
        features.order,
        *(generator.permutation(len(features)) for _ in range(settings.random_orders)),
    ]
    counts = np.maximum(1, np.round(np.array(KS) * len(features))).astype(int)
    left = [_first(order, count) for order in orders for count in counts.tolist()]
    nothing = np.zeros(len(features), dtype=bool)
    kept = [nothing, circuit, ~circuit, *random_sets, *(~one for one in random_sets), *left]
    outcomes = features.ablated([~some for some in kept], progress)
    value = features.change(outcomes)
    if not value[0] < 0:
        return {}  # all features together do not promote the targets: no shares
    share, predicted = 1 - value / value[0], features.predicted_change(outcomes)
    known = bool(np.all(np.isfinite(predicted)) and predicted[0] < 0)
    foreseen = 1 - predicted / predicted[0] if known else np.full_like(share, np.nan)
    n, start = settings.random_sets, 3 + 2 * settings.random_sets
    curves = share[start:].reshape(len(orders), len(counts))
    cpr, cmd = zip(*(areas(counts / len(features), curve) for curve in curves), strict=True)
    size = int(circuit.sum())
    return {
        "sufficiency": set_report(size, float(share[1]), share[3 : 3 + n], float(foreseen[1])),
        "necessity": set_report(
            size,
            1 - float(share[2]),
            1 - share[3 + n : 3 + 2 * n],
            1 - float(foreseen[2]),
        ),
        "curve": CurveReport(
            shares=tuple((counts / len(features)).tolist()),
            faithfulness=tuple(curves[0].tolist()),
            predicted=tuple(foreseen[start : start + len(counts)].tolist()) if known else None,
            cpr=cpr[0],
            cmd=cmd[0],
            random_cpr=float(np.mean(cpr[1:])),
            random_cmd=float(np.mean(cmd[1:])),
        ),
    }


def _strongest(
    features: Ablation, settings: CheckSettings, progress: Progress
) -> StrongestReport | None:
    """Ablate the features of largest total effect together, compared with random sets."""
    if len(features) <= settings.strongest:
        return None  # there are no others to compare with
    experiment, generator = features.experiment, np.random.default_rng(settings.seed)
    graph, targets = experiment.graph, experiment.graph.target_rows()
    few = _first(features.by_total_effect, settings.strongest)
    random_sets = [features.random_set(few, generator) for _ in range(settings.random_sets)]
    outcomes = features.ablated([few, *random_sets], progress)
    drop = -features.change(outcomes)
    seed = graph.seed[targets]
    top = graph.provenance.targets[int(seed.argmax())].token_id
    probability = None
    if top is not None:
        left = in_float64(outcomes.after).softmax(-1)[:, top].tolist()
        before = float(in_float64(outcomes.before).softmax(-1)[top])
        probability = (before, left[0], float(np.mean(left[1:])))
    return StrongestReport(
        features=int(few.sum()),
        value=float(graph.nodes.value[targets] @ seed / seed.sum()),
        drop=float(drop[0]),
        random_drop=float(drop[1:].mean()),
        random_sd=float(drop[1:].std(ddof=1)) if len(random_sets) > 1 else 0.0,
        null_probability=float(np.mean(drop[1:] >= drop[0])),
        probability=probability,
    )


def _first(order: Int[ndarray, " feat"], count: int) -> Bool[ndarray, " feat"]:
    found = np.zeros(len(order), dtype=bool)
    found[order[:count]] = True
    return found
