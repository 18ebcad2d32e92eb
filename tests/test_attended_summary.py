"""What a summary says of attention: shares of heads, and at what heads look."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

import graphs
import viz
from graphs.core.provenance import Checks
from graphs.reports.attended_summary import carried_by_heads
from tests.attended_graphs import look, with_heads
from tests.test_viewer_numbers import layered
from viz.text.checked import check_lines

LOOKS = (
    look(1, 2, (0.1, 0.9), 1, ("token:2@1", "token:2@1"), carries=0.25),
    look(1, 3, (0.2, 0.1, 0.7), 2, ("feature:0/1@2", "token:3@2"), carries=0.2),
    look(0, 3, (0.6, 0.2, 0.2), 2, ("token:3@2", "token:3@2"), carries=0.125),
)


def shown(graph: graphs.AttributionGraph) -> str:
    console = Console(width=200, record=True)
    console.print(viz.summary_tables(graphs.summarise(graph)))
    return console.export_text().replace("\u2068", "").replace("\u2069", "")


def test_shares_are_of_the_influence_along_edges_by_sizes_of_parts():
    graph = with_heads(layered(3), LOOKS)
    found = carried_by_heads(graph)
    assert found is not None
    assert graph.attended is not None
    edges = graph.attended.edges
    arrived = graphs.influence(graph) + graph.seed
    by_head: dict[tuple[int, int], float] = {}
    past = along = 0.0
    for edge, (target, source) in enumerate(zip(edges.target, edges.source, strict=True)):
        weight = abs(graph.weights[target, source])
        flow = float(arrived[target] * weight / graph.row_totals()[target])
        heads = edges.heads(edge)
        size = sum(abs(part) for *_, part in heads) + abs(edges.bypass[edge] + 0.0)
        size += abs(edges.rest[edge])
        along += flow
        past += flow * abs(edges.bypass[edge]) / size
        for layer, head, part in heads:
            place = layer, head
            by_head[place] = by_head.get(place, 0.0) + flow * abs(part) / size
    assert found.past == pytest.approx(past / along)
    strongest = sorted(by_head, key=lambda place: -by_head[place])[:5]
    assert [one[:2] for one in found.strongest] == strongest
    assert found.strongest[0][2] == pytest.approx(by_head[strongest[0]] / along)
    assert found.edges == graph.weights.nnz


def test_heads_that_look_from_one_token_at_another_are_one_line():
    found = carried_by_heads(with_heads(layered(3), LOOKS))
    assert found is not None
    assert [(one.query, one.key) for one in found.looks] == [(2, 2), (1, 1)]
    assert found.looks[0].heads == ((1, 3, 0.7), (0, 3, 0.2))
    assert found.looks[0].carries == pytest.approx(0.325)
    assert [(one.node, one.text) for one in found.looks[0].reasons] == [("feature:0/1@2", "")]


def test_show_names_the_heads_of_edges_and_at_what_they_look():
    graph = with_heads(layered(3), LOOKS)
    checks = Checks(edge_heads_max=2e-7, scores_max=2e-3, conservation_limit=1e-3)
    header = graph.provenance.model_copy(update={"checks": checks})
    text = shown(replace(graph, provenance=header))
    assert f"heads of {graph.weights.nnz} edges: " in text
    assert re.search(r" edges: \d\.\d carries [\d.]+% of the influence along them, \d\.\d ", text)
    assert (
        "heads 1.3 (0.70), 0.3 (0.20) look from “ cat” @2 at “ cat” @2, for feature:0/1@2" in text
    )
    assert "head 1.2 (0.90) looks from “ the” @1 at “ the” @1, for “ the”" in text
    assert "heads of edges sum to weights within 2.0e-07" in text
    lines = {line.name: line.holds for line in check_lines(checks)}
    assert lines == {"heads of edges miss": True, "attention scores miss": False}


def test_json_has_them_and_a_graph_without_them_has_none():
    found = graphs.summarise(with_heads(layered(3), LOOKS)).as_json()
    data = json.loads(json.dumps(found))["attended"]
    assert data["looks"][0]["heads"] == [[1, 3, 0.7], [0, 3, 0.2]]
    assert len(data["strongest"]) == 5
    assert carried_by_heads(layered(3)) is None
    assert "heads of" not in shown(layered(3))
