"""Two graphs beside each other: features of one dictionary by identity, of two by evidence."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rich.console import RenderableType

import graphs
import viz
from graphs.comparison.compare import PERMUTATIONS, ComparisonError
from graphs.comparison.concepts import Groups, path_overlap
from graphs.comparison.head_overlap import HeadOverlap, head_overlap
from graphs.comparison.matching import Match
from graphs.core.identity import same_dictionary
from graphs.groups.automatic import with_groups
from headwater.graph import Graph, as_graph
from headwater.printed import Printed, printed
from headwater.skipping import Hops, hops
from viz.text.compared import score_cells

Profiles = tuple[graphs.Profile, graphs.Profile]
MANY_EDGES = 2_000_000  # of a graph whose comparison takes minutes


@dataclass(frozen=True, repr=False)
class Comparison(Printed, ABC):
    """What two graphs have in common; `print` shows what `headwater compare` does."""

    first: Graph
    second: Graph

    def __repr__(self) -> str:
        shown = (f"{name} {score_cells(one)[0]}" for name, one in list(self.scores.items())[:2])
        prompts = (repr(graph.provenance.prompt) for graph in (self.first, self.second))
        return f"<Comparison of {' and '.join(prompts)}\n  {', '.join(shown)}>"

    def __str__(self) -> str:
        return printed(self.text())

    @property
    @abstractmethod
    def scores(self) -> dict[str, graphs.Score]:
        """Scores with their nulls, by the names that are shown."""

    @abstractmethod
    def text(self) -> RenderableType:
        """Tables for a terminal."""

    @property
    @abstractmethod
    def match(self) -> Match:
        """Pairs of nodes."""

    @cached_property
    def concepts(self) -> list[graphs.Concept]:
        """Concepts of both graphs, with the influence that goes through each."""
        return graphs.concepts(self.first, self.second, self.match, self.groups)

    @cached_property
    def groups(self) -> tuple[Groups, Groups]:
        """The groups of both graphs: those in their annotations, and automatic ones."""
        one, other = (
            with_groups(graph, graph.annotations).rows(graph) for graph in (self.first, self.second)
        )
        return one, other

    def hops(
        self,
        *,
        measure: bool = False,
        model: str | None = None,
        transcoders: Sequence[str | None] = (None, None),
        settings: graphs.CorrespondSettings | None = None,
        profiles: Profiles | None = None,
        device: str = "auto",
    ) -> Hops:
        """Which two-step paths of either graph are one edge in the other.

        measure: test the most skipped of them in the model: how much of the effect of the first
            feature on the last goes through the one between.
        model, transcoders: of the two graphs, in their order; by default those that they name.
        settings, profiles: how features of two dictionaries are matched, as for `compare`.

        Raises ComparisonError for graphs of two models, prompts or sets of targets, and what
        `intervene` raises if effects are measured.
        """
        return hops(
            self.first,
            self.second,
            measure=measure,
            model=model,
            transcoders=transcoders,
            settings=settings,
            profiles=profiles,
            device=device,
        )

    def save(self, path: str | Path) -> Path:
        """Write a page with figures; returns the path.  Raises GraphFileError."""
        viz.write_comparison(self.first, self.second, self.scores, self.concepts, path)
        return Path(path)


@dataclass(frozen=True, repr=False)
class PromptComparison(Comparison):
    """Two graphs of one dictionary, whose features are matched by identity."""

    found: graphs.Comparison
    heads: HeadOverlap | None = None  # None: what heads write is not known of both

    @property
    def scores(self) -> dict[str, graphs.Score]:
        return viz.comparison_scores(self.found, self.heads)

    @property
    def match(self) -> Match:
        return self.found.match

    def text(self) -> RenderableType:
        return viz.comparison_text(self.first, self.second, self.found, self.heads)


@dataclass(frozen=True, repr=False)
class ModelComparison(Comparison):
    """Two graphs of two dictionaries, whose features are matched by evidence."""

    found: graphs.Correspondence

    @property
    def scores(self) -> dict[str, graphs.Score]:
        return viz.correspondence_scores(self.found, self.paths)

    @property
    def match(self) -> Match:
        return self.found.comparison.match

    @cached_property
    def paths(self) -> graphs.Score:
        """Overlap of paths through the same concepts."""
        matches = self.match, self.found.null_matches
        return path_overlap(self.first, self.second, *matches, self.groups)

    def text(self) -> RenderableType:
        return viz.correspondence_text(
            self.first, self.second, self.found, self.concepts, self.paths
        )


def compare(
    first: graphs.AttributionGraph | str | Path,
    second: graphs.AttributionGraph | str | Path,
    *,
    profiles: Profiles | None = None,
    permutations: int | None = None,
    settings: graphs.CorrespondSettings | None = None,
) -> Comparison:
    """What two graphs, or graph files, have in common, of two prompts or models, with nulls.

    profiles: of both dictionaries, in the order of the graphs, as evidence for matching features of
        two models; `circuits.profile` makes them.
    permutations: random exchanges that give the null.
    settings: how features of two models are matched, and the seed of the exchanges.

    Warns if one graph is pruned and the other is not.  Raises ComparisonError for profiles of one
    dictionary, and as `read`.
    """
    one, other = as_graph(first), as_graph(second)
    for sentence in remarks_on(one, other):
        warnings.warn(sentence, stacklevel=2)
    return compared(one, other, profiles, permutations, settings)


def compared(
    first: Graph,
    second: Graph,
    profiles: Profiles | None = None,
    permutations: int | None = None,
    settings: graphs.CorrespondSettings | None = None,
) -> Comparison:
    """As `compare`, with its remarks left to the caller."""
    chosen = settings or graphs.CorrespondSettings()
    if same_dictionary(first, second):
        refuse_profiles(profiles)
        count = PERMUTATIONS if permutations is None else permutations
        by_identity = graphs.compare(first, second, permutations=count, seed=chosen.seed)
        heads = head_overlap(first, second, by_identity.positions, count, chosen.seed)
        return PromptComparison(first, second, by_identity, heads)
    if permutations is not None:
        chosen = replace(chosen, permutations=permutations)
    return ModelComparison(first, second, graphs.correspond(first, second, chosen, profiles))


def remarks_on(first: graphs.AttributionGraph, second: graphs.AttributionGraph) -> tuple[str, ...]:
    """What to know about two graphs before they are compared."""
    if is_unlike(first, second):
        which = ("first", "second") if first.is_part else ("second", "first")
        return (
            f"The {which[0]} graph is pruned and the {which[1]} is not: what was pruned counts as "
            "missing, so prune both alike.",
        )
    edges = max(first.weights.nnz, second.weights.nnz)
    if edges > MANY_EDGES:
        return (f"Graphs of {edges:,} edges take minutes to compare: pruned ones take seconds.",)
    return ()


def is_unlike(first: graphs.AttributionGraph, second: graphs.AttributionGraph) -> bool:
    """Whether one graph is pruned and the other is not."""
    return first.is_part != second.is_part


def refuse_profiles(profiles: Profiles | None) -> None:
    """Raises ComparisonError for profiles where features are matched by identity."""
    if profiles is not None:
        raise ComparisonError(
            "Both graphs have features of one dictionary, which are matched by identity: leave out "
            "the profiles."
        )
