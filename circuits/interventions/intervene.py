"""Interventions: change features in the real model, and measure what a graph predicts.

    frozen        all blocks and the final norm are held: what is measured are direct effects
    constrained   blocks are held up to a layer; above it the model runs, under the same patterns
    free          the model runs, attention included

A measured change is that of the value that a node's row explains: of features the pre-activation,
of neurons the activation, of logits the logit less the mean one.  In a held block it is what the
feature reads with the norm held.  A cross-layer feature writes its change to all its layers, in
every regime.  Source of the regimes: "Circuit tracing: revealing computational graphs in language
models" (2025), validation of the graphs by constrained patching.
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

from circuits.interventions.additions import Edited
from circuits.interventions.constrained_run import Hold, Passed, run
from circuits.interventions.experiment import Experiment
from circuits.interventions.recorder import Meter
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
    """What interventions did, one row each."""

    interventions: tuple[Intervention, ...]
    regime: Regime
    through: tuple[int, ...]  # last block that was held; -1: none
    before: Float[Tensor, " d_vocab"]  # the model's own logits at the explained position
    after: Float[Tensor, "intervention d_vocab"]
    measured: Float[ndarray, "intervention node"]  # change of each node's value; nan: has none
    predicted: Float[ndarray, "intervention node"]  # by the graph; nan: it does not say


def intervene(
    experiment: Experiment,
    interventions: Sequence[Intervention],
    regime: Regime = Regime.CONSTRAINED,
    through: int | None = None,
    progress: Progress = ignore_progress,
) -> Outcomes:
    """Make interventions in the model, many in one pass.

    `through` is the last block that is held in the constrained regime: else the highest that an
    intervention changes.  Raises EditError for what the model does not have.
    """
    held = _held_through(experiment, interventions, regime, through)
    _require_there(experiment, interventions)
    after: list[Tensor] = []
    measured: list[ndarray] = []
    with torch.inference_mode():
        for rows in _batches(interventions, len(experiment.recording.prompt)):
            progress("intervene", rows.start, len(interventions))
            logits, changes = _batch(experiment, interventions[rows], regime, held[rows])
            after.append(logits)
            measured.append(changes.double().cpu().numpy())
            _require_finite(logits)
    recording, graph = experiment.recording, experiment.graph
    return Outcomes(
        interventions=tuple(interventions),
        regime=regime,
        through=tuple(held),
        before=recording.logits,
        after=torch.cat(after) if after else recording.logits[None][:0],
        measured=np.concatenate(measured) if measured else np.zeros((0, len(graph))),
        predicted=predict(graph, _telling(experiment, interventions), held),
    )


def at_targets(experiment: Experiment, outcomes: Outcomes) -> Iterator[Measured]:
    """Predicted beside measured at every target, as a graph stores it."""
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
    """The next tokens, most probable first, of the model itself and under an intervention.

    The model runs freely.  The intervention holds at its positions, and where it is onward at the
    new tokens too.  Raises EditError for more tokens than the model's context has room for.
    """
    limit, length = experiment.frozen.context_length, len(experiment.recording.prompt)
    if limit is not None and length + n_tokens > limit:
        raise EditError(
            f"The model's context holds {limit} tokens, the prompt has {length}: generate "
            f"{limit - length} at most."
        )
    _require_there(experiment, [intervention])
    nothing = Intervention(what="nothing")
    ids = [list(experiment.recording.prompt.ids) for _ in range(2)]
    free = Hold(torch.full((2,), -1, device=experiment.frozen.device), patterns=False)
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
    n_layers = experiment.frozen.n_layers
    if regime != Regime.CONSTRAINED:
        if through is not None:
            raise EditError("Only the constrained regime holds blocks up to a layer.")
        return [n_layers if regime == Regime.FROZEN else -1] * len(interventions)
    if through is None:
        return [one.last_layer for one in interventions]
    if not 0 <= through < n_layers:
        raise EditError(f"There is no block {through} to hold: choose one of 0 to {n_layers - 1}.")
    return [through] * len(interventions)


def _require_there(experiment: Experiment, interventions: Sequence[Intervention]) -> None:
    """Raises EditError for features and vectors that the model does not have."""
    frozen, rows = experiment.frozen, experiment.features.rows
    width = cache(lambda layer: rows.at(layer).width)
    for node in (change.node for one in interventions for change in one.changes):
        if node.layer is None or node.index is None:
            continue
        if node.index >= width(node.layer):
            raise EditError(
                f"{node} is out of range: layer {node.layer} has {width(node.layer):,} features, "
                "numbered from 0."
            )
    for push in (push for one in interventions for push in one.pushes):
        if np.shape(push.vector) != (frozen.d_model,):
            raise EditError(
                f"A vector has shape {np.shape(push.vector)}, the residual stream asks for "
                f"({frozen.d_model},)."
            )


def _require_finite(logits: Float[Tensor, "batch d_vocab"]) -> None:
    """Raises EditError if an intervention is more than the model's numbers can hold."""
    if not bool(torch.isfinite(logits).all()):
        raise EditError("The model's logits are not finite under this: give smaller numbers.")


def _telling(experiment: Experiment, interventions: Sequence[Intervention]) -> list[Intervention]:
    """Without changes of features that are not active and stay so, of which a graph is silent."""

    def tells(change: Change) -> bool:
        node = change.node
        if node in experiment.graph or node.kind != NodeKind.FEATURE or change.offset != 0:
            return True
        place = (torch.tensor([x], device=experiment.frozen.device) for x in (node.pos, node.index))
        return bool(experiment.features.rows.at(node.layer or 0).recorded(*place) != 0)

    return [
        Intervention(one.what, tuple(filter(tells, one.changes)), one.pushes)
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
        torch.tensor(through, device=experiment.frozen.device), patterns=regime != Regime.FREE
    )
    meter = Meter(experiment, hold)
    ids = [list(experiment.recording.prompt.ids)] * len(interventions)
    passed = _pass(experiment, interventions, hold, ids, meter)
    meter.read_targets(passed.final)
    return passed.logits, meter.changes


def _pass(
    experiment: Experiment,
    interventions: Sequence[Intervention],
    hold: Hold,
    ids: list[list[int]],
    meter: Meter | None,
) -> Passed:
    frozen, recording = experiment.frozen, experiment.recording
    edited = Edited(experiment, interventions, hold, len(ids[0]))

    def visit(layer: int, residual: Tensor):
        if meter is not None:
            meter.read(layer, residual)
        return edited(layer, residual)

    return run(frozen, recording, torch.tensor(ids, device=frozen.device), hold, visit)
