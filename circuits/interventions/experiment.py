"""An experiment: a graph, and the model and prompt that it is of, ready for interventions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution.targets import Targets, TargetSettings
from circuits.features.active import ActiveFeatures, FeatureSource, LinearPath
from circuits.features.decomposition import written_at
from circuits.interventions.origin import ExperimentError, require_dictionary, require_model
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from circuits.pipe import read_active
from circuits.recording.record import Recording
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.provenance import Provenance

AGREEMENT = 0.05  # of the largest activation: what number types may differ by


@dataclass(frozen=True)
class Experiment:
    """A graph beside what it was traced from."""

    graph: AttributionGraph
    subject: Subject
    source: FeatureSource
    recording: Recording
    features: ActiveFeatures
    targets: Targets
    row: Int[Tensor, " node"]  # of each feature node among the active features, else -1

    @property
    def frozen(self) -> FrozenModel:
        return self.subject.frozen

    @cached_property
    def linear(self) -> tuple[dict[int, LinearPath], ...]:
        """Linear paths into each layer, by the layer that they read."""
        return tuple(self.features.rows.linear(layer) for layer in range(self.frozen.n_layers))

    @cached_property
    def error(self) -> Callable[[int], Float[Tensor, "pos d_model"]]:
        """What the dictionary leaves of a layer's contribution; found once per layer."""
        return cache(lambda layer: written_at(self.recording, self.features, layer).error)


def prepare(
    graph: AttributionGraph,
    subject: Subject,
    source: FeatureSource,
    targets: TargetSettings | None = None,
) -> Experiment:
    """Record a graph's prompt again and find its features.

    Targets that are directions are not in a file and must be given.  Raises ExperimentError for a
    graph of another model, dictionary or target, and as `circuits.trace`.
    """
    header = graph.provenance
    require_model(header, subject)
    settings = targets or target_settings(header)
    prompt = Prompt(header.prompt, header.token_ids, header.tokens, header.context_only)
    with torch.inference_mode():
        recording, read, features = read_active(prompt, subject, source, settings)
        require_dictionary(header, features.identity)
        row = _rows(graph, features)
    kinds = graph.nodes.kind[graph.target_rows()], graph.nodes.index[graph.target_rows()]
    if not np.array_equal(kinds[1], read.index.cpu().numpy()) or np.any(kinds[0] != read.kind):
        raise ExperimentError(
            "The graph's targets are not those of its settings: give the settings of the trace."
        )
    return Experiment(graph, subject, source, recording, features, read, row)


def target_settings(header: Provenance) -> TargetSettings:
    """What a graph explains, by its header.  Raises ExperimentError if it does not say."""
    match header.settings:
        case {
            "tokens": [*tokens],
            "against": int() | None as against,
            "position": int(position),
            "probability_mass": float() | int() as mass,
            "max_logits": int(most),
        } if all(isinstance(token, int) for token in tokens):
            named: list[Any] = tokens
            return TargetSettings(
                tokens=tuple(named),
                against=against,
                position=position,
                probability_mass=mass,
                max_logits=most,
            )
        case _:
            raise ExperimentError(
                "The graph does not say which position and tokens it explains, so it is of another "
                "program: trace the prompt with `headwater trace`."
            )


def _rows(graph: AttributionGraph, features: ActiveFeatures) -> Int[Tensor, " node"]:
    """Rows of the graph's features among the active ones; -1 for other nodes."""
    nodes, wanted = graph.nodes, np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    active = {place: row for row, place in enumerate(features.places())}
    row = np.full(len(nodes), -1)
    for node in wanted.tolist():
        place = int(nodes.layer[node]), int(nodes.pos[node]), int(nodes.index[node])
        if place not in active:
            raise ExperimentError(_other(graph, f"{nodes[node]} is not active in"))
        row[node] = active[place]
    found = torch.from_numpy(row).to(features.pos.device)
    given = nodes.activation[wanted]
    own = features.activation[found[torch.from_numpy(wanted)]].double().cpu().numpy()
    away = np.abs(own - given)
    # Written so that what is no number does not agree.
    if not np.all(away <= AGREEMENT * np.abs(given).max(initial=0.0)):
        worst = int(wanted[np.nan_to_num(away, nan=np.inf).argmax()])
        raise ExperimentError(_other(graph, f"{nodes[worst]} has another activation in"))
    return found


def _other(graph: AttributionGraph, what: str) -> str:
    header = graph.provenance
    return (
        f"{what} this model and dictionary: give those that were traced, {header.model.name!r} "
        f"with {header.dictionary.name!r}."
    )
