"""Overview: the summary of a graph, few boxes and the influence between them.

The boxes are the prompt's strongest tokens, at most so many groups of features (`grouping`), the
strongest targets, and one for everything else.  `box_flows` says what flows between them,
`chains` which chains of boxes are the strongest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.influence import influence_shares
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.groups.automatic import with_groups
from graphs.groups.box_flows import box_flows
from graphs.groups.chains import Chain, carried_by, strongest_chains
from graphs.groups.collapse import CyclicGroups, topological_order

GROUPS, TOKENS, TARGETS = 8, 5, 3  # at most
LEAST_GROUP, LEAST_TOKEN, LEAST_TARGET = 0.02, 0.04, 0.05  # of all influence, and of the seed


class BoxKind(StrEnum):
    """What a box stands for."""

    TOKEN = "token"
    GROUP = "group"
    TARGET = "target"
    MORE = "more"  # everything else


@dataclass(frozen=True, repr=False)
class Box(Brief):
    """Nodes that are drawn as one."""

    kind: BoxKind
    name: str
    rows: Int[ndarray, " member"]  # of the graph
    arrived: float  # share of all influence that enters; of everything else, what starts there


@dataclass(frozen=True, repr=False)
class Overview(Brief):
    """Boxes, sources before targets and everything else first, and what flows between them."""

    boxes: tuple[Box, ...]
    flow: Float[ndarray, "target source"]  # share of all influence
    net: Float[ndarray, "target source"]  # the same with signs
    chains: tuple[Chain, ...]  # from tokens to the heaviest target, the strongest first
    carried: float  # of what reaches that target, the share that passes through their groups

    @property
    def occupied(self) -> list[int]:
        """Numbers of the boxes of which nodes are or from which influence comes."""
        return [n for n, box in enumerate(self.boxes) if len(box.rows) or self.flow[:, n].any()]

    def of_kind(self, kind: BoxKind) -> list[int]:
        """Numbers of the boxes of a kind."""
        return [number for number, box in enumerate(self.boxes) if box.kind == kind]


def graph_overview(
    graph: AttributionGraph, annotations: Annotations = NO_ANNOTATIONS, at_most: int = GROUPS
) -> Overview:
    """The overview of a graph with the user's groups and automatic ones, `at_most` so many.

    Raises CyclicGroups if the user's groups feed each other, TooManyFeatures as `find_groups`.
    """
    grouped = with_groups(graph, annotations, at_most=at_most)
    automatic = {group.name for group in grouped.groups if group.automatic}
    arrived = influence_shares(graph)
    groups = {
        name: rows
        for name, rows in grouped.rows(graph).items()
        if name not in automatic or arrived[rows].sum() >= LEAST_GROUP
    }
    while True:
        try:
            return _overview(graph, groups, arrived)
        except CyclicGroups:
            # Groups among the nodes that pruning keeps may feed each other through others.
            among = [name for name in groups if name in automatic]
            if not among:
                raise
            del groups[min(among, key=lambda name: float(arrived[groups[name]].sum()))]


def overview(graph: AttributionGraph, groups: Mapping[str, Int[ndarray, " _member"]]) -> Overview:
    """The overview of a graph by these groups.

    Raises CyclicGroups for groups that feed each other and ValueError for a node in two of them.
    """
    return _overview(graph, groups, influence_shares(graph))


def _overview(
    graph: AttributionGraph,
    groups: Mapping[str, Int[ndarray, " _member"]],
    arrived: Float[ndarray, " node"],  # share of all influence, seed included
) -> Overview:
    grouped = np.zeros(len(graph), dtype=bool)
    for rows in groups.values():
        if np.any(grouped[rows]):
            raise ValueError(f"{graph.nodes[int(rows[grouped[rows]][0])]} is in two groups.")
        grouped[rows] = True
    chosen: list[Chosen] = [
        *_tokens(graph, np.where(grouped, 0.0, arrived)),
        *((BoxKind.GROUP, name, rows) for name, rows in groups.items()),
        *_targets(graph, graph.target_rows()[~grouped[graph.target_rows()]]),
    ]
    place = np.full(len(graph), -1)
    for number, (_, _, rows) in enumerate(chosen):
        place[rows] = number
    flow, net = box_flows(graph, place, len(chosen), arrived)
    order: list[int] = topological_order(
        csr_array(flow[:, :-1]), [name for _, name, _ in chosen]
    ).tolist()
    columns = [len(chosen), *order]  # everything else is the first box
    flow, net = (np.vstack([np.zeros(len(columns)), m[order][:, columns]]) for m in (flow, net))
    seed = graph.seed / (float(graph.seed.sum()) or 1.0)
    entering = flow.sum(axis=0)
    rest = np.flatnonzero(place < 0)
    more = f"{len(rest):,} more" if len(rest) else "dropped edges"
    boxes = [Box(BoxKind.MORE, more, rest, float(entering[0]))]
    for number, (kind, name, rows) in enumerate((chosen[at] for at in order), start=1):
        boxes.append(Box(kind, name, rows, float(entering[number] + seed[rows].sum())))
    ends = [at for at, box in enumerate(boxes) if _is_heaviest(graph, box)]
    chains = strongest_chains(
        [at for at, box in enumerate(boxes) if box.kind == BoxKind.TOKEN],
        [at for at, box in enumerate(boxes) if box.kind == BoxKind.GROUP],
        ends[0] if ends else -1,
        flow,
    )
    inner = [boxes[at].rows for chain in chains for at in chain[1:-1]]
    return Overview(tuple(boxes), flow, net, chains, carried_by(graph, inner))


def _is_heaviest(graph: AttributionGraph, box: Box) -> bool:
    return box.kind == BoxKind.TARGET and graph.heaviest_target() in box.rows


Chosen = tuple[BoxKind, str, Int[ndarray, " _member"]]


def _tokens(graph: AttributionGraph, arrived: Float[ndarray, " node"]) -> list[Chosen]:
    """The strongest tokens behind the prefix, in the order of the prompt."""
    shown = graph.nodes.is_kind(NodeKind.TOKEN) & (graph.nodes.pos >= graph.provenance.n_prefix)
    rows = np.flatnonzero(shown & (arrived >= LEAST_TOKEN))
    strongest = rows[np.argsort(-arrived[rows], kind="stable")][:TOKENS]
    at: list[int] = graph.nodes.pos[np.sort(strongest)].tolist()
    return [
        (BoxKind.TOKEN, graph.token_text(pos), np.array([row]))
        for pos, row in zip(at, np.sort(strongest), strict=True)
    ]


def _targets(graph: AttributionGraph, rows: Int[ndarray, " target"]) -> list[Chosen]:
    """The heaviest of these targets, and all others as one."""
    order = rows[np.argsort(-graph.seed[rows], kind="stable")]
    least = LEAST_TARGET * float(graph.seed.sum())
    heavy = [int(row) for row in order if graph.seed[row] >= least or row == order[0]][:TARGETS]
    texts = dict(zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True))
    found: list[Chosen] = [(BoxKind.TARGET, texts[row].text, np.array([row])) for row in heavy]
    others = np.setdiff1d(rows, heavy)
    if len(others):
        found.append((BoxKind.TARGET, f"{len(others):,} more", others))
    return found
