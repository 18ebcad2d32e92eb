"""Layout: where the nodes of a graph go, by arithmetic alone.

A column per token position, a row per layer; a cell is where they meet.  The unit of length is
the distance of two neighbours in a cell, so nodes do not overlap while a marker is at most one
unit wide.  Within a cell the strongest node is first: left, and in the upper line where the
nodes of a cell take several.

    input     token and position nodes, the lowest row
    0, 1, …   features, errors and biases by layer, and `final` for biases after the last layer
    output    logit and target nodes, the highest row

Biases have no position: they are the leftmost column.  Positions without a node have no column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.graph import AttributionGraph
from graphs.influence import influence
from graphs.nodes import INPUT_KINDS, TARGET_KINDS, NodeTable
from viz.strengths import ranks

BIAS = -1  # the column of nodes without a position
WIDE, HIGH = 76.0, 38.0  # units that a small graph is spread over, 1400 by 700 pixels at 18
_MOST_SLOTS = 100  # cells are broken into lines where columns would be wider than this together,
_SLOTS_PER_COLUMN = 3  # and in long prompts wider than this on average
_COLUMN_GAP, _ROW_GAP = 1.0, 0.6  # least units between two columns or rows
_BIAS_GAP = 2.0  # around the bias column, which stays narrow


@dataclass(frozen=True)
class Placement:
    """Where the nodes of a graph go, in units; x runs to the right and y upwards from 0."""

    x: Float[ndarray, " node"]
    y: Float[ndarray, " node"]
    columns: Int[ndarray, " column"]  # token position, or BIAS
    column_x: Float[ndarray, " column"]  # middle of each column
    column_width: Float[ndarray, " column"]
    rows: tuple[str, ...]  # input, 0, 1, …, output
    row_y: Float[ndarray, " row"]  # middle of each row
    width: float
    height: float


def layout(graph: AttributionGraph) -> Placement:
    """Where the nodes of a graph go, those with the most influence first in each cell."""
    return place(graph.nodes, graph.provenance.model.n_layers, influence(graph) + graph.seed)


def place(nodes: NodeTable, n_layers: int, strength: Float[ndarray, " node"]) -> Placement:
    """Where nodes go, the strongest first in each cell."""
    rows, row = _rows(nodes, n_layers)
    columns, column = np.unique(nodes.pos, return_inverse=True)
    cell = column * len(rows) + row
    count = np.bincount(cell, minlength=len(columns) * len(rows)).reshape(len(columns), len(rows))
    slots = _slots(count.max(axis=1, initial=0))
    lines = np.maximum(-(-count // slots[:, None]), 1)
    row_lines = lines.max(axis=0, initial=1)
    row_height = row_lines + max(_ROW_GAP, (HIGH - row_lines.sum()) / len(rows))
    column_width = _widths(slots, columns == BIAS)
    column_x = np.cumsum(column_width) - column_width / 2
    row_y = np.cumsum(row_height) - row_height / 2
    right, down = _within(ranks(cell, strength), count[column, row], lines[column, row])
    return Placement(
        x=column_x[column] + right,
        y=row_y[row] - down,
        columns=columns,
        column_x=column_x,
        column_width=column_width,
        rows=rows,
        row_y=row_y,
        width=max(float(column_width.sum()), WIDE),
        height=float(row_height.sum()),
    )


def _rows(nodes: NodeTable, n_layers: int) -> tuple[tuple[str, ...], Int[ndarray, " node"]]:
    """Names of the rows from below, and the row of each node."""
    after = ("final",) if nodes.layer.max(initial=-1) >= n_layers else ()
    names = ("input", *map(str, range(n_layers)), *after, "output")
    row = np.where(nodes.is_kind(*INPUT_KINDS), 0, nodes.layer + 1)
    return names, np.where(nodes.is_kind(*TARGET_KINDS), len(names) - 1, row)


def _slots(busiest: Int[ndarray, " column"]) -> Int[ndarray, " column"]:
    """Nodes side by side in each column: in as few lines per cell as the width allows."""
    most = max(_MOST_SLOTS, _SLOTS_PER_COLUMN * len(busiest))
    lines, slots = 1, busiest
    while slots.sum() > most:
        lines += 1
        slots = -(-busiest // lines)
    return slots


def _widths(
    slots: Int[ndarray, " column"], is_bias: Bool[ndarray, " column"]
) -> Float[ndarray, " column"]:
    """Slots and gaps of each column; what a small graph leaves of the width is shared out."""
    spare = WIDE - slots.sum() - _BIAS_GAP * is_bias.sum()
    return slots + np.where(is_bias, _BIAS_GAP, max(_COLUMN_GAP, spare / max(1, np.sum(~is_bias))))


def _within(
    rank: Int[ndarray, " node"], count: Int[ndarray, " node"], lines: Int[ndarray, " node"]
) -> tuple[Float[ndarray, " node"], Float[ndarray, " node"]]:
    """Offset of each node from the middle of its cell, to the right and down."""
    per_line = -(-count // lines)
    line, slot = rank // per_line, rank % per_line
    on_line = np.minimum(per_line, count - line * per_line)
    used = -(-count // per_line)
    return slot - (on_line - 1) / 2, line - (used - 1) / 2
