"""How one row of an attention pattern changes under an intervention, predicted and measured.

The prediction is of first order.  With δ what frozen blocks carry of the edit to the residual in
front of the layer, which is linear, and A the row on the prompt:

    change of log A[k] = ds[k] - Σ_k' A[k'] · ds[k']        ds = (d scores / d residual) · δ

Scores are those behind the cap.  Norms of queries and keys run, and so does the norm in front of
attention unless the layer's block is held.  Measured is what the softmax makes of the queries and
keys of the run, whether that pattern is held or not, and before its entries are scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from circuits.attention.meetings import LayerMeeting
from circuits.interventions.constrained_run import Hold
from circuits.interventions.experiment import Experiment
from circuits.interventions.intervene import Outcomes, require_head
from circuits.interventions.passes import Passes
from circuits.machine import exactly, in_float64
from circuits.recording.meeting import Meeting
from circuits.recording.record import entering_attention
from graphs.core.regime import Regime
from graphs.interventions.effects import KeyEffect, PatternEffect
from graphs.interventions.heads import EVERYTHING, HeadChoice, HeadPlace

LEAST = 1e-300  # attention whose logarithm is not taken: behind the query, or out of a window
Row = Float[ndarray, " key"]


def pattern_effects(
    experiment: Experiment, outcomes: Outcomes, row: int, places: Sequence[HeadPlace]
) -> tuple[PatternEffect, ...]:
    """What intervention `row` does to what heads attend to from some queries.

    Raises EditError for heads that the model does not have.
    """
    for place in places:
        require_head(experiment.local.frozen, place.layer, place.head)
    if not places:
        return ()
    with exactly():
        runs = _Runs(experiment, outcomes, row)
        after = runs.rows(places)
        changes = runs.changes({place.layer for place in places})
        slopes = [runs.slopes(place, *changes[place.layer]) for place in places]
    tokens = experiment.graph.provenance.tokens
    return tuple(
        _effect(place, tokens, *numbers, slope)
        for place, numbers, slope in zip(places, after, slopes, strict=True)
    )


def _effect(
    place: HeadPlace, tokens: Sequence[str], before: Row, after: Row, slope: Row
) -> PatternEffect:
    assert place.query is not None
    predicted = slope - before @ slope
    keys = np.flatnonzero((before > LEAST) & (after > LEAST)).tolist()
    return PatternEffect(
        layer=place.layer,
        head=place.head,
        query=place.query,
        text=tokens[place.query],
        keys=tuple(
            KeyEffect(
                key=key,
                text=tokens[key],
                before=float(before[key]),
                after=float(after[key]),
                measured=float(np.log(after[key] / before[key])),
                predicted=float(predicted[key]),
            )
            for key in keys
        ),
    )


class _Runs:
    """One intervention, run to see patterns, and run frozen to see what reaches a layer."""

    def __init__(self, experiment: Experiment, outcomes: Outcomes, row: int) -> None:
        self.local, self.heads = experiment.local, outcomes.heads
        self.passes = Passes(experiment)
        self.made = [outcomes.interventions[row]]
        through = np.array(outcomes.through[row : row + 1])
        self.hold = Hold(through, patterns=outcomes.regime != Regime.FREE)

    def rows(self, places: Sequence[HeadPlace]) -> list[tuple[Row, Row]]:
        """Rows of patterns on the prompt, and under the intervention."""
        seen: dict[int, Tensor] = {}

        def keep(layer: int, meeting: Meeting, _: Tensor) -> None:
            seen[layer] = meeting.pattern[0]

        see = {place.layer: partial(keep, place.layer) for place in places}
        self.passes.chosen(self.made, self.hold, self.heads, seen=see)
        found: list[tuple[Row, Row]] = []
        for place in places:
            at = place.head, place.query
            recorded = self.local.recording.blocks[place.layer].pattern[at]
            found.append((in_float64(recorded).numpy(), in_float64(seen[place.layer][at]).numpy()))
        return found

    def changes(self, layers: set[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """By layer: how the residual in front of attention changes in each pass, all held.

        These differ if the edit acts through some heads only.
        """
        frozen = Hold(np.array([self.local.frozen.n_layers]), patterns=True)
        first = _Entering()
        self.passes.chosen(self.made, frozen, EVERYTHING, first)
        second = first
        if self.heads.only:
            second = _Entering()
            self.passes.chosen(self.made, frozen, self.heads, second)
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for layer in layers:
            recorded = entering_attention(self.local.frozen, self.local.recording, layer)
            found[layer] = first.residual[layer] - recorded, second.residual[layer] - recorded
        return found

    def slopes(self, place: HeadPlace, first: Tensor, second: Tensor) -> Row:
        """First-order changes of a row's scores."""
        choice: HeadChoice = self.heads
        own = place.layer, place.head
        at_query = first if own in choice.queries else second
        at_keys = first if own in choice.keys else second
        norm_runs = not bool(self.hold.at(place.layer)[0])
        meeting = LayerMeeting(self.local.frozen, self.local.recording, place.layer)
        assert place.query is not None
        found = meeting.slopes(place.head, place.query, at_query, at_keys, norm_runs=norm_runs)
        return in_float64(found).numpy()


class _Entering:
    """Keeps the residual that enters each layer, of a single copy."""

    def __init__(self) -> None:
        self.residual: dict[int, Tensor] = {}

    def enter(self, layer: int, residual: Float[Tensor, "1 pos d_model"]) -> None:
        self.residual[layer] = residual[0]

    def read(self, layer: int, residual: Float[Tensor, "1 pos d_model"]) -> None:
        """Nothing is read in front of MLPs."""
