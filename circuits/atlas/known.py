"""Known circuits: prompts of the atlas world, and the intermediate concept that each requires.

A graph shows a circuit if it has a feature whose label names the middle concept, at a middle
layer, on a path from the token that names the start to the answer.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from graphs import AttributionGraph, Ends, NodeKind, flow, influence, select
from graphs.analysis.select import names_concept
from graphs.comparison.evidence import mean_depth

TABLE = Path(__file__).with_name("known_circuits.toml")


@dataclass(frozen=True)
class KnownCircuit:
    """One prompt whose computation is known."""

    prompt: str
    start: str  # token of the prompt
    middle: str  # concept that is not in the prompt
    answer: str


@cache
def known_circuits() -> tuple[KnownCircuit, ...]:
    """The table, in the order of its file."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["circuits"]
    return tuple(KnownCircuit(**row) for row in rows)


def middle_features(graph: AttributionGraph, circuit: KnownCircuit) -> list[int]:
    """Rows of the features that name the middle concept on a path from the start to the answer.

    Neither the first layer nor the last one is a middle layer.
    """
    tokens = graph.nodes.is_kind(NodeKind.TOKEN)
    starts = [row for row in np.flatnonzero(tokens).tolist() if _token(graph, row) == circuit.start]
    answers = [
        int(row)
        for row, target in zip(graph.target_rows(), graph.provenance.targets, strict=True)
        if target.text.strip() == circuit.answer
    ]
    between = _reached(csr_array(graph.weights.T), starts) & _reached(graph.weights, answers)
    last = graph.provenance.model.n_layers - 1
    middle = (graph.nodes.layer > 0) & (graph.nodes.layer < last)
    rows = np.flatnonzero(between & middle & graph.nodes.is_kind(NodeKind.FEATURE))
    return [int(row) for row in rows if names_concept(graph, int(row), circuit.middle)]


@dataclass(frozen=True)
class MiddleFlow:
    """How much influence flows through the middle concept, and at which depth."""

    share: float  # of the influence that flows from the start to the answer
    depth: float  # relative, of the features that name the concept, by influence; nan without any


def flow_through_middle(graph: AttributionGraph, circuit: KnownCircuit) -> MiddleFlow:
    """The flow through features that name the middle concept.

    Raises SelectionError if the graph has no such start or answer.
    """
    start = select(graph, f"token:{circuit.start}")
    answer = select(graph, f"logit:{circuit.answer}")
    rows = middle_features(graph, circuit)
    total = flow(graph, Ends(start, answer))
    if not rows or total == 0:
        return MiddleFlow(0.0, float("nan"))
    middle = np.isin(np.arange(len(graph)), rows)
    return MiddleFlow(
        share=flow(graph, Ends(start, answer, (middle,))) / total,
        depth=mean_depth(graph, np.array(rows), influence(graph)[rows]),
    )


def _token(graph: AttributionGraph, row: int) -> str:
    return graph.token_text(int(graph.nodes.pos[row])).strip()


def _reached(edges: csr_array, starts: list[int]) -> Bool[ndarray, " node"]:
    """Nodes that can be reached from these, themselves included."""
    reached = np.zeros(edges.shape[0], dtype=bool)
    for start in starts:
        reached[breadth_first_order(edges, start, return_predecessors=False)] = True
    return reached
