"""Check: a graph's report card, from interventions in the model (see `graphs.report`).

Sets of features are ablated in the free regime, where the model runs by itself.  They are drawn
from all features that are active on the prompt, whatever of them the graph still has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from circuits.experiment import Experiment
from circuits.filled import Filled
from circuits.intervene import Outcomes, intervene
from circuits.progress import Progress, ignore_progress
from circuits.replacement import replacement_report
from circuits.transcoders import TranscoderSet
from graphs.changes import Change, Intervention
from graphs.graph import AttributionGraph, row_sizes
from graphs.influence import influence
from graphs.nodes import NodeId, NodeKind
from graphs.opposing import total_effects
from graphs.prune import PruneSettings, prune
from graphs.regime import Regime
from graphs.report import KS, CurveReport, EffectReport, Report, StrongestReport
from graphs.reporting import areas, effect_report, set_report


@dataclass(frozen=True)
class CheckSettings:
    """How much is tested."""

    features: int = 100  # those of most influence, ablated one by one
    strongest: int = 20  # those that raise the targets most, ablated together
    random_sets: int = 20  # for each set of features that is tested
    random_orders: int = 5  # for the curve
    prune: PruneSettings = field(default_factory=PruneSettings)  # of a whole graph: its circuit
    seed: int = 0


def check(
    experiment: Experiment,
    settings: CheckSettings | None = None,
    progress: Progress = ignore_progress,
) -> Report:
    """Test a graph in its model."""
    settings = settings or CheckSettings()
    graph, source = experiment.graph, experiment.source
    targets = graph.target_rows()
    sizes = row_sizes(graph.weights)[targets]
    lost = graph.dropped_absolute[targets]
    dictionary = source.transcoders if isinstance(source, Filled) else source
    replaced = None
    if isinstance(dictionary, TranscoderSet):
        progress("replace", 0, 1)
        replaced = replacement_report(experiment.frozen, experiment.recording, dictionary)
    features = Features(experiment)
    report = Report(
        generator=f"headwater {version('headwater')}",
        dropped=float(lost.sum() / (float((sizes + lost).sum()) or 1.0)),
        effects=_effects(features, settings, progress),
        replacement=replaced,
    )
    parts = _sets(features, settings, progress)
    return report.model_copy(
        update={**parts, "strongest": _strongest(features, settings, progress)}
    )


def _effects(
    features: Features, settings: CheckSettings, progress: Progress
) -> tuple[EffectReport, ...]:
    """The strongest features of the graph, each ablated alone, in every regime."""
    experiment, graph = features.experiment, features.experiment.graph
    strongest = (features.nodes[number] for number in features.order.tolist())
    nodes = islice((node for node in strongest if node in graph), settings.features)
    made = [Intervention(str(node), (Change(node, 0.0),)) for node in nodes]
    if not made:
        return ()
    targets = graph.target_rows()
    found: list[EffectReport] = []
    for regime in Regime:
        outcomes = intervene(experiment, made, regime, progress=progress)
        predicted, measured = outcomes.predicted[:, targets], outcomes.measured[:, targets]
        found.append(effect_report(regime, predicted.ravel(), measured.ravel()))
    return tuple(found)


def _sets(features: Features, settings: CheckSettings, progress: Progress) -> dict[str, object]:
    """Necessity, sufficiency and the curve, from the ablation of many sets of features."""
    if len(features) == 0:
        return {}
    generator = np.random.default_rng(settings.seed)
    graph = features.experiment.graph
    pruned = "prune" in graph.provenance.settings  # a pruned graph is the circuit
    circuit = features.inside(graph if pruned else prune(graph, settings.prune))
    alike = [features.alike(circuit, generator) for _ in range(settings.random_sets)]
    orders = [
        features.order,
        *(generator.permutation(len(features)) for _ in range(settings.random_orders)),
    ]
    counts = np.maximum(1, np.round(np.array(KS) * len(features))).astype(int)
    left = [_first(order, count) for order in orders for count in counts.tolist()]
    nothing = np.zeros(len(features), dtype=bool)
    kept = [nothing, circuit, ~circuit, *alike, *(~one for one in alike), *left]
    value = features.left(kept, progress)
    if not value[0] < 0:
        return {}  # all features together do not raise the targets: there is nothing to share out
    share = 1 - value / value[0]
    n, start = settings.random_sets, 3 + 2 * settings.random_sets
    curves = share[start:].reshape(len(orders), len(counts))
    cpr, cmd = zip(*(areas(counts / len(features), curve) for curve in curves), strict=True)
    size = int(circuit.sum())
    return {
        "sufficiency": set_report(size, float(share[1]), share[3 : 3 + n]),
        "necessity": set_report(size, 1 - float(share[2]), 1 - share[3 + n : 3 + 2 * n]),
        "curve": CurveReport(
            shares=tuple((counts / len(features)).tolist()),
            faithfulness=tuple(curves[0].tolist()),
            cpr=cpr[0],
            cmd=cmd[0],
            random_cpr=float(np.mean(cpr[1:])),
            random_cmd=float(np.mean(cmd[1:])),
        ),
    }


def _strongest(
    features: Features, settings: CheckSettings, progress: Progress
) -> StrongestReport | None:
    """The few features that raise the targets most, ablated together, beside random ones."""
    if len(features) == 0:
        return None
    experiment, generator = features.experiment, np.random.default_rng(settings.seed)
    graph, targets = experiment.graph, experiment.graph.target_rows()
    few = _first(features.raising, settings.strongest)
    alike = [features.alike(few, generator) for _ in range(settings.random_sets)]
    outcomes = features.ablated([few, *alike], progress)
    drop = -features.change(outcomes)
    seed = graph.seed[targets]
    top = graph.provenance.targets[int(seed.argmax())].token_id
    probability = None
    if top is not None:
        left = outcomes.after.double().softmax(-1)[:, top].tolist()
        before = float(outcomes.before.double().softmax(-1)[top])
        probability = (before, left[0], float(np.mean(left[1:])))
    return StrongestReport(
        features=int(few.sum()),
        value=float(graph.nodes.value[targets] @ seed / seed.sum()),
        drop=float(drop[0]),
        random_drop=float(drop[1:].mean()),
        random_sd=float(drop[1:].std(ddof=1)) if len(alike) > 1 else 0.0,
        chance=float(np.mean(drop[1:] >= drop[0])),
        probability=probability,
    )


class Features:
    """All features that are active on a prompt, and what ablating some of them does."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        active = experiment.features
        self.layer: Int[ndarray, " feat"] = active.layer.cpu().numpy()
        self.nodes = [NodeId(NodeKind.FEATURE, *place) for place in active.places()]
        self.changes = [Change(node, 0.0) for node in self.nodes]
        self.order = self._ordered(influence(experiment.graph))  # most influence first

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def raising(self) -> Int[ndarray, " feat"]:
        """Features by what they do for the targets over all paths, weighted by the seed."""
        graph = self.experiment.graph
        targets = graph.target_rows().tolist()
        effects = [graph.seed[row] * total_effects(graph, row) for row in targets]
        return self._ordered(np.sum(effects, axis=0))

    def _ordered(self, values: Float[ndarray, " node"]) -> Int[ndarray, " feat"]:
        """Largest first; what the graph does not have counts 0."""
        row = self.experiment.row.cpu().numpy()
        of_features = np.zeros(len(self.nodes))
        of_features[row[row >= 0]] = values[row >= 0]
        return np.argsort(-of_features, kind="stable")

    def inside(self, graph: AttributionGraph) -> Bool[ndarray, " feat"]:
        """Those that are in a graph."""
        return np.array([node in graph for node in self.nodes])

    def alike(
        self, chosen: Bool[ndarray, " feat"], generator: np.random.Generator
    ) -> Bool[ndarray, " feat"]:
        """As many of every layer, at random."""
        found = np.zeros_like(chosen)
        for layer in np.unique(self.layer[chosen]):
            here = np.flatnonzero(self.layer == layer)
            count = int(chosen[here].sum())
            found[generator.choice(here, count, replace=False)] = True
        return found

    def left(
        self, kept: list[Bool[ndarray, " feat"]], progress: Progress
    ) -> Float[ndarray, " set"]:
        """Change of the targets' value, weighted by the seed, with only some features left."""
        return self.change(self.ablated([~some for some in kept], progress))

    def ablated(
        self, sets: list[Bool[ndarray, " feat"]], progress: Progress = ignore_progress
    ) -> Outcomes:
        """Sets of features, each ablated together, the model running freely."""
        made = [
            Intervention(
                f"{int(some.sum())} features to 0",
                tuple(self.changes[number] for number in np.flatnonzero(some).tolist()),
            )
            for some in sets
        ]
        return intervene(self.experiment, made, Regime.FREE, progress=progress)

    def change(self, outcomes: Outcomes) -> Float[ndarray, " set"]:
        """Of the targets' value, weighted by the seed."""
        graph = self.experiment.graph
        targets = graph.target_rows()
        return outcomes.measured[:, targets] @ graph.seed[targets] / graph.seed[targets].sum()


def _first(order: Int[ndarray, " feat"], count: int) -> Bool[ndarray, " feat"]:
    found = np.zeros(len(order), dtype=bool)
    found[order[:count]] = True
    return found
