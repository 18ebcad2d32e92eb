"""Layout: deterministic placement of the nodes of a graph.

A column per token position, a row per layer; a cell is their intersection.  The unit of length is
the distance of neighbouring nodes in a cell, so markers at most one unit wide do not overlap.
Within a cell the strongest node is first: left, and in the top line if the nodes of a cell need
several lines.

    input     token and position nodes, the lowest row
    0, 1, …   features, errors and biases by layer, its heads in lines below them, and `final` for
              biases after the last layer
    output    logit and target nodes, the highest row

Biases have no position and are in the leftmost column.  Positions without nodes have no column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.analysis.influence import influence, ranks
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeKind, NodeTable

BIAS = -1  # the column of nodes without a position
WIDE, HIGH = (
    76.0,
    38.0,
)  # units that a small graph is spread over: 1400 by 700 pixels at 18 per unit
_MOST_SLOTS = 100  # cells are split into lines if all columns together would be wider than this,
_SLOTS_PER_COLUMN = 3  # and for long prompts if they would be wider than this on average
_COLUMN_GAP, _ROW_GAP = 1.0, 0.6  # least units between two columns or rows
_BIAS_GAP = 2.0  # around the bias column, which stays narrow


@dataclass(frozen=True, repr=False)
class Placement(Brief):
    """Places of nodes, in units; x runs to the right and y upwards from 0."""

    x: Float[ndarray, " node"]
    y: Float[ndarray, " node"]
    columns: Int[ndarray, " column"]  # token position, or BIAS
    column_x: Float[ndarray, " column"]  # middle of each column
    column_width: Float[ndarray, " column"]
    rows: tuple[str, ...]  # input, 0, 1, …, output
    row_y: Float[ndarray, " row"]  # middle of each row
    row_height: Float[ndarray, " row"]
    width: float
    height: float


@dataclass(frozen=True)
class LayoutNodes:
    """Nodes to be placed, the strongest of a cell first."""

    nodes: NodeTable
    n_layers: int
    strength: Float[ndarray, " node"]
    column: Int[ndarray, " node"]  # column of each, ascending to the right; BIAS: the bias column


def layout(graph: AttributionGraph) -> Placement:
    """Places of the nodes of a graph, most influential first in each cell."""
    return place(graph.nodes, graph.provenance.model.n_layers, influence(graph) + graph.seed)


def place(
    nodes: NodeTable,
    n_layers: int,
    strength: Float[ndarray, " node"],
    wide: float = WIDE,
    high: float = HIGH,
) -> Placement:
    """Places of nodes, the strongest first in each cell; small graphs are spread."""
    placed = LayoutNodes(nodes, n_layers, strength, nodes.pos)
    return place_together(placed, wide=wide, high=high)[0]


def place_together(
    *graphs: LayoutNodes, wide: float = WIDE, high: float = HIGH
) -> tuple[Placement, ...]:
    """Places of nodes of several graphs with common columns.

    Small graphs are spread over `wide` by `high` units.
    """
    columns = np.unique(np.concatenate([one.column for one in graphs]))
    grids = [_Grid.of(one, columns) for one in graphs]
    busiest = np.stack([grid.count.max(axis=(0, 2), initial=0) for grid in grids]).max(axis=0)
    slots = _slots(busiest)
    widths = _widths(slots, columns == BIAS, wide)
    return tuple(grid.placed(columns, slots, widths, wide, high) for grid in grids)


@dataclass(frozen=True)
class _Grid:
    """Cell of each node, and number of nodes of each cell: heads apart, below the others."""

    rows: tuple[str, ...]
    row: Int[ndarray, " node"]
    column: Int[ndarray, " node"]
    is_head: Int[ndarray, " node"]  # 1: a head, 0: another node
    count: Int[ndarray, "two column row"]  # of other nodes, and of heads
    rank: Int[ndarray, " node"]  # within its part of the cell

    @classmethod
    def of(cls, placed: LayoutNodes, columns: Int[ndarray, " column"]) -> _Grid:
        rows, row = _rows(placed.nodes, placed.n_layers)
        column = np.searchsorted(columns, placed.column)
        is_head = placed.nodes.is_kind(NodeKind.HEAD).astype(np.int64)
        cell = (is_head * len(columns) + column) * len(rows) + row
        shape = 2, len(columns), len(rows)
        count = np.bincount(cell, minlength=2 * len(columns) * len(rows)).reshape(shape)
        return cls(rows, row, column, is_head, count, ranks(cell, placed.strength))

    def placed(
        self,
        columns: Int[ndarray, " column"],
        slots: Int[ndarray, " column"],
        column_width: Float[ndarray, " column"],
        wide: float,
        high: float,
    ) -> Placement:
        lines = np.maximum(-(-self.count // np.maximum(slots, 1)[:, None]), 1)
        row_lines = lines[0].max(axis=0, initial=1)
        head_lines = np.where(self.count[1].any(axis=0), lines[1].max(axis=0, initial=1), 0)
        all_lines = row_lines + head_lines
        row_height = all_lines + max(_ROW_GAP, (high - all_lines.sum()) / len(self.rows))
        column_x = np.cumsum(column_width) - column_width / 2
        row_y = np.cumsum(row_height) - row_height / 2
        # A row's height is shared by its lines: heads have the lower part.
        middles = row_y + row_height / 2 * np.stack([head_lines, -row_lines]) / all_lines
        place = self.is_head, self.column, self.row
        right, down = _within(self.rank, self.count[place], lines[place])
        return Placement(
            x=column_x[self.column] + right,
            y=middles[self.is_head, self.row] - down,
            columns=columns,
            column_x=column_x,
            column_width=column_width,
            rows=self.rows,
            row_y=row_y,
            row_height=row_height,
            width=max(float(column_width.sum()), wide),
            height=float(row_height.sum()),
        )


def _rows(nodes: NodeTable, n_layers: int) -> tuple[tuple[str, ...], Int[ndarray, " node"]]:
    """Names of the rows, bottom to top, and the row of each node."""
    after = ("final",) if nodes.layer.max(initial=-1) >= n_layers else ()
    names = ("input", *map(str, range(n_layers)), *after, "output")
    row = np.where(nodes.is_kind(*INPUT_KINDS), 0, nodes.layer + 1)
    return names, np.where(nodes.is_kind(*TARGET_KINDS), len(names) - 1, row)


def _slots(busiest: Int[ndarray, " column"]) -> Int[ndarray, " column"]:
    """Nodes per line in each column, with as few lines per cell as the width allows."""
    most = max(_MOST_SLOTS, _SLOTS_PER_COLUMN * len(busiest))
    lines, slots = 1, busiest
    while slots.sum() > most:
        lines += 1
        slots = -(-busiest // lines)
    return slots


def _widths(
    slots: Int[ndarray, " column"], is_bias: Bool[ndarray, " column"], wide: float
) -> Float[ndarray, " column"]:
    """Width of each column: slots and gap; spare width of a small graph is distributed."""
    spare = wide - slots.sum() - _BIAS_GAP * is_bias.sum()
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
