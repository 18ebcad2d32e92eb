"""An experiment: a graph with its model and its prompt recorded, ready for interventions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.local_replacement import (
    LocalReplacement,
    local_replacement,
    require_sound,
    written_at,
)
from circuits.attribution.sources import Sources, build_sources
from circuits.attribution.trace_settings import TargetSettings
from circuits.features.active import ActiveFeatures, FeatureSource, LinearPath
from circuits.interventions.origin import (
    ExperimentError,
    require_dictionary,
    require_direct,
    require_model,
)
from circuits.machine import exactly
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from circuits.recording.attention import Attention
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.provenance import Provenance

AGREEMENT = 0.05  # of the largest activation: tolerated difference, for other dtypes


@dataclass(frozen=True, repr=False)
class Experiment(Brief):
    """A graph with the model, dictionary and recording that it belongs to."""

    graph: AttributionGraph
    subject: Subject
    source: FeatureSource
    local: LocalReplacement
    row: Int[ndarray, " node"]  # of each feature node among the active features; -1: no feature

    @cached_property
    def sources(self) -> Sources:
        """All that is added to the residual, for sweeps of every position."""
        with exactly():
            return build_sources(self.local, 0)

    @cached_property
    def attention(self) -> Attention:
        """Attention of every layer, for sweeps of every position."""
        with exactly():
            return Attention(self.local.frozen, self.local.recording, 0)

    @cached_property
    def linear(self) -> tuple[dict[int, LinearPath], ...]:
        """Linear paths into each layer, by the layer that they read."""
        return tuple(map(self.local.features.rows.linear, range(self.local.frozen.n_layers)))

    @cached_property
    def error(self) -> Callable[[int], Float[Tensor, "pos d_model"]]:
        """Errors of a layer, by position; computed once per layer."""
        local = self.local

        @cache
        def at(layer: int) -> Float[Tensor, "pos d_model"]:
            error = written_at(local, layer).error
            require_sound(local, {layer: error.isfinite().all()})
            return error

        return at


def prepare(
    graph: AttributionGraph,
    subject: Subject,
    source: FeatureSource,
    targets: TargetSettings | None = None,
) -> Experiment:
    """Record a graph's prompt again and find its features.

    Targets are those of the graph; in a file of before November 2026 directions are not among them
    and must be given.  Raises ExperimentError for a graph of another model, dictionary or target
    and for one with head nodes, and as `circuits.trace`.
    """
    header = graph.provenance
    require_model(header, subject)
    require_direct(graph)
    settings = targets or target_settings(graph)
    prompt = Prompt(header.prompt, header.token_ids, header.tokens, header.n_prefix)
    with exactly():
        local = local_replacement(prompt, subject, source, settings)
        require_dictionary(header, local.features.identity)
        row = _rows(graph, local.features)
    kinds = graph.nodes.kind[graph.target_rows()], graph.nodes.index[graph.target_rows()]
    if not np.array_equal(kinds[1], local.targets.index) or not np.array_equal(
        kinds[0], local.targets.kind
    ):
        raise ExperimentError(
            "The graph's targets do not match its settings: give the target settings of the trace."
        )
    return Experiment(graph, subject, source, local, row)


def target_settings(graph: AttributionGraph) -> TargetSettings:
    """Settings with the targets of a graph.  Raises ExperimentError if it lacks them."""
    header, position = graph.provenance, graph.provenance.settings.get("position")
    readings = tuple(one.reading for one in header.targets if one.reading is not None)
    if len(readings) == len(header.targets) and isinstance(position, int):
        seeds = tuple(graph.seed[graph.target_rows()].tolist()) if graph.seed.any() else ()
        return TargetSettings(readings=readings, seeds=seeds, position=position)
    return asked_settings(header)


def asked_settings(header: Provenance) -> TargetSettings:
    """Tokens, contrast and position as they were asked for.  Raises ExperimentError as above."""
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
                "The graph does not name the position and tokens that it explains, so another "
                "program wrote it: trace the prompt with `headwater trace`."
            )


def _rows(graph: AttributionGraph, features: ActiveFeatures) -> Int[ndarray, " node"]:
    """Rows of the graph's features among the active ones; -1 for other nodes."""
    nodes, feature_nodes = graph.nodes, np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    active = {place: row for row, place in enumerate(features.places())}
    row = np.full(len(nodes), -1)
    for node in feature_nodes.tolist():
        place = int(nodes.layer[node]), int(nodes.pos[node]), int(nodes.index[node])
        if place not in active:
            raise ExperimentError(_mismatch(graph, f"{nodes[node]} is not active in"))
        row[node] = active[place]
    given = nodes.activation[feature_nodes]
    difference = np.abs(features.numbers[0][row[feature_nodes]].astype(np.float64) - given)
    # Written so that NaN does not agree.
    if not np.all(difference <= AGREEMENT * np.abs(given).max(initial=0.0)):
        worst = int(feature_nodes[np.nan_to_num(difference, nan=np.inf).argmax()])
        raise ExperimentError(_mismatch(graph, f"{nodes[worst]} has a different activation in"))
    return row


def _mismatch(graph: AttributionGraph, what: str) -> str:
    header = graph.provenance
    return (
        f"{what} this model and dictionary: give those that were traced, {header.model.name!r} "
        f"with {header.dictionary.name!r}."
    )
