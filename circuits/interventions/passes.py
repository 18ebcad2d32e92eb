"""Passes: interventions run together in the model, in one pass or in two.

Where an edit acts through the queries, keys or values of some heads only, it is made in a first
pass, of which these are kept.  In a second pass nothing is edited but them:

    first     everything that is edited            →  query, key, value of the named heads
    second    nothing; these of the named heads    →  what is measured

In the second pass the patterns of the heads whose queries or keys are given run in every regime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.interventions.additions import EditVisitor
from circuits.interventions.attending import AS_IT_IS, Given, HeadRules, See, Side
from circuits.interventions.constrained_run import Hold, RunOutput, run
from circuits.interventions.experiment import Experiment
from circuits.interventions.head_rules import OtherPrompts, head_rules
from circuits.machine import on_device
from circuits.recording.meeting import Meeting
from graphs.interventions.changes import Intervention
from graphs.interventions.heads import Head, HeadChoice

NOTHING = Intervention(what="nothing")
Seen = Mapping[int, See]  # by layer


@runtime_checkable
class Watch(Protocol):
    """Sees the residual stream of a pass."""

    def enter(self, layer: int, residual: Float[Tensor, "batch pos d_model"]) -> None:
        """Called with what enters a layer."""
        ...

    def read(self, layer: int, residual: Float[Tensor, "batch pos d_model"]) -> None:
        """Called with what its MLP reads."""
        ...


class Passes:
    """Runs interventions on the prompt of an experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.others = experiment, OtherPrompts(experiment)

    def chosen(
        self,
        interventions: Sequence[Intervention],
        hold: Hold,
        choice: HeadChoice,
        watch: Watch | None = None,
        seen: Seen | None = None,
    ) -> RunOutput:
        """Run interventions that act through everything, or through some heads only."""
        if not choice.only:
            return self.one(interventions, replace(hold, running=choice.running), watch, seen)
        first = replace(hold, running=choice.running)
        met = self.meetings(interventions, first, {layer for layer, _ in choice.only})
        sides: dict[Side, frozenset[Head]] = {
            "query": choice.queries,
            "key": choice.keys,
            "value": choice.values,
        }
        rules = {layer: _given(layer, meeting, sides) for layer, meeting in met.items()}
        second = replace(hold, running=choice.patterns)
        return self.one([NOTHING] * len(interventions), second, watch, seen, rules)

    def meetings(
        self, interventions: Sequence[Intervention], hold: Hold, layers: set[int]
    ) -> dict[int, Meeting]:
        """What meets in some layers under interventions."""
        found: dict[int, Meeting] = {}

        def keep(layer: int, meeting: Meeting, _: Tensor) -> None:
            found[layer] = meeting

        self.one(interventions, hold, seen={layer: partial(keep, layer) for layer in layers})
        return found

    def one(
        self,
        interventions: Sequence[Intervention],
        hold: Hold,
        watch: Watch | None = None,
        seen: Seen | None = None,
        rules: Mapping[int, HeadRules] | None = None,
        ids: Int[Tensor, "batch pos"] | None = None,
    ) -> RunOutput:
        """One pass; `ids`, which may go on beyond the prompt, are those of the prompt by default.

        `rules` of layers in which no intervention changes a head, and who sees what meets.
        """
        experiment = self.experiment
        ids = self.copies(len(interventions)) if ids is None else ids
        edits = EditVisitor(experiment, interventions, hold, ids.shape[1])
        every = {**(rules or {}), **head_rules(self.others, interventions, ids.shape[1])}
        for layer, see in (seen or {}).items():
            every[layer] = replace(every.get(layer, AS_IT_IS), see=(see,))

        def visit(layer: int, residual: Tensor):
            if watch is not None:
                watch.read(layer, residual)
            return edits(layer, residual)

        look = None if watch is None else watch.enter
        local = experiment.local
        return run(local.frozen, local.recording, ids, hold, visit, look, every)

    def copies(self, count: int) -> Int[Tensor, "copy pos"]:
        """The prompt, so many times."""
        local = self.experiment.local
        ids = np.array(local.recording.prompt.ids)
        return on_device(np.tile(ids, (count, 1)), local.frozen.device)


def _given(layer: int, meeting: Meeting, sides: Mapping[Side, frozenset[Head]]) -> HeadRules:
    """The queries, keys and values of these heads, for another pass."""
    found: list[tuple[Side, Given]] = []
    for side, heads in sides.items():
        here = sorted(head for own, head in heads if own == layer)
        if here:
            vectors: Tensor = getattr(meeting, side)
            index = torch.tensor(here, device=vectors.device)
            found.append((side, Given(index, vectors[:, index])))
    return HeadRules(given=tuple(found))
