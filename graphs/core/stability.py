"""Stability: which nodes and edges of a pruned graph stay when something else is varied.

    share[k] = variants of kind k in which a node or edge stays / variants of kind k
    least    = the smallest share over all kinds that judge it

    core        least >= core_limit
    noise       least < noise_limit
    contingent  anything between

Kinds are pruning thresholds, paraphrases and other dictionaries.  The least share decides, so that
many variants of one kind cannot hide that another kind loses a node.  Nodes and edges that no kind
judges have no class: tokens, positions and targets, which pruning never removes.

The null is what the share of influence at core nodes would be if each node had the class of a
random node of the whole graph at the same layer and position (mean and standard deviation over
independent draws, in closed form).

Part of the graph file's header; `graphs.stability` makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from graphs.core.nodes import NodeName
from graphs.core.records import Record

VariationKind = Literal["thresholds", "paraphrases", "dictionaries"]
StabilityClass = Literal["core", "contingent", "noise"]
CLASSES: tuple[StabilityClass, ...] = ("core", "contingent", "noise")
# Of five variants one may lack a core node: a single odd variant, as a paraphrase that the model
# reads in another way, decides nothing.  Noise is the mirror image: it stays in none of five.
CORE_LIMIT, NOISE_LIMIT = 0.8, 0.2

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class StabilityNull(Record):
    """Share of influence at core nodes if classes were those of random nodes."""

    mean: float
    sd: float


class Variation(Record):
    """In how many variants of one kind each node and edge stays; None: the kind does not judge."""

    kind: VariationKind
    variants: tuple[str, ...] = Field(min_length=1)  # thresholds, prompts or dictionaries
    nodes: tuple[Count | None, ...]
    edges: tuple[Count | None, ...]
    unaligned: Share  # of influence at positions that a variant lacks; mean over variants
    null: StabilityNull

    @model_validator(mode="after")
    def _possible(self) -> Variation:
        most = max((count for count in (*self.nodes, *self.edges) if count is not None), default=0)
        if most > len(self.variants):
            raise ValueError(f"something stays in {most} of {len(self.variants)} variants")
        return self


@dataclass(frozen=True)
class ClassShare:
    """One class: how many nodes and edges are in it, and their share of influence."""

    name: StabilityClass
    nodes: int
    node_influence: float  # of the influence at all judged nodes
    edges: int
    edge_influence: float  # of the influence along all judged edges


class Stability(Record):
    """What stays of a graph that was pruned at these thresholds.

    Raises ValidationError for columns of different lengths.
    """

    generator: str  # program and version
    node_threshold: Share
    edge_threshold: Share
    core_limit: Share = CORE_LIMIT
    noise_limit: Share = NOISE_LIMIT
    nodes: tuple[NodeName, ...]
    node_influence: tuple[float, ...]  # shares of all, as `graphs.influence`, seed included
    sources: tuple[Count, ...]  # of each edge, as places in `nodes`
    targets: tuple[Count, ...]
    edge_influence: tuple[float, ...]
    variations: tuple[Variation, ...] = Field(min_length=1)
    null: StabilityNull

    @model_validator(mode="after")
    def _fits(self) -> Stability:
        nodes = [self.node_influence, *(one.nodes for one in self.variations)]
        edges = [self.targets, self.edge_influence, *(one.edges for one in self.variations)]
        if any(len(column) != len(self.nodes) for column in nodes):
            raise ValueError(f"Expected {len(self.nodes)} entries in each column of nodes.")
        if any(len(column) != len(self.sources) for column in edges):
            raise ValueError(f"Expected {len(self.sources)} entries in each column of edges.")
        if max((*self.sources, *self.targets), default=-1) >= len(self.nodes):
            raise ValueError("An edge starts or ends at no node.")
        return self

    @property
    def node_shares(self) -> tuple[float | None, ...]:
        """Least share of variants of each node; None: not judged."""
        return tuple(_least(self.variations, [one.nodes for one in self.variations]))

    @property
    def edge_shares(self) -> tuple[float | None, ...]:
        """Least share of variants of each edge; None: not judged."""
        return tuple(_least(self.variations, [one.edges for one in self.variations]))

    def class_of(self, share: float) -> StabilityClass:
        """The class of a node or edge with this least share."""
        if share >= self.core_limit:
            return "core"
        return "noise" if share < self.noise_limit else "contingent"

    def classes(self, kind: VariationKind | None = None) -> tuple[ClassShare, ...]:
        """Sizes of the three classes, over all kinds of variation or by one alone."""
        some = [one for one in self.variations if kind in (None, one.kind)]
        nodes = self._sizes(_least(some, [one.nodes for one in some]), self.node_influence)
        edges = self._sizes(_least(some, [one.edges for one in some]), self.edge_influence)
        return tuple(ClassShare(name, *nodes[name], *edges[name]) for name in CLASSES)

    def _sizes(
        self, shares: Iterator[float | None], influence: Sequence[float]
    ) -> dict[StabilityClass, tuple[int, float]]:
        """How many are in each class, and their share of the influence of all that are judged."""
        judged = [
            (self.class_of(share), size)
            for share, size in zip(shares, influence, strict=True)
            if share is not None
        ]
        total = sum(size for _, size in judged) or 1.0
        return {
            name: (
                sum(own == name for own, _ in judged),
                sum(size for own, size in judged if own == name) / total,
            )
            for name in CLASSES
        }

    def as_json(self) -> dict[str, object]:
        """Classes over all kinds of variation and by each, without single nodes and edges."""
        return {
            "node_threshold": self.node_threshold,
            "edge_threshold": self.edge_threshold,
            "limits": {"core": self.core_limit, "noise": self.noise_limit},
            "classes": [asdict(one) for one in self.classes()],
            "null": self.null.model_dump(),
            "variations": [
                {
                    "kind": one.kind,
                    "variants": list(one.variants),
                    "classes": [asdict(found) for found in self.classes(one.kind)],
                    "null": one.null.model_dump(),
                    "unaligned": one.unaligned,
                }
                for one in self.variations
            ],
        }

    @property
    def sentence(self) -> str:
        """The classes of nodes, and what was varied."""
        core, *others = self.classes()
        rest = ", ".join(f"{one.nodes:,} {one.name} {one.node_influence:.1%}" for one in others)
        varied = [f"{len(one.variants):,} {varied_as(one)}" for one in self.variations]
        carry = "node carries" if core.nodes == 1 else "nodes carry"
        return (
            f"{core.nodes:,} core {carry} "
            f"{core.node_influence:.1%} of influence (null {self.null.mean:.1%} ± "
            f"{self.null.sd:.1%}), {rest}, over {_listed(varied)}"
        )


def varied_as(one: Variation) -> str:
    """What is varied, as it stands behind a number."""
    if len(one.variants) > 1:
        return "other dictionaries" if one.kind == "dictionaries" else one.kind
    return {
        "thresholds": "pair of thresholds",
        "paraphrases": "paraphrase",
        "dictionaries": "other dictionary",
    }[one.kind]


def _least(
    variations: Sequence[Variation], counts: Sequence[tuple[int | None, ...]]
) -> Iterator[float | None]:
    """Least share of variants in which each node or edge stays."""
    of = [len(one.variants) for one in variations]
    for stays in zip(*counts, strict=True):
        known = [count / n for count, n in zip(stays, of, strict=True) if count is not None]
        yield min(known, default=None)


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
