"""Skipped hops: two-step paths of one dictionary's graph that are one edge in another's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

import circuits
import graphs
import viz
from circuits.progress import Progress, progress_bar
from graphs.comparison.hops import Skips
from graphs.interventions.mediation import Route
from headwater.errors import ArgumentError
from headwater.graph import Graph
from headwater.printed import Printed, printed
from viz.text.words import percent

MEASURED = 10  # hops of either graph that are tested in the model, at most
Mediations = tuple[graphs.Mediation | None, ...]


@dataclass(frozen=True, repr=False)
class Hops(Printed, graphs.SkippedHops):
    """Hops that either graph skips; `print` shows what `headwater hops` does."""

    pair: tuple[Graph, Graph]
    measured: tuple[Mediations, Mediations] | None = None  # of the first hops; None: from tokens

    def __repr__(self) -> str:
        shares = [percent(side.skipped.value) for side in (self.first, self.second)]
        return f"<Hops: the second graph skips {shares[0]}, the first graph skips {shares[1]}>"

    def __str__(self) -> str:
        return printed(viz.skipped_text(*self.pair, self, MEASURED, self.measured))


def hops(
    first: Graph,
    second: Graph,
    *,
    measure: bool = False,
    model: str | None = None,
    transcoders: Sequence[str | None] = (None, None),
    settings: graphs.CorrespondSettings | None = None,
    profiles: tuple[graphs.Profile, graphs.Profile] | None = None,
    device: str = "auto",
) -> Hops:
    """As `Comparison.hops`."""
    if len(transcoders) != 2:
        raise ArgumentError(
            f"transcoders are two, of either graph, got {len(transcoders)}: None is the one that a "
            "graph names."
        )
    found = graphs.skipped_hops(first, second, settings, profiles)
    measured = None
    if measure:
        one, other = transcoders
        with progress_bar(Console(file=sys.stderr, force_jupyter=False)) as progress:
            measured = (
                _measured(first, found.first, model, one, device, progress),
                _measured(second, found.second, model, other, device, progress),
            )
    return Hops(found.first, found.second, (first, second), measured)


def _measured(
    graph: Graph,
    skips: Skips,
    model: str | None,
    transcoders: str | None,
    device: str,
    progress: Progress,
) -> Mediations:
    """Mediation of the first hops; None for those that begin at a token."""
    features = graph.nodes.is_kind(graphs.NodeKind.FEATURE)
    hops = skips.hops[:MEASURED]
    routes = {
        place: Route((hop.nodes[0],), (hop.nodes[1],), hop.nodes[2])
        for place, hop in enumerate(hops)
        if features[hop.nodes[0]]
    }
    if not routes:
        return (None,) * len(hops)
    progress("load", 0, 1)
    experiment = circuits.experiment_on(graph, model, transcoders, device)
    found = dict(
        zip(routes, circuits.mediations(experiment, list(routes.values()), progress), strict=True)
    )
    return tuple(found.get(place) for place in range(len(hops)))
