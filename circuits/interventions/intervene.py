"""Interventions: change features in the real model, and compare effects with predictions.

    frozen        all blocks and the final norm are held, so that only direct effects are measured
    constrained   blocks are held up to a layer; above it the model runs, with recorded patterns
    free          the model runs, attention included

Of some heads the patterns can run where those of all others are held.  An edit can act through the
queries, keys or values of some heads only (`circuits.interventions.passes`).

Changes are measured in the value that a node's row explains: a feature's pre-activation, a neuron's
activation, a logit less the mean logit.  In a held block features are read with the norm held.  A
cross-layer feature writes its change to all its layers, in every regime.  Source of the regimes:
"Circuit tracing: revealing computational graphs in language models" (2025), validation of the
graphs by constrained patching.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from circuits.features.active import Places
from circuits.interventions.batches import batches, most_copies
from circuits.interventions.constrained_run import Hold
from circuits.interventions.experiment import Experiment
from circuits.interventions.passes import NOTHING, Passes
from circuits.interventions.recorder import Recorder
from circuits.machine import exactly, in_float64
from circuits.model.frozen import FrozenModel
from circuits.progress import Progress, ignore_progress
from graphs.core.brief import Brief
from graphs.core.nodes import NodeKind
from graphs.core.provenance import Measured
from graphs.core.regime import Regime
from graphs.interventions.changes import Change, Intervention
from graphs.interventions.edits import EditError
from graphs.interventions.heads import EVERYTHING, HeadChoice
from graphs.interventions.predict import predict


@dataclass(frozen=True, repr=False)
class Outcomes(Brief):
    """Results of interventions, one row each."""

    interventions: tuple[Intervention, ...]
    regime: Regime
    through: tuple[int, ...]  # last block that was held; -1: none
    before: Float[Tensor, " d_vocab"]  # the model's own logits at the explained position
    after: Float[Tensor, "intervention d_vocab"]
    measured: Float[ndarray, "intervention node"]  # change of each node's value; nan: no value
    predicted: Float[ndarray, "intervention node"]  # by the graph, to first order; nan: unknown
    heads: HeadChoice = EVERYTHING


@dataclass(frozen=True)
class Continuations:
    """Greedy continuations of a prompt: the model's own, and under an intervention."""

    before: str
    after: str
    before_ids: tuple[int, ...]
    after_ids: tuple[int, ...]

    def lines(self) -> tuple[str, str]:
        """Both, one below the other."""
        return f"before: {self.before}", f"after:  {self.after}"


def intervene(
    experiment: Experiment,
    interventions: Sequence[Intervention],
    regime: Regime = Regime.CONSTRAINED,
    through: int | None = None,
    progress: Progress = ignore_progress,
    heads: HeadChoice = EVERYTHING,
) -> Outcomes:
    """Run interventions in the model, many in one pass.

    `through` is the last block held in the constrained regime; by default the highest that an
    intervention changes.  `heads` says which patterns run although others are held, and through
    which heads alone edits act; the graph predicts nothing of the latter.  Raises EditError for
    features, heads and vectors that the model does not have.
    """
    held = held_through(experiment, interventions, regime, through)
    _require_existing(experiment, interventions)
    require_heads(experiment, heads, regime)
    passes = Passes(experiment)
    after: list[Tensor] = []
    measured: list[ndarray] = []
    with exactly():
        length = len(experiment.local.recording.prompt)
        most = most_copies(experiment.local.frozen, length, len(experiment.graph))
        for rows in batches(interventions, most):
            progress("intervene", rows.start, len(interventions))
            hold = Hold(np.array(held[rows]), patterns=regime != Regime.FREE)
            recorder = Recorder(experiment, hold)
            passed = passes.chosen(interventions[rows], hold, heads, recorder)
            recorder.read_final(passed.final)
            after.append(passed.logits)
            _require_finite([passed.logits.isfinite().all()])
            measured.append(in_float64(recorder.changes).numpy())
    recording, graph = experiment.local.recording, experiment.graph
    predicted = predict(graph, _without_inactive(experiment, interventions), held)
    if heads.only:
        predicted[:] = np.nan
    return Outcomes(
        interventions=tuple(
            replace(one, what=f"{one.what}{heads.condition}") for one in interventions
        ),
        regime=regime,
        through=tuple(held),
        before=recording.logits,
        after=torch.cat(after) if after else recording.logits[None][:0],
        measured=np.concatenate(measured) if measured else np.zeros((0, len(graph))),
        predicted=predicted,
        heads=heads,
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


def generate(experiment: Experiment, intervention: Intervention, n_tokens: int) -> Continuations:
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
    passes = Passes(experiment)
    free = Hold(np.array([-1, -1]), patterns=False)
    finite: list[Tensor] = []
    with exactly():
        ids = passes.copies(2)
        for _ in range(n_tokens):
            passed = passes.one((NOTHING, intervention), free, ids=ids)
            finite.append(passed.logits.isfinite().all())
            ids = torch.cat([ids, passed.logits.argmax(1, keepdim=True)], 1)
        found = ids[:, length:].tolist()
    _require_finite(finite)
    before, after = map(experiment.subject.tokenizer.decode, found)
    return Continuations(str(before), str(after), tuple(found[0]), tuple(found[1]))


def held_through(
    experiment: Experiment,
    interventions: Sequence[Intervention],
    regime: Regime,
    through: int | None,
) -> list[int]:
    """The last block that each intervention holds: -1 for none, `n_layers` for the final norm too.

    Raises EditError for blocks that the model does not have, and outside the constrained regime.
    """
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
    """Raises EditError for features, heads and vectors that the model does not have."""
    frozen, features = experiment.local.frozen, experiment.local.features
    width = cache(lambda layer: features.at(layer).width)
    for node in (change.node for one in interventions for change in one.changes):
        if node.layer is None or node.index is None:
            continue
        if node.index >= width(node.layer):
            raise EditError(
                f"{node} is out of range: layer {node.layer} has {width(node.layer):,} features, "
                "numbered from 0."
            )
    for head in (head for one in interventions for head in one.heads):
        require_head(frozen, *head.place[:2])
    for steer in (steer for one in interventions for steer in one.steering):
        if np.shape(steer.vector) != (frozen.d_model,):
            raise EditError(
                f"A steering vector has shape {np.shape(steer.vector)}, the residual stream has "
                f"({frozen.d_model},): give a vector of that size."
            )


def require_heads(experiment: Experiment, heads: HeadChoice, regime: Regime) -> None:
    """Raises EditError for heads that the model does not have, and where all patterns run."""
    if heads.running and regime == Regime.FREE:
        raise EditError(
            "--run-patterns needs a regime that holds patterns: choose frozen or constrained, or "
            "leave it out."
        )
    for layer, head in heads.only | heads.running:
        require_head(experiment.local.frozen, layer, head)


def require_head(frozen: FrozenModel, layer: int, head: int) -> None:
    """Raises EditError for a head that the model does not have."""
    n_heads = frozen.blocks[layer].n_heads
    if head >= n_heads:
        raise EditError(
            f"There is no head {layer}.{head}: layer {layer} has heads 0 to {n_heads - 1}."
        )


def _require_finite(finite: list[Bool[Tensor, ""]]) -> None:
    """Raises EditError if an intervention makes the model's numbers overflow."""
    if finite and not bool(torch.stack(finite).all()):
        raise EditError(
            "The model's logits are not finite under this intervention: use smaller values."
        )


def _without_inactive(
    experiment: Experiment, interventions: Sequence[Intervention]
) -> list[Intervention]:
    """Leave out changes of inactive features that stay inactive, which a graph cannot predict."""

    def may_lack_effect(change: Change) -> bool:
        node = change.node
        feature = node.kind == NodeKind.FEATURE and change.offset == 0
        return feature and node not in experiment.graph

    in_doubt = [c.node for one in interventions for c in one.changes if may_lack_effect(c)]
    recorded = experiment.local.features.recorded(Places.of(in_doubt))
    inactive = {node for node, value in zip(in_doubt, recorded, strict=True) if value == 0}

    def has_effect(change: Change) -> bool:
        return change.offset != 0 or change.node not in inactive

    return [replace(one, changes=tuple(filter(has_effect, one.changes))) for one in interventions]
