"""Edits of heads as what attention does in each copy of the prompt, by layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
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
class _Rows:
    """Places of one kind of change in one layer, and what is there."""

    place: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    what: list[float | Tensor] = field(default_factory=list[float | Tensor])

    def add(self, places: Iterable[tuple[int, ...]], what: Iterable[float | Tensor]) -> None:
        self.place += places
        self.what += what

    def places(self, device: torch.device) -> tuple[Tensor, ...]:
        return tuple(
            on_device(np.array(column), device) for column in zip(*self.place, strict=True)
        )

    def scaled(self, like: Tensor) -> Scaled | None:
        if not self.place:
            return None
        factor = on_device(np.array(self.what, dtype=np.float64), like.device, like.dtype)
        return Scaled(self.places(like.device), factor)

    def replaced(self, like: Tensor) -> Replaced | None:
        if not self.place:
            return None
        outputs = [one for one in self.what if isinstance(one, Tensor)]
        return Replaced(self.places(like.device), torch.stack(outputs))


def head_rules(
    others: OtherPrompts, interventions: Sequence[Intervention], length: int
) -> dict[int, HeadRules]:
    """What heads do under interventions, one per copy; `length`: tokens of the copies."""
    rows: dict[int, tuple[_Rows, _Rows, _Rows]] = defaultdict(lambda: (_Rows(), _Rows(), _Rows()))
    for copy, one in enumerate(interventions):
        for change in one.heads:
            entries, outputs, replaced = rows[change.place.layer]
            match change:
                case HeadChange(place, factor):
                    places = [(copy, *there) for there in _places(place, length)]
                    kind = outputs if place.key is None else entries
                    kind.add(places, [factor] * len(places))
                case HeadPatch(place, queries, other):
                    own = others.outputs(other, place.layer)[place.head]
                    places = [(copy, place.head, here) for here, _ in queries]
                    replaced.add(places, [own[there] for _, there in queries])
    like = others.subject.frozen.unembedding
    return {
        layer: HeadRules(
            entries=entries.scaled(like),
            outputs=outputs.scaled(like),
            replaced=replaced.replaced(like),
        )
        for layer, (entries, outputs, replaced) in rows.items()
    }


def _places(place: HeadPlace, length: int) -> Iterator[tuple[int, ...]]:
    """Head and queries of outputs, with the key of an entry."""
    if place.query is None:
        queries = range(length)
    else:
        queries = range(place.query, length if place.onward else place.query + 1)
    key = () if place.key is None else (place.key,)
    yield from ((place.head, query, *key) for query in queries)
