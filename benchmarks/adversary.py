"""Few features outside a circuit, chosen to change most, beside random ones.

    python benchmarks/adversary.py --out benchmarks/results/adversary.md

The adversary of `headwater check` on the prompts of `faithfulness.py`: on circuits as graphs are
pruned by default, and on circuits that are known to leave out what matters: those without the eight
of their own features that change most, and random ones of the same size and layers.  The limit
beyond which sufficiency is called weak (`graphs.core.report`) was chosen on every second prompt, as
the largest multiple of 0.05 below which none of these is, and is tested on the others.
"""

from __future__ import annotations

import platform
from datetime import date
from statistics import median

import numpy as np
from faithfulness import material, parser, show
from jaxtyping import Bool, Float
from numpy import ndarray

from circuits.evaluation.ablation import Ablation
from circuits.evaluation.adversary import adversary, greedy_steps
from circuits.evaluation.evaluation_settings import CheckSettings
from circuits.interventions.experiment import Experiment
from circuits.interventions.intervene import Outcomes
from circuits.progress import Progress, ignore_progress
from graphs import prune
from graphs.core.report import MOST_OUTSIDE, AdversarialReport

CIRCUITS = ("as pruned", "without their 8 features that change most", "random")
Found = dict[str, tuple[float, AdversarialReport]]  # by circuit: sufficiency and the report
LEAST = "least changed, of those by which the limit was chosen"
BACK = "changed by 8 put back beside the circuit alone, with its sign"
NUMBERS = {
    "sufficiency": lambda share, _: share,
    "changed by 8 outside that change most, of the effect": lambda _, one: abs(one.share),
    "by the first of them": lambda _, one: abs(one.share * one.changes[0] / one.changes[-1]),
    "by random ones, 95 % of sets at most": lambda _, one: one.random_size,
}


def tested(experiment: Experiment) -> Found:
    """What the adversary finds of each circuit; empty if features do not raise the targets."""
    features, settings = Ablation(experiment), CheckSettings()
    pruned = features.inside(prune(experiment.graph))
    steps = greedy_steps(features, np.flatnonzero(pruned), settings)
    without = pruned.copy()
    without[[step.feature for step in steps]] = False
    drawn = features.random_set(pruned, np.random.default_rng(settings.seed))
    found: Found = {}
    for name, circuit in zip(CIRCUITS, (pruned, without, drawn), strict=True):
        report = adversary(features, circuit, settings)
        if report is not None:
            found[name] = (sufficiency(features, circuit), report)
    return found


class PutBack(Ablation):
    """Sets are put back beside a circuit alone, and changes are those from it."""

    def __init__(self, experiment: Experiment, circuit: Bool[ndarray, " feat"]) -> None:
        super().__init__(experiment)
        self.circuit = circuit
        self.alone = 0.0  # until it is measured
        self.alone = float(self.change(self.ablated([np.zeros_like(circuit)]))[0])

    def ablated(
        self, sets: list[Bool[ndarray, " feat"]], progress: Progress = ignore_progress
    ) -> Outcomes:
        """Outcomes of keeping the circuit and each set."""
        return super().ablated([~self.circuit & ~some for some in sets], progress)

    def change(self, outcomes: Outcomes) -> Float[ndarray, " set"]:
        """Change of the targets' value from that of the circuit alone."""
        return super().change(outcomes) - self.alone


def with_few_put_back(experiment: Experiment) -> float | None:
    """Share of the effect that comes with the eight that change most; less than 0 if it falls."""
    features = Ablation(experiment)
    circuit = features.inside(prune(experiment.graph))
    every = np.ones_like(circuit)
    effect = -float(features.change(features.ablated([every]))[0])
    outside = np.flatnonzero(~circuit)
    steps = greedy_steps(PutBack(experiment, circuit), outside, CheckSettings())
    return steps[-1].change / effect if effect > 0 and steps else None


def sufficiency(features: Ablation, circuit: Bool[ndarray, " feat"]) -> float:
    """Share of the effect that is left with the circuit alone."""
    every = np.ones_like(circuit)
    left, nothing = features.change(features.ablated([~circuit, every]))
    return 1 - float(left / nothing)


def lines_of(found: dict[str, list[Found]], back: list[list[float]]) -> list[str]:
    """Lines of the table: medians over prompts, and how many circuits are weak."""
    head = [f"{name} ({len(some)} prompts)" for name, some in found.items()]
    lines = ["| circuits | | " + " | ".join(head) + " |", "|---|---|" + "--:|" * len(found)]
    for circuit in CIRCUITS:
        columns = [[one[circuit] for one in some if circuit in one] for some in found.values()]
        for title, number in NUMBERS.items():
            cells = [f"{median(number(*one) for one in some):.3g}" for some in columns]
            lines.append(f"| {circuit} | {title} | " + " | ".join(cells) + " |")
        first = [min(abs(report.share) for _, report in some[::2]) for some in columns]
        cells = " | ".join(f"{least:.3g}" for least in first)
        lines.append(f"| {circuit} | {LEAST} | {cells} |")
        for title, start in (("by which the limit was chosen", 0), ("of the others", 1)):
            halves = [[one.is_weak for _, one in some[start::2]] for some in columns]
            cells = [f"{sum(half)} of {len(half)}" for half in halves]
            lines.append(f"| {circuit} | weak, {title} | " + " | ".join(cells) + " |")
    cells = [f"{median(some):.3g}" if some else "–" for some in back]
    return [*lines, f"| {CIRCUITS[0]} | {BACK} | " + " | ".join(cells) + " |"]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=20)
    arguments = options.parse_args()
    models = {name: material(name) for name in arguments.models}
    found: dict[str, list[Found]] = {}
    back: list[list[float]] = []
    for name, one in models.items():
        experiments = [one.experiment(prompt) for prompt in one.prompts[: arguments.prompts]]
        found[name] = [tested(experiment) for experiment in experiments]
        values = map(with_few_put_back, experiments)
        back.append([value for value in values if value is not None])
    show(
        [
            "Features outside a circuit that change most when they are ablated, the circuit and "
            f"all else kept; medians over prompts, {date.today():%Y-%m-%d}, {platform.machine()}. "
            f"Sufficiency is called weak where they change more than {MOST_OUTSIDE:.0%} of the "
            "effect and 95 % of random sets of as many features outside per layer do not.",
            "",
            *lines_of(found, back),
        ],
        arguments.out,
    )


if __name__ == "__main__":
    main()
