"""Effects of one intervention: at the targets, the top tokens and the graph's features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from circuits.features.active import Places
from circuits.interventions.experiment import Experiment
from circuits.interventions.intervene import Outcomes
from circuits.machine import exactly, in_float64
from graphs.analysis.influence import influence
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.regime import Regime
from graphs.interventions.changes import Change
from graphs.interventions.effects import SHOWN, EditedNode, Effects, NodeEffect, TokenEffect
from graphs.interventions.heads import HeadChange, HeadPatch
from graphs.interventions.reporting import running_report
from graphs.naming.names import Names

ROUNDING = 1e-5  # relative change of a value in float32 that is no change


def effects(experiment: Experiment, outcomes: Outcomes, row: int, most: int = SHOWN) -> Effects:
    """The effects of intervention `row`, with at most `most` tokens and features."""
    graph, names = experiment.graph, Names(experiment.graph)
    measured, predicted = outcomes.measured[row], outcomes.predicted[row]
    texts = dict(
        zip(graph.target_rows().tolist(), (t.text for t in graph.provenance.targets), strict=True)
    )

    intervention = outcomes.interventions[row]
    # In a pass in which only some heads react, nothing else is set.
    held = set[str]() if outcomes.heads.only else {str(one.node) for one in intervention.changes}

    def effect(node: int) -> NodeEffect:
        return NodeEffect(
            node=str(graph.nodes[node]),
            text=texts.get(node) or names.label(node),
            value=_number(graph.nodes.value[node]),
            measured=_number(measured[node]),
            predicted=_number(predicted[node]),
            held=str(graph.nodes[node]) in held,
        )

    return Effects(
        what=intervention.what,
        regime=outcomes.regime,
        through=outcomes.through[row],
        targets=tuple(map(effect, texts)),
        tokens=_tokens(experiment, outcomes, row, most),
        features=tuple(map(effect, _most_changed(graph, measured, most))),
        edited=(
            *_edited(experiment, names, intervention.changes),
            *(_edited_head(graph, change) for change in intervention.heads),
        ),
        steered=len(intervention.steering),
        predicted_with=_predicted_with(outcomes.regime, graph),
        only=outcomes.heads.reacting,
    )


def _predicted_with(regime: Regime, graph: AttributionGraph) -> str:
    """What predictions let run; nothing where everything is frozen."""
    running = None if regime == Regime.FROZEN else running_report(graph)
    return "" if running is None else running.sentence


def _edited(experiment: Experiment, names: Names, changes: Sequence[Change]) -> list[EditedNode]:
    """What features and errors were, in the graph or not, and what they are set to."""
    graph = experiment.graph
    others = [one.node for one in changes if one.node not in graph]
    outside = [node for node in others if node.kind == NodeKind.FEATURE]
    with exactly():
        recorded = experiment.local.features.recorded(Places.of(outside))
    known = dict(zip(outside, recorded.tolist(), strict=True))

    def edited(change: Change) -> EditedNode:
        row = graph.find(change.node) if change.node in graph else None
        if change.node.kind == NodeKind.ERROR:
            before = 1.0
        else:
            before = known[change.node] if row is None else float(graph.nodes.activation[row])
        return EditedNode(
            node=str(change.node),
            text="" if row is None else names.label(row),
            before=before,
            after=change.factor * before + change.offset,
        )

    return list(map(edited, changes))


def _edited_head(graph: AttributionGraph, change: HeadChange | HeadPatch) -> EditedNode:
    query, key = (
        "" if pos is None else graph.provenance.tokens[pos].strip()
        for pos in (change.place.query, change.place.key)
    )
    return EditedNode(
        node=str(change.place),
        text=f"{query} ← {key}" if key else query,
        before=1.0,
        after=change.factor if isinstance(change, HeadChange) else None,
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _tokens(
    experiment: Experiment, outcomes: Outcomes, row: int, most: int
) -> tuple[TokenEffect, ...]:
    """The most probable tokens before and after."""
    before, after = in_float64(outcomes.before), in_float64(outcomes.after[row])
    was, now = before.softmax(-1), after.softmax(-1)
    top = [p.topk(min(most, len(p))).indices.tolist() for p in (was, now)]
    chosen = sorted({*top[0], *top[1]}, key=lambda token: -float(now[token]))
    return tuple(
        TokenEffect(
            token=token,
            text=experiment.subject.spell(token),
            before=float(was[token]),
            after=float(now[token]),
            logit=float(after[token] - before[token]),
        )
        for token in chosen
    )


def _most_changed(
    graph: AttributionGraph, measured: Float[ndarray, " node"], most: int
) -> list[int]:
    """Features by influence times the changed share of the activation, largest first."""
    changed = np.abs(measured) > ROUNDING * np.abs(graph.nodes.value)
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE) & changed)
    part = np.abs(measured[features] / graph.nodes.activation[features])
    order = np.argsort(-influence(graph)[features] * part, kind="stable")
    return features[order[:most]].tolist()
