"""Edits of heads as what attention does in each copy of the prompt, by layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.interventions.attending import HeadRules, Replaced, Scaled
from circuits.interventions.constrained_run import NO_ADDITIONS, Hold, run
from circuits.interventions.experiment import Experiment
from circuits.interventions.origin import require_model
from circuits.machine import on_device
from circuits.model.prompt import Prompt
from circuits.recording.meeting import Meeting
from circuits.recording.record import record
from graphs.core.provenance import Provenance
from graphs.interventions.changes import Intervention
from graphs.interventions.heads import HeadChange, HeadPatch, HeadPlace

Place = tuple[int, ...]
Outputs = Float[Tensor, "head query d_head"]


class OtherPrompts:
    """What heads write on other prompts, each of which is run once."""

    def __init__(self, experiment: Experiment) -> None:
        self.subject = experiment.subject
        self.known: dict[tuple[int, ...], dict[int, Outputs]] = {}

    def outputs(self, header: Provenance, layer: int) -> Outputs:
        """What the heads of a layer mix.  Raises ExperimentError for a prompt of another model."""
        if header.token_ids not in self.known:
            require_model(header, self.subject)
            self.known[header.token_ids] = self._outputs(header)
        return self.known[header.token_ids][layer]

    def _outputs(self, header: Provenance) -> dict[int, Outputs]:
        frozen, found = self.subject.frozen, dict[int, Outputs]()

        def see(layer: int, _: Meeting, mixed: Tensor) -> None:
            found[layer] = mixed[0]

        prompt = Prompt(header.prompt, header.token_ids, header.tokens, header.n_prefix)
        free = Hold(np.array([-1]), patterns=False)
        ids = on_device(np.array([prompt.ids]), frozen.device)
        rules = {n: HeadRules(see=(partial(see, n),)) for n in range(frozen.n_layers)}
        run(frozen, record(frozen, prompt), ids, free, lambda *_: NO_ADDITIONS, rules=rules)
        return found


@dataclass
class _Layer:
    """Changes of one layer's heads, by copy, head and query, of entries also key."""

    entries: dict[Place, float] = field(default_factory=dict[Place, float])  # factors
    outputs: dict[Place, float] = field(default_factory=dict[Place, float])  # factors
    replaced: dict[Place, Tensor] = field(default_factory=dict[Place, Tensor])

    def rules(self, like: Tensor) -> HeadRules:
        """As tensors of the type and device of another."""
        given = None
        if self.replaced:
            vectors = torch.stack([*self.replaced.values()])
            given = Replaced(_columns(self.replaced, like.device), vectors)
        entries, outputs = (_scaled(factors, like) for factors in (self.entries, self.outputs))
        return HeadRules(entries=entries, outputs=outputs, replaced=given)


def head_rules(
    others: OtherPrompts, interventions: Sequence[Intervention], length: int
) -> dict[int, HeadRules]:
    """What heads do under interventions, one per copy; `length`: tokens of the copies."""
    layers: dict[int, _Layer] = defaultdict(_Layer)
    for copy, one in enumerate(interventions):
        for change in one.heads:
            here = layers[change.place.layer]
            match change:
                case HeadChange(place, factor):
                    factors = here.outputs if place.key is None else here.entries
                    factors.update(dict.fromkeys(_places(copy, place, length), factor))
                case HeadPatch(place, queries, other):
                    own = others.outputs(other, place.layer)[place.head]
                    for query, there in queries:
                        here.replaced[copy, place.head, query] = own[there]
    blocks = others.subject.frozen.blocks
    return {number: layer.rules(blocks[number].output) for number, layer in layers.items()}


def _places(copy: int, place: HeadPlace, length: int) -> list[Place]:
    """All that a name means in a prompt of some length."""
    queries = range(length)
    if place.query is not None:
        queries = range(place.query, length if place.onward else place.query + 1)
    key = () if place.key is None else (place.key,)
    return [(copy, place.head, query, *key) for query in queries]


def _scaled(factors: Mapping[Place, float], like: Tensor) -> Scaled | None:
    if not factors:
        return None
    numbers = np.array([*factors.values()], dtype=np.float64)
    return Scaled(_columns(factors, like.device), on_device(numbers, like.device, like.dtype))


def _columns(places: Iterable[Place], device: torch.device) -> tuple[Tensor, ...]:
    return tuple(on_device(np.array(column), device) for column in zip(*places, strict=True))
