"""Interventions: change features in the real model, and compare effects with predictions.

    frozen        all blocks and the final norm are held, so that only direct effects are measured
    constrained   blocks are held up to a layer; above it the model runs, with recorded patterns
    free          the model runs, attention included

Changes are measured in the value that a node's row explains: a feature's pre-activation, a neuron's
activation, a logit less the mean logit.  In a held block features are read with the norm held.  A
cross-layer feature writes its change to all its layers, in every regime.  Source of the regimes:
"Circuit tracing: revealing computational graphs in language models" (2025), validation of the
graphs by constrained patching.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from circuits.interventions.additions import EditVisitor
from circuits.interventions.constrained_run import Hold, RunOutput, run
from circuits.interventions.experiment import Experiment
from circuits.interventions.recorder import Recorder
from circuits.progress import Progress, ignore_progress
from graphs.core.nodes import NodeKind
from graphs.core.provenance import Measured
from graphs.core.regime import Regime
from graphs.interventions.changes import Change, Intervention
from graphs.interventions.edits import EditError
from graphs.interventions.predict import predict

BATCH_POSITIONS = 4096  # copies × positions of a pass
BATCH_CHANGES = 2**20  # of all copies


@dataclass(frozen=True)
class Outcomes:
    """Results of interventions, one row each."""

    interventions: tuple[Intervention, ...]
    regime: Regime
    through: tuple[int, ...]  # last block that was held; -1: none
    before: Float[Tensor, " d_vocab"]  # the model's own logits at the explained position
    after: Float[Tensor, "intervention d_vocab"]
    measured: Float[ndarray, "intervention node"]  # change of each node's value; nan: no value
    predicted: Float[ndarray, "intervention node"]  # by the graph; nan: no prediction


def intervene(
    experiment: Experiment,
    interventions: Sequence[Intervention],
    regime: Regime = Regime.CONSTRAINED,
    through: int | None = None,
    progress: Progress = ignore_progress,
) -> Outcomes:
    """Run interventions in the model, many in one pass.

    `through` is the last block held in the constrained regime; by default the highest that an
    intervention changes.  Raises EditError for features and vectors that the model does not have.
    """
    held = _held_through(experiment, interventions, regime, through)
    _require_existing(experiment, interventions)
    after: list[Tensor] = []
    measured: list[ndarray] = []
    with torch.inference_mode():
        for rows in _batches(interventions, len(experiment.local.recording.prompt)):
            progress("intervene", rows.start, len(interventions))
            logits, changes = _batch(experiment, interventions[rows], regime, held[rows])
            after.append(logits)
            measured.append(changes.double().cpu().numpy())
            _require_finite(logits)
    recording, graph = experiment.local.recording, experiment.graph
    return Outcomes(
        interventions=tuple(interventions),
        regime=regime,
        through=tuple(held),
        before=recording.logits,
        after=torch.cat(after) if after else recording.logits[None][:0],
        measured=np.concatenate(measured) if measured else np.zeros((0, len(graph))),
        predicted=predict(graph, _without_inactive(experiment, interventions), held),
    )


def at_targets(experiment: Experiment, outcomes: Outcomes) -> Iterator[Measured]:
    """Predicted and measured effects at every target, as a graph stores them."""
    graph = experiment.graph
    for row, one in enumerate(outcomes.interventions):
        for node in graph.target_rows().tolist():
            predicted = float(outcomes.predicted[row, node])
            yield Measured(
                what=one.what,
                regime=outcomes.regime,
                target=str(graph.nodes[node]),
                predicted=predicted if np.isfinite(predicted) else None,
                measured=float(outcomes.measured[row, node]),
            )


def generate(
    experiment: Experiment, intervention: Intervention, n_tokens: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Greedy continuations of the prompt, by the model itself and under an intervention.

    The model runs freely.  The intervention applies at its positions, and if it is onward also at
    new tokens.  Raises EditError for more tokens than fit into the model's context.
    """
    limit, length = experiment.local.frozen.context_length, len(experiment.local.recording.prompt)
    if limit is not None and length + n_tokens > limit:
        raise EditError(
            f"The model's context has {limit} tokens and the prompt {length}: generate at most "
            f"{limit - length}."
        )
    _require_existing(experiment, [intervention])
    nothing = Intervention(what="nothing")
    ids = [list(experiment.local.recording.prompt.ids) for _ in range(2)]
    free = Hold(torch.full((2,), -1, device=experiment.local.frozen.device), patterns=False)
    with torch.inference_mode():
        for _ in range(n_tokens):
            passed = _pass(experiment, (nothing, intervention), free, ids, None)
            _require_finite(passed.logits)
            for row, token in zip(ids, passed.logits.argmax(1).tolist(), strict=True):
                row.append(token)
    return tuple(ids[0][length:]), tuple(ids[1][length:])


def _held_through(
    experiment: Experiment,
    interventions: Sequence[Intervention],
    regime: Regime,
    through: int | None,
) -> list[int]:
    n_layers = experiment.local.frozen.n_layers
    if regime != Regime.CONSTRAINED:
        if through is not None:
            raise EditError(
                "--through needs the constrained regime: leave it out, or choose that regime."
            )
        return [n_layers if regime == Regime.FROZEN else -1] * len(interventions)
    if through is None:
        return [one.last_layer for one in interventions]
    if not 0 <= through < n_layers:
        raise EditError(f"There is no block {through} to hold: choose one of 0 to {n_layers - 1}.")
    return [through] * len(interventions)


def _require_existing(experiment: Experiment, interventions: Sequence[Intervention]) -> None:
    """Raises EditError for features and vectors that the model does not have."""
    frozen, rows = experiment.local.frozen, experiment.local.features.rows
    width = cache(lambda layer: rows.at(layer).width)
    for node in (change.node for one in interventions for change in one.changes):
        if node.layer is None or node.index is None:
            continue
        if node.index >= width(node.layer):
            raise EditError(
                f"{node} is out of range: layer {node.layer} has {width(node.layer):,} features, "
                "numbered from 0."
            )
    for steer in (steer for one in interventions for steer in one.steering):
        if np.shape(steer.vector) != (frozen.d_model,):
            raise EditError(
                f"A steering vector has shape {np.shape(steer.vector)}, the residual stream has "
                f"({frozen.d_model},): give a vector of that size."
            )


def _require_finite(logits: Float[Tensor, "batch d_vocab"]) -> None:
    """Raises EditError if an intervention makes the model's numbers overflow."""
    if not bool(torch.isfinite(logits).all()):
        raise EditError(
            "The model's logits are not finite under this intervention: use smaller values."
        )


def _without_inactive(
    experiment: Experiment, interventions: Sequence[Intervention]
) -> list[Intervention]:
    """Leave out changes of inactive features that stay inactive, which a graph cannot predict."""

    def has_effect(change: Change) -> bool:
        node = change.node
        if node in experiment.graph or node.kind != NodeKind.FEATURE or change.offset != 0:
            return True
        place = (
            torch.tensor([x], device=experiment.local.frozen.device) for x in (node.pos, node.index)
        )
        return bool(experiment.local.features.rows.at(node.layer or 0).recorded(*place) != 0)

    return [
        Intervention(one.what, tuple(filter(has_effect, one.changes)), one.steering)
        for one in interventions
    ]


def _batches(interventions: Sequence[Intervention], length: int) -> Iterator[slice]:
    """Rows that run in one pass."""
    most, start, changes = max(1, BATCH_POSITIONS // length), 0, 0
    for row, one in enumerate(interventions):
        changes += len(one.changes)
        if row > start and (row - start == most or changes > BATCH_CHANGES):
            yield slice(start, row)
            start, changes = row, len(one.changes)
    if interventions:
        yield slice(start, len(interventions))


def _batch(
    experiment: Experiment,
    interventions: Sequence[Intervention],
    regime: Regime,
    through: Sequence[int],
) -> tuple[Float[Tensor, "batch d_vocab"], Float[Tensor, "batch node"]]:
    hold = Hold(
        torch.tensor(through, device=experiment.local.frozen.device), patterns=regime != Regime.FREE
    )
    recorder = Recorder(experiment, hold)
    ids = [list(experiment.local.recording.prompt.ids)] * len(interventions)
    passed = _pass(experiment, interventions, hold, ids, recorder)
    recorder.read_targets(passed.final)
    return passed.logits, recorder.changes


def _pass(
    experiment: Experiment,
    interventions: Sequence[Intervention],
    hold: Hold,
    ids: list[list[int]],
    recorder: Recorder | None,
) -> RunOutput:
    frozen, recording = experiment.local.frozen, experiment.local.recording
    edits = EditVisitor(experiment, interventions, hold, len(ids[0]))

    def visit(layer: int, residual: Tensor):
        if recorder is not None:
            recorder.read(layer, residual)
        return edits(layer, residual)

    return run(frozen, recording, torch.tensor(ids, device=frozen.device), hold, visit)
