"""Summary of a graph as plain data: what `headwater show` prints and `--json` writes."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.influence import influence
from graphs.analysis.scores import Scores, scores
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.brief import Brief, brief
from graphs.core.graph import AttributionGraph
from graphs.core.head_totals import strongest_heads
from graphs.core.nodes import NodeKind
from graphs.core.opening import Opening
from graphs.core.provenance import Checks, DictionaryFit, Provenance, Sink
from graphs.core.records import as_json
from graphs.core.report import Report
from graphs.core.stability import Stability
from graphs.naming.names import Names
from graphs.reports.attended_summary import HEADS, CarriedByHeads, carried_by_heads

TOP = 10  # nodes of all layers that are listed
LEAST = 1e-300  # probability whose logarithm is taken


@dataclass(frozen=True)
class TargetLine:
    """One explained output."""

    node: str
    text: str
    probability: float | None  # None for contrasts and vectors, and where it is not known
    weight: float  # its share of the seed
    value: float | None  # sum of its row; None in graphs of other programs
    of_sequence: bool = False  # whether it is a token of a sequence


@dataclass(frozen=True)
class NodeLine:
    """One of the most influential nodes."""

    node: str
    layer: int | None  # None for tokens
    token: str  # at the node's position
    pos: int
    activation: float | None  # None for tokens
    influence: float  # share of all influence that passes through the node
    output_tokens: tuple[str, ...]  # tokens that it promotes most
    label: str  # the user's, else what its feature stands for; may be empty


@dataclass(frozen=True)
class GroupLine:
    """A group of nodes that somebody, or a program, has put together."""

    name: str
    members: int  # in the graph
    influence: float  # of its members, added up


@dataclass(frozen=True)
class WrittenByHeads:
    """What attention heads write into one target."""

    target: str  # its text
    total: float  # of all heads, in units of the target
    strongest: tuple[tuple[int, int, float], ...]  # layer, head and part


@dataclass(frozen=True, repr=False)
class Summary(Brief):
    """Numbers of a graph and its most influential nodes, layers from the top, tokens last."""

    model: str
    dictionary: str
    dtype: str
    tokens: tuple[str, ...]
    n_prefix: int
    opening: Opening | None
    sinks: tuple[Sink, ...] | None
    fit: DictionaryFit | None  # of the dictionary on the prompt
    mismatches: tuple[str, ...]  # of the prompt's opening and the dictionary's documents
    targets: tuple[TargetLine, ...]
    remarks: tuple[str, ...]  # caveats of the numbers
    top: tuple[NodeLine, ...]  # of all layers, the most influential first
    strongest: tuple[NodeLine, ...]  # of each layer
    groups: tuple[GroupLine, ...]  # supernodes, the most influential first
    n_nodes: int
    n_features: int
    n_edges: int
    scores: Scores
    heads: WrittenByHeads | None  # into the most heavily weighted target
    attended: CarriedByHeads | None  # along edges, and looks
    checks: Checks
    report: Report | None  # of `headwater check`
    stability: Stability | None  # of `headwater stability`
    failures: tuple[str, ...]

    @property
    def sequence(self) -> str | None:
        """The log-probability of the sequence that is explained, in a sentence."""
        tokens = [one for one in self.targets if one.of_sequence and one.probability is not None]
        if not tokens:
            return None
        total = sum(log(max(one.probability or 0.0, LEAST)) for one in tokens)
        text = "".join(one.text for one in tokens)
        return (
            f"the sequence {brief(text)} has log-probability {total:.3g} over "
            f"{len(tokens)} token{'s' * (len(tokens) > 1)}; "
            "the values are of its gradient, each weighs what its token lacks to probability 1"
        )

    def as_json(self) -> dict[str, object]:
        """The same as JSON-ready data."""
        return {
            **as_json(self, {"n_prefix": "context_only"}),
            "opening": self.opening and self.opening.model_dump(mode="json"),
            "sinks": None if self.sinks is None else [sink.model_dump() for sink in self.sinks],
            "fit": self.fit and self.fit.model_dump(),
            "checks": self.checks.model_dump(),
            "report": self.report and self.report.model_dump(mode="json"),
            "stability": self.stability and self.stability.as_json(),
        }


def summarise(
    graph: AttributionGraph, per_layer: int = 3, annotations: Annotations = NO_ANNOTATIONS
) -> Summary:
    """The graph's targets, its `per_layer` strongest features per layer, scores and checks.

    The user's labels replace the dictionary's.
    """
    source, total = graph.provenance, float(graph.seed.sum()) or 1.0
    reached, names = influence(graph) / total, Names(graph, annotations)
    return Summary(
        model=source.model.name,
        dictionary=source.dictionary.name,
        dtype=_numbers(source),
        tokens=source.tokens,
        n_prefix=source.n_prefix,
        opening=source.opening,
        sinks=source.sinks,
        fit=source.fit,
        mismatches=source.mismatches,
        targets=tuple(
            TargetLine(
                node=str(graph.nodes[int(row)]),
                text=target.text,
                probability=None if target.token_id is None else target.probability,
                weight=float(graph.seed[row]) / total,
                value=_known(float(graph.nodes.value[row])),
                of_sequence=target.reading is not None and target.reading.what == "sequence",
            )
            for row, target in zip(graph.target_rows(), source.targets, strict=True)
        ),
        remarks=weight_remarks(graph),
        top=_top(names, reached),
        strongest=_strongest(names, reached, per_layer),
        groups=_groups(graph, reached, annotations),
        n_nodes=len(graph),
        n_features=int(graph.nodes.is_kind(NodeKind.FEATURE).sum()),
        n_edges=int(graph.weights.nnz),
        scores=scores(graph),
        heads=_heads(graph),
        attended=carried_by_heads(graph),
        checks=source.checks,
        report=source.report,
        stability=source.stability,
        failures=source.failures,
    )


def _heads(graph: AttributionGraph) -> WrittenByHeads | None:
    rows = graph.target_rows()
    if graph.heads is None or not len(rows):
        return None
    first = int(np.argmax(graph.seed[rows]))
    parts = graph.heads.of(int(rows[first]))
    if parts is None or not parts.any():
        return None
    return WrittenByHeads(
        target=graph.provenance.targets[first].text,
        total=float(parts.sum(dtype=np.float64)),
        strongest=tuple(strongest_heads(parts, HEADS)),
    )


def _numbers(header: Provenance) -> str:
    """The type of numbers, and how their products were made if not in that type."""
    plain = header.precision in (None, "ieee")
    return header.dtype if plain else f"{header.dtype}, {header.precision}"


def weight_remarks(graph: AttributionGraph) -> tuple[str, ...]:
    """How targets without a probability, in files of other programs, are weighted."""
    known = [target.probability is not None for target in graph.provenance.targets]
    seeds = graph.seed[graph.target_rows()]
    if all(known):
        return ()
    if not any(known) and np.all(seeds == seeds[0]):
        return ("The probabilities of the predictions are unknown: all have the same weight.",)
    unknown = f"{known.count(False):,} of {len(known):,} predictions"
    return (f"{unknown} have an unknown probability and weight 0.",)


def _top(names: Names, reached: Float[ndarray, " node"]) -> tuple[NodeLine, ...]:
    """Features, heads and tokens with most influence."""
    kinds = names.graph.nodes.is_kind(NodeKind.FEATURE, NodeKind.HEAD, NodeKind.TOKEN)
    return tuple(
        _line(names, node, reached) for node in _first(np.flatnonzero(kinds), reached, TOP)
    )


def _groups(
    graph: AttributionGraph, reached: Float[ndarray, " node"], annotations: Annotations
) -> tuple[GroupLine, ...]:
    found = [
        GroupLine(name, len(rows), float(reached[rows].sum()))
        for name, rows in annotations.rows(graph).items()
    ]
    return tuple(sorted(found, key=lambda group: -group.influence))


def _strongest(
    names: Names, reached: Float[ndarray, " node"], per_layer: int
) -> tuple[NodeLine, ...]:
    nodes = names.graph.nodes
    features = nodes.is_kind(NodeKind.FEATURE)
    groups = [
        np.flatnonzero(features & (nodes.layer == layer))
        for layer in np.unique(nodes.layer[features])[::-1]
    ]
    groups.append(np.flatnonzero(nodes.is_kind(NodeKind.TOKEN)))
    return tuple(
        _line(names, node, reached)
        for group in groups
        for node in _first(group, reached, per_layer)
    )


def _first(nodes: Int[ndarray, " some"], reached: Float[ndarray, " node"], count: int) -> list[int]:
    """The `count` nodes of these with the most influence, strongest first."""
    best = nodes[np.argsort(-reached[nodes], kind="stable")][:count]
    return [int(node) for node in best if reached[node] > 0]


def _line(names: Names, node: int, reached: Float[ndarray, " node"]) -> NodeLine:
    graph, identity = names.graph, names.graph.nodes[node]
    pos = int(graph.nodes.pos[node])
    is_feature = identity.kind == NodeKind.FEATURE
    return NodeLine(
        node=str(identity),
        layer=identity.layer,
        token=graph.token_text(pos),
        pos=pos,
        activation=_known(float(graph.nodes.activation[node])),
        influence=float(reached[node]),
        output_tokens=graph.output_tokens.get(node, ()),
        label=names.label(node) if is_feature else names.annotations.label(graph, node) or "",
    )


def _known(number: float) -> float | None:
    return None if np.isnan(number) else number
