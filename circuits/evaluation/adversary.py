"""Adversary: the few features outside a circuit whose ablation changes the targets most.

A circuit is sufficient if all that is outside it can go.  Ablating all of that at once says little
about its parts, since those that raise the targets and those that lower them may cancel, and random
parts seldom meet the few that matter.  So all of the circuit is kept and few features outside it
are ablated, one after the other.  With R those that are ablated already, the next is

    argmax_s |m(all but R and s) - m(all)|        s: outside the circuit, measured in the model

This is measured against the model itself, with all but few features as they are on the prompt, so a
change is the model's own dependence on what the circuit leaves out.  The other way round, few
features are put back beside the circuit alone, all else ablated.  Then some of the change is what
sufficiency lacks already, and the rest is of features without those that balance them, in a state
that the model is never in: `benchmarks/adversary.py` has it beside this, `check` does not.

A step measures the candidates whose change, with that of R, was last known as the largest: to first
order (`circuits.evaluation.first_order`), or measured, with fewer ablated.  It finds the maximum if
it measures all.  Sources: greedy search for what a circuit lacks, Wang et al., "Interpretability in
the wild" (arXiv 2211.00593); lazy evaluation of candidates, Minoux, "Accelerated greedy algorithms
for maximizing submodular set functions" (1978).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from circuits.evaluation.ablation import Ablation, random_like
from circuits.evaluation.evaluation_settings import CheckSettings
from circuits.evaluation.first_order import first_order_effects
from circuits.progress import Progress, ignore_progress
from graphs.core.report import AdversarialReport
from graphs.interventions.reporting import adversarial_report


def adversary(
    features: Ablation,
    circuit: Bool[ndarray, " feat"],
    settings: CheckSettings,
    progress: Progress = ignore_progress,
) -> AdversarialReport | None:
    """Ablate the few features outside that do most together, compared with random ones outside.

    None if none is asked for, if nothing is outside, or if all features together do not raise the
    targets, so that there is no effect to give shares of.
    """
    outside = np.flatnonzero(~circuit)
    if not settings.adversarial or not len(outside):
        return None
    every = np.ones(len(features), dtype=bool)
    effect, of_circuit = -features.change(features.ablated([every, circuit], progress))
    if not effect > 0:
        return None
    steps = greedy_steps(features, outside, settings, progress)
    chosen = np.array([step.feature for step in steps])
    generator, layer = np.random.default_rng(settings.seed), features.layer[outside]
    of_outside = np.searchsorted(outside, chosen)
    random_sets = [
        _mask(features, outside[random_like(layer, of_outside, generator)])
        for _ in range(settings.random_sets)
    ]
    return adversarial_report(
        nodes=[str(features.nodes[number]) for number in chosen.tolist()],
        changes=np.array([step.change for step in steps]),
        measured=[step.measured for step in steps],
        outside=len(outside),
        random=features.change(features.ablated(random_sets, progress)),
        circuit=-float(of_circuit),
        effect=float(effect),
    )


class Step(NamedTuple):
    """One feature, ablated with those of the steps before."""

    feature: int  # row among the active ones
    change: float  # of the targets' value, weighted by the seed, by all steps so far
    measured: int  # candidates


def greedy_steps(
    features: Ablation,
    outside: Int[ndarray, " some"],
    settings: CheckSettings,
    progress: Progress = ignore_progress,
) -> list[Step]:
    """The features found one after the other; `outside`: rows of those that may be."""
    added: Float[ndarray, " some"] = first_order_effects(features.experiment)[outside]
    steps: list[Step] = []
    left, total = np.ones(len(outside), dtype=bool), 0.0
    for step in range(min(settings.adversarial, len(outside))):
        size = np.where(left, np.abs(total + added), -1.0)  # as last known
        most = settings.candidates if step == 0 else settings.later_candidates
        candidates = np.argsort(-size, kind="stable")[: min(most, int(left.sum()))]
        ablated = [one.feature for one in steps]
        sets = [_mask(features, np.append(ablated, row).astype(int)) for row in outside[candidates]]
        change = features.change(features.ablated(sets, progress))
        added[candidates] = change - total
        best = int(np.abs(change).argmax())
        left[candidates[best]], total = False, float(change[best])
        steps.append(Step(int(outside[candidates[best]]), total, len(candidates)))
    return steps


def _mask(features: Ablation, rows: Int[ndarray, " some"]) -> Bool[ndarray, " feat"]:
    found = np.zeros(len(features), dtype=bool)
    found[rows] = True
    return found
