"""What holding each part of the model costs predictions: effects with one part after another held.

    python benchmarks/held.py --out benchmarks/results/held.md

A graph predicts with everything held but what its responses let run.  Here the same ablations run
in models that hold one part more from row to row, up to the graph: what attention looks at, what a
dictionary leaves of the MLPs, features that the graph does not have, activation functions, norms.
Each row is compared with the constrained run of the real model.  So every row bounds what a graph
can predict that holds as much.  A second table has more and more neurons in the graph of Gemma.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from statistics import median

import numpy as np
import torch
from faithfulness import GEMMA, ablations, material, parser, show
from numpy import ndarray
from torch import Tensor

from circuits.features.neuron_layer import NeuronLayer
from circuits.features.neurons import Neurons
from circuits.features.transcoder_layer import TranscoderLayer
from circuits.interventions.additions import EditVisitor
from circuits.interventions.attending import AS_IT_IS, Attending
from circuits.interventions.constrained_run import (
    Hold,
    _norm,  # pyright: ignore[reportPrivateUsage]
)
from circuits.interventions.experiment import Experiment
from circuits.interventions.intervene import Outcomes, intervene
from circuits.machine import exactly
from circuits.model.frozen import NORMS
from circuits.recording.record import Hooks, precise_attention
from graphs import Intervention, Regime
from graphs.comparison.compare import rank_correlation
from graphs.core.nodes import NodeKind
from graphs.core.nonlinearities import STEP

PROMPTS = 8
CURVE, CURVE_PROMPTS = (1024, 2048, 4096, 8192), 3  # neurons
COPIES = 50  # of a prompt, in one run
FRONT, BEHIND = ("attention_norm", "mlp_norm"), ("post_attention_norm", "post_mlp_norm")


@dataclass(frozen=True)
class Running:
    """What runs above the last block that is held."""

    norms: tuple[str, ...] = (*NORMS, "final")
    outside: bool = True  # features that the graph does not have
    errors: bool = True  # what the dictionary leaves of the MLPs
    functions: bool = True  # activation functions and thresholds; else features are linear
    slopes: bool = True  # linear neurons: by the slopes of gate and factor; else by the half rule


ALL = Running()
HELD = replace(ALL, errors=False, outside=False, functions=False)
LADDER = {
    "MLPs are the dictionary's features, their errors held": replace(ALL, errors=False),
    "and only features of the graph follow": replace(ALL, errors=False, outside=False),
    "and features are linear (neurons by slopes)": HELD,
    "and norms behind attention and MLPs are held": replace(HELD, norms=(*FRONT, "final")),
    "and norms in front of attention are held": replace(HELD, norms=("mlp_norm", "final")),
    "and norms in front of MLPs are held": replace(HELD, norms=("final",)),
    "and neurons follow the half rule": replace(HELD, norms=("final",), slopes=False),
    "and the final norm is held": replace(HELD, norms=(), slopes=False),
}


class Bounded:
    """A run of the model above a held block, in which only some parts run."""

    def __init__(self, experiment: Experiment, running: Running, through: Sequence[int]) -> None:
        self.experiment, self.running = experiment, running
        self.frozen, self.recording = experiment.local.frozen, experiment.local.recording
        self.hold = Hold(np.array(through), patterns=True)
        graph, features = experiment.graph, experiment.local.features
        self.changes = np.zeros((len(through), len(graph)))
        self.inside = np.zeros(len(features), dtype=bool)
        self.inside[experiment.row[experiment.row >= 0]] = True
        self.pending: dict[int, Tensor] = {}  # by layer: what changed features add
        self.contribution: Tensor | None = None  # what the edits add behind the MLP

    def run(self, interventions: Sequence[Intervention]) -> ndarray:
        """Changes of the values of features and targets."""
        length = len(self.recording.prompt)
        self.edits = EditVisitor(self.experiment, interventions, self.hold, length)
        ids = torch.tensor([self.recording.prompt.ids] * len(interventions))
        final: list[Tensor] = []
        with torch.no_grad(), precise_attention(self.frozen, own=True), Hooks() as hooks:
            for layer in range(self.frozen.n_layers):
                self._hook(hooks, layer)
            hooks.before(self.frozen.final_norm_module, final.append)
            self.frozen.model(input_ids=ids, use_cache=False, logits_to_keep=1)
        self._read_targets(final[0][:, self.recording.position])
        return self.changes

    def _hook(self, hooks: Hooks, layer: int) -> None:
        block, recorded = self.frozen.blocks[layer], self.recording.blocks[layer]
        modules, held = block.modules, torch.tensor(self.hold.at(layer))[:, None, None]
        given: list[Tensor] = []

        def output(_: Tensor, own: Tensor) -> Tensor:
            added = self.edits(layer, given[0])
            self.contribution = added.contribution
            own = own if added.output is None else own + added.output
            at = self.experiment.local.features.at(layer)
            if not isinstance(at, NeuronLayer):
                return own
            change = self._neurons(layer, at, given[0])
            return torch.where(held, own, own + change @ at.down.T)

        def contribution(_: Tensor, own: Tensor) -> Tensor:
            at = self.experiment.local.features.at(layer)
            if isinstance(at, TranscoderLayer):
                self._features(layer, at, given[0], held)
                change = self.pending.pop(layer, torch.zeros_like(own))
                if not self.running.errors:
                    own = recorded.contribution + change
            kept = torch.where(held, recorded.contribution, own)
            return kept if self.contribution is None else kept + self.contribution

        hooks.before(modules.mlp_reader, given.append)
        hooks.after(modules.mlp, output)
        for name, module, norm in block.norms():
            mask = held if name in self.running.norms else torch.ones_like(held)
            denominator = getattr(recorded, name.replace("_norm", "_denominator"))
            hooks.after(module, partial(_norm, norm, denominator, mask))
        multiplier = self.frozen.residual_multiplier
        hooks.after(modules.mlp_contribution, contribution, factor=multiplier)
        attending = Attending(self.hold.pattern(layer, recorded), AS_IT_IS)
        hooks.giving(modules.attention, mix=attending)

    def _inputs(self, layer: int, residual: Tensor) -> tuple[Tensor, Tensor]:
        """What the dictionary reads on the prompt and now."""
        points, recorded = self.experiment.local.features.at(layer).points, self.recording.blocks
        before = points.inputs(layer)
        if "mlp_norm" in self.running.norms:
            return before, points.running_inputs(layer, residual)
        pos = torch.arange(residual.shape[1])
        change = residual - recorded[layer].mlp_residual
        return before, before + points.linear_input(layer, pos, change)

    def _neurons(self, layer: int, at: NeuronLayer, residual: Tensor) -> Tensor:
        """What changes of the neurons' activations are not to be, beside what the MLP computes."""
        before, now = self._inputs(layer, residual)
        was = [before @ branch.weight.T + branch.bias for branch in at.branches]
        into = [now @ branch.weight.T + branch.bias for branch in at.branches]
        f, factor = at.nonlinearity, (torch.ones_like(was[0]), torch.ones_like(into[0]))
        if len(into) > 1:
            factor = was[1], into[1]
        real = f(into[0]) * factor[1] - at.activation
        wanted = real
        if not self.running.functions:
            if self.running.slopes:
                slope = (f(was[0] + STEP) - f(was[0] - STEP)) / (2 * STEP)
                through_gate = slope * factor[0] * (into[0] - was[0])
                wanted = through_gate + f(was[0]) * (factor[1] - factor[0])
            else:
                pairs = zip(at.branches, into, was, strict=True)
                wanted = sum((one.factor * (b - a) for one, b, a in pairs), torch.zeros(()))
        if not self.running.outside:
            wanted = torch.where(self._inside(layer, at.activation), wanted, 0)
        self._keep(layer, wanted)
        return wanted - real

    def _features(self, layer: int, at: TranscoderLayer, residual: Tensor, held: Tensor) -> None:
        """Queue what the changed features of a transcoder add."""
        before, now = self._inputs(layer, residual)
        was, into = map(at.transcoder.pre_activations, (before, now))
        here, first = self.experiment.local.features.read_at(layer), self.recording.prompt.n_prefix
        activation = torch.zeros_like(was)
        places = self.experiment.local.features.on_host
        activation[places.pos[here], places.index[here]] = at.activation
        change = into - was
        self._keep(layer, change)
        new = at.transcoder.nonlinearity(into.flatten(0, 1)).view_as(into)
        if not self.running.functions:
            new = torch.where(activation != 0, activation + change, 0)
        if not self.running.outside:
            new = torch.where(self._inside(layer, activation), new, activation)
        new[:, :first] = 0
        new = torch.where(held, activation, new)
        for offset in range(at.n_written):
            written = at.transcoder.written(offset, new) - at.transcoder.written(offset, activation)
            self.pending[layer + offset] = self.pending.get(layer + offset, 0) + written

    def _inside(self, layer: int, like: Tensor) -> Tensor:
        """Whether the graph has a feature, by position and index."""
        features, mask = self.experiment.local.features, torch.zeros_like(like, dtype=torch.bool)
        rows = np.flatnonzero(self.inside[features.read_at(layer)]) + features.first[layer]
        mask[features.on_host.pos[rows], features.on_host.index[rows]] = True
        return mask

    def _keep(self, layer: int, changes: Tensor) -> None:
        """Keep the changes of the values of the graph's features."""
        nodes, runs = self.experiment.graph.nodes, ~self.hold.at(layer)
        here = np.flatnonzero(nodes.is_kind(NodeKind.FEATURE) & (nodes.layer == layer))
        found = changes[:, nodes.pos[here], nodes.index[here]].double().numpy()
        self.changes[np.ix_(runs, here)] = found[runs]

    def _read_targets(self, final: Tensor) -> None:
        local, graph = self.experiment.local, self.experiment.graph
        own = self.recording.final_denominator[self.recording.position]
        scale = own / self.frozen.final_norm.denominator(final)
        if "final" not in self.running.norms:
            scale = torch.ones_like(scale)
        values = (final @ local.targets.covectors.covector.T) * scale[:, None]
        change = values + local.targets.constant - local.targets.value
        self.changes[:, graph.target_rows()] = change.double().numpy()


def agreement(changes: ndarray, measured: ndarray) -> tuple[float, float]:
    """Rank correlation, and share of the same sign."""
    same = float(np.mean(np.sign(changes) == np.sign(measured)))
    return rank_correlation(changes, measured), same


def ladder(name: str, prompts: int) -> dict[str, list[tuple[float, ...]]]:
    """By row and prompt: rank correlation and same sign at targets, then at features."""
    found: dict[str, list[tuple[float, ...]]] = {}
    own = material(name)
    for prompt in own.prompts[:prompts]:
        experiment = own.experiment(prompt)
        made = ablations(experiment)
        measured = intervene(experiment, made, Regime.CONSTRAINED)
        free = intervene(experiment, made, Regime.FREE)
        rows = {"attention patterns run, compared with held ones": free.measured}
        with exactly():
            for title, running in LADDER.items():
                rows[title] = _bounded(experiment, running, made, measured)
        rows["the graph, with its final norm running"] = measured.predicted
        agree = _pairs(experiment, measured)
        for title, changes in rows.items():
            found.setdefault(title, []).append(agree(changes))
    return found


def _bounded(
    experiment: Experiment, running: Running, made: list[Intervention], measured: Outcomes
) -> ndarray:
    """Changes in a model that holds the rest."""
    parts: list[ndarray] = []
    for start in range(0, len(made), COPIES):
        some = slice(start, start + COPIES)
        bounded = Bounded(experiment, running, measured.through[some])
        parts.append(bounded.run(made[some]))
    return np.concatenate(parts)


def _pairs(
    experiment: Experiment, measured: Outcomes
) -> Callable[[ndarray], tuple[float, float, float, float]]:
    """Agreement of changes with the measured ones, at targets and at features."""
    graph = experiment.graph
    targets = graph.target_rows()
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE) & graph.expanded)
    predicted = measured.predicted[:, features]
    changed = (predicted != 0) & np.isfinite(predicted)  # those that the graph predicts to change

    def agree(changes: ndarray) -> tuple[float, float, float, float]:
        both = (changes, measured.measured)
        at_targets = (one[:, targets].ravel() for one in both)
        at_features = (one[:, features][changed] for one in both)
        return *agreement(*at_targets), *agreement(*at_features)

    return agree


def curve() -> list[str]:
    """Lines of the table of Gemma with more and more neurons in the graph."""
    lines = [
        f"{GEMMA} with more of its neurons in the graph, of {CURVE_PROMPTS} prompts: what bounds "
        "the prediction (only neurons of the graph follow, exactly), and the graph with rows of "
        "all its norms and gates:",
        "",
        "| neurons | bound: targets | features | graph: targets | features |",
        "|--:|--:|--:|--:|--:|",
    ]
    for count in CURVE:
        found: list[tuple[float, ...]] = []
        own = replace(material(GEMMA), source=Neurons(count))
        for prompt in own.prompts[:CURVE_PROMPTS]:
            experiment = own.experiment(prompt, inner_rows=10**6, max_features=count)
            made = ablations(experiment)
            measured = intervene(experiment, made, Regime.CONSTRAINED)
            pairs = _pairs(experiment, measured)
            with exactly():
                exact = _bounded(experiment, replace(ALL, outside=False), made, measured)
            found.append(tuple(n for one in (exact, measured.predicted) for n in pairs(one)))
        middle = [median(column) for column in zip(*found, strict=True)]
        cells = [f"{middle[i]:.2f} / {middle[i + 1]:.2f}" for i in range(0, len(middle), 2)]
        lines.append(f"| {count:,} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=PROMPTS)
    arguments = options.parse_args()
    found = {name: ladder(name, arguments.prompts) for name in arguments.models}
    lines = [
        "What holding each part of the model costs: rank correlation / same sign of single "
        "ablations with constrained runs of the real model, at targets and at features; every row "
        f"holds all that the rows above it hold. Medians over {arguments.prompts} prompts, "
        f"{date.today():%Y-%m-%d}, {platform.machine()}.",
        "",
        "| | " + " | ".join(f"{name}: targets | features" for name in found) + " |",
        "|---|" + "--:|--:|" * len(found),
    ]
    for title in next(iter(found.values())):
        cells: list[str] = []
        for some in found.values():
            middle = [median(column) for column in zip(*some[title], strict=True)]
            cells += [f"{middle[0]:.2f} / {middle[1]:.2f}", f"{middle[2]:.2f} / {middle[3]:.2f}"]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    if GEMMA in arguments.models:
        lines += ["", *curve()]
    show(lines, arguments.out)


if __name__ == "__main__":
    main()
