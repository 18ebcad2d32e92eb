"""Nodes have places of their own, columns by token and rows by layer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from graphs.core.nodes import NodeTable
from tests.graph_oracles import make_graph, make_table, random_graphs
from viz.plot.layout import BIAS, Placement, layout, place


def assert_apart(placement: Placement) -> None:
    """No two nodes are nearer than one unit both across and up."""
    x, y = placement.x, placement.y
    near = np.maximum(abs(x[:, None] - x), abs(y[:, None] - y)) < 1 - 1e-9
    assert near.sum() == len(x)  # each is near itself


def assert_in_columns(placement: Placement, nodes: NodeTable) -> None:
    column = np.searchsorted(placement.columns, nodes.pos)
    aside = abs(placement.x - placement.column_x[column])
    assert np.all(aside + 0.5 <= placement.column_width[column] / 2)


def crowd(counts: dict[tuple[int, int], int]) -> NodeTable:
    """So many features in each cell (layer, position)."""
    cells = sorted(counts.items())
    return make_table([f"feature:{la}/{i}@{pos}" for (la, pos), n in cells for i in range(n)])


@given(random_graphs())
@settings(max_examples=30, deadline=None)
def test_nodes_of_any_graph_keep_apart_and_in_their_columns(graph):
    placement = layout(graph)
    assert_apart(placement)
    assert_in_columns(placement, graph.nodes)
    assert placement.columns.tolist() == sorted(set(graph.nodes.pos.tolist()))
    assert placement.x.min() > 0
    assert placement.x.max() < placement.width
    assert 0 < placement.y.min() < placement.y.max() < placement.height


@pytest.mark.parametrize(
    "counts",
    [
        {(0, 0): 700},
        {(0, 0): 300, (0, 1): 200, (1, 1): 7},
        {(layer, pos): 1 + pos % 7 for layer in range(5) for pos in range(80)},
    ],
    ids=["one cell", "unequal cells", "long prompt"],
)
def test_crowded_cells_take_several_lines_and_keep_apart(counts):
    nodes = crowd(counts)
    placement = place(nodes, 5, np.linspace(1, 0, len(nodes)))
    assert_apart(placement)
    assert_in_columns(placement, nodes)
    columns = len(placement.columns)
    assert placement.width <= max(100, 3 * columns) + columns  # slots and gaps


def test_a_column_is_as_wide_as_its_busiest_cell():
    nodes = crowd({(0, 0): 2, (1, 0): 5, (0, 1): 9, (1, 1): 1})
    widths = place(nodes, 2, np.ones(len(nodes))).column_width
    assert widths[1] - widths[0] == pytest.approx(9 - 5)


def test_the_strongest_of_a_cell_is_first():
    nodes = crowd({(0, 0): 4, (1, 0): 250})
    strength = np.arange(254) % 7 + 0.0
    placement = place(nodes, 2, strength)
    for cell in (slice(0, 4), slice(4, 254)):
        order = np.lexsort((placement.x[cell], -placement.y[cell].round(6)))
        assert np.all(np.diff(strength[cell][order]) <= 0)


def test_heads_of_a_layer_are_below_its_features_and_beside_nothing_else():
    names = [f"feature:{la}/{i}@0" for la in (0, 1) for i in range(3)]
    heads = [f"head:1/{i}@0" for i in range(5)]
    nodes = make_table(names + heads)
    placement = place(nodes, 2, np.arange(11.0), wide=4.0, high=6.0)
    assert_apart(placement)
    y = dict(zip(map(str, nodes), placement.y, strict=True))
    assert max(y[f"feature:0/{i}@0"] for i in range(3)) < y["head:1/0@0"]
    assert len({y[name] for name in heads}) == 1
    assert y["head:1/0@0"] <= y["feature:1/0@0"] - 1
    alone = place(nodes.take(np.arange(6)), 2, np.arange(6.0), wide=4.0, high=6.0)
    assert np.all(alone.y == np.repeat(alone.row_y[1:3], 3))


def test_rows_are_inputs_then_layers_then_outputs():
    names = ["position:0", "token:5@0", "feature:0/1@0", "bias:1", "error:1@0", "bias:2"]
    placement = place(make_table([*names, "logit:4@0"]), 2, np.ones(7))
    assert placement.rows == ("input", "0", "1", "final", "output")
    row = np.searchsorted(placement.row_y, placement.y)
    assert row.tolist() == [0, 0, 1, 2, 2, 3, 4]
    assert place(make_table(names[:5]), 2, np.ones(5)).rows == ("input", "0", "1", "output")


def test_biases_have_a_narrow_column_at_the_left():
    placement = place(make_table(["token:1@0", "token:1@3", "bias:0"]), 1, np.ones(3))
    assert placement.columns.tolist() == [BIAS, 0, 3]
    assert placement.x[2] == placement.x.min()
    assert placement.column_width[0] < placement.column_width[1] / 5


def test_a_single_node_and_none_at_all_have_a_layout():
    one = place(make_table(["target:0@7"]), 3, np.zeros(1))
    assert (one.x[0], one.y[0]) == (one.width / 2, one.row_y[-1])
    none = place(make_table([]), 3, np.zeros(0))
    assert none.width == one.width
    assert len(none.x) == len(none.columns) == 0


def test_the_layout_of_a_graph_ranks_by_influence():
    names = ["token:1@0", "feature:0/1@0", "feature:0/2@0", "logit:1@0"]
    edges = {("feature:0/1@0", "logit:1@0"): 1.0, ("feature:0/2@0", "logit:1@0"): -2.0}
    placement = layout(make_graph(names, edges))
    assert placement.x[2] < placement.x[1]
