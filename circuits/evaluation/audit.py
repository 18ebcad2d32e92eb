"""Audit: which features mediate the difference between prompts that differ in one respect.

Both prompts are traced to one target.  Features are ranked by attribution: influence times relative
difference of activation (`circuits.evaluation.contrast`).  The top ones are tested in the model
(`graphs.interventions.mediators`), each alone and all together, and compared with random features
of the same layers whose activations differ.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from circuits.attribution.target_names import named_targets
from circuits.attribution.trace_settings import TargetSettings
from circuits.evaluation.contrast import AlignedFeature, DifferingFeatures, differing_features
from circuits.evaluation.evaluation_settings import AuditSettings
from circuits.features.active import FeatureSource
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.intervene import Outcomes, at_targets, intervene
from circuits.machine import in_float64
from circuits.model.prompt import Prompt, read_prompt
from circuits.model.prompt_rule import DEFAULT_RULE, PromptRule
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.progress import Progress, ignore_progress
from circuits.recording.record import record
from graphs.comparison.compare import compare
from graphs.core.graph import AttributionGraph
from graphs.core.regime import Regime
from graphs.core.report import SetReport
from graphs.interventions.mediators import LEAST_DIFFERENCE, Answer, Audited, Mediator
from graphs.interventions.pairs import PromptPair
from graphs.interventions.reporting import set_report
from graphs.naming.names import Names

Both = tuple[Experiment, Experiment]


def audit(
    pair: PromptPair,
    subject: Subject,
    source: FeatureSource,
    settings: AuditSettings | None = None,
    progress: Progress = ignore_progress,
    rule: PromptRule = DEFAULT_RULE,
    *,
    chat: bool = False,
    force: bool = False,
) -> tuple[Audited, tuple[AttributionGraph, AttributionGraph]]:
    """The mediating features, and the graphs of both prompts with the measured effects.

    Raises PromptError, TargetError and as `trace`.
    """
    settings = settings or AuditSettings()
    texts = pair.first, pair.second
    prompts = [read_prompt(text, subject.tokenizer, rule, chat=chat) for text in texts]
    target, remarks = _target(pair, subject, prompts)
    traced = replace(settings.trace, targets=target)
    graphs = [trace(prompt, subject, source, traced, progress, force=force) for prompt in prompts]
    both = prepare(graphs[0], subject, source), prepare(graphs[1], subject, source)
    features = differing_features(*both)
    chosen = np.argsort(-features.attribution, kind="stable")[: settings.mediators]
    answers = _answer(both[0]), _answer(both[1])
    difference = answers[1].value - answers[0].value
    progress("swap", 0, 1)
    alone = _swapped(both, features, [[row] for row in chosen.tolist()])
    has_difference = abs(difference) >= LEAST_DIFFERENCE
    moved = (
        _shares(both, alone, difference) if has_difference else np.full((len(chosen), 2), np.nan)
    )
    mediators = [
        _mediator(both, features, row, shares)
        for row, shares in zip(chosen.tolist(), moved, strict=True)
    ]
    found = Audited(
        pair=pair,
        target=graphs[0].provenance.targets[0].text,
        answers=answers,
        in_common=compare(graphs[0], graphs[1], permutations=0).features.value,
        mediators=tuple(sorted(mediators, key=lambda one: -abs(one.share or 0.0))),
        together=_together(both, features, chosen, difference, settings)
        if has_difference and len(chosen)
        else None,
        failures=tuple(failure for graph in graphs for failure in graph.provenance.failures),
        remarks=remarks,
    )
    one, other = (
        experiment.graph.with_measured(at_targets(experiment, outcomes))
        for experiment, outcomes in zip(both, alone, strict=True)
    )
    return found, (one, other)


def _target(
    pair: PromptPair, subject: Subject, prompts: list[Prompt]
) -> tuple[TargetSettings, tuple[str, ...]]:
    """The pair's target, else the first prompt's answer against the second's; and remarks."""
    if pair.target is not None:
        return named_targets(subject, prompts[0], [pair.target], pair.against)
    one, other = (int(record(subject.frozen, prompt).logits.argmax()) for prompt in prompts)
    return TargetSettings(tokens=(one,), against=None if one == other else other), ()


def _answer(experiment: Experiment) -> Answer:
    probabilities = in_float64(experiment.local.recording.logits).softmax(-1)
    token = int(probabilities.argmax())
    return Answer(
        text=experiment.subject.spell(token),
        token_id=token,
        probability=min(1.0, float(probabilities[token])),
        value=float(experiment.local.targets.value[0]),
    )


def _swapped(
    both: Both, features: DifferingFeatures, sets: list[list[int]]
) -> tuple[Outcomes, Outcomes]:
    """Give each set of features the other prompt's activations, in both prompts; runs freely."""
    one, other = (
        intervene(experiment, [features.swap(rows, side) for rows in sets], Regime.FREE)
        for side, experiment in enumerate(both)
    )
    return one, other


def _shares(
    both: Both, outcomes: tuple[Outcomes, Outcomes], difference: float
) -> Float[ndarray, "set 2"]:
    """Shares of the difference; nan where nothing could be changed."""
    found = np.stack(
        [
            outcome.measured[:, experiment.graph.target_rows()[0]]
            for experiment, outcome in zip(both, outcomes, strict=True)
        ],
        axis=1,
    )
    for side, outcome in enumerate(outcomes):
        found[[not one.changes for one in outcome.interventions], side] = np.nan
    return found / [difference, -difference]


def _mediator(
    both: Both, features: DifferingFeatures, row: int, moved: Float[ndarray, " 2"]
) -> Mediator:
    place = features.places[row]
    positions = tuple(None if pos < 0 else pos for pos in (place.first, place.second))
    return Mediator(
        layer=place.layer,
        index=place.row,
        positions=(positions[0], positions[1]),
        tokens=(_token(both[0], positions[0]), _token(both[1], positions[1])),
        label=_label(both, place),
        activations=(float(features.activation[row, 0]), float(features.activation[row, 1])),
        influence=(float(features.influence[row, 0]), float(features.influence[row, 1])),
        moved=(_or_none(moved[0]), _or_none(moved[1])),
    )


def _token(experiment: Experiment, pos: int | None) -> str:
    return "" if pos is None else experiment.local.recording.prompt.tokens[pos]


def _label(both: Both, place: AlignedFeature) -> str:
    """A feature's label in either graph; empty if neither has one."""
    label = ""
    for side, experiment in enumerate(both):
        node, graph = place.node(side), experiment.graph
        if not label and node is not None and node in graph:
            label = Names(graph).label(graph.find(node))
    return label


def _or_none(share: float) -> float | None:
    return None if np.isnan(share) else float(share)


def _together(
    both: Both,
    features: DifferingFeatures,
    chosen: Int[ndarray, " some"],
    difference: float,
    settings: AuditSettings,
) -> SetReport:
    """All features at once, compared with random sets."""
    generator = np.random.default_rng(settings.seed)
    sets = [chosen, *(features.random_set(chosen, generator) for _ in range(settings.random_sets))]
    outcomes = _swapped(both, features, [rows.tolist() for rows in sets])
    shares = np.nanmean(_shares(both, outcomes, difference), axis=1)
    return set_report(len(chosen), float(shares[0]), shares[1:])
