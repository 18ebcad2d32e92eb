"""The figure shows the numbers of the graph, and tokens only as text."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.provenance import Checks
from tests.graph_oracles import make_graph, make_table, random_graphs
from viz.plot.figure import figure
from viz.plot.labels import text_width
from viz.plot.layout import layout
from viz.text.words import percent

TOKEN, UP, DOWN, LOGIT = NAMES = ["token:4@0", "feature:0/1@0", "feature:0/2@1", "logit:1@2"]
EDGES = {(TOKEN, UP): 1.0, (UP, LOGIT): 6.0, (DOWN, LOGIT): -2.0}
HOSTILE = ("</script>", "<b>x</b>", "\n", "", "\udc80", "&amp;", "$x$", "%{x}", "\u202eabc")


def parts(graph: AttributionGraph) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    drawn = figure(graph).to_dict()
    return drawn["layout"], drawn["data"]


def node_traces(graph: AttributionGraph) -> list[dict[str, Any]]:
    return [trace for trace in parts(graph)[1] if trace["mode"] == "markers"]


def edge_traces(graph: AttributionGraph) -> list[dict[str, Any]]:
    return [trace for trace in parts(graph)[1] if trace["mode"] == "lines"]


def array(values: Any) -> np.ndarray:
    """The numbers of an array as it is sent to the browser."""
    if isinstance(values, dict):
        values = np.frombuffer(b64decode(values["bdata"]), dtype=values["dtype"])
    return np.asarray(values, dtype=np.float64)


def hostile_graph() -> AttributionGraph:
    names = [f"token:1@{pos}" for pos in range(len(HOSTILE))]
    names += [f"feature:0/1@{pos}" for pos in range(len(HOSTILE))]
    edges = {(name, "logit:1@3"): 1.0 for name in names}
    words = {len(HOSTILE) + i: (token, token) for i, token in enumerate(HOSTILE)}
    graph = make_graph([*names, "logit:1@3"], edges, tokens=HOSTILE, output_tokens=words)
    target = graph.provenance.targets[0].model_copy(update={"text": "</script><b>"})
    return replace(graph, provenance=graph.provenance.model_copy(update={"targets": (target,)}))


@given(random_graphs())
@settings(max_examples=10, deadline=None)
def test_every_node_is_one_marker_of_its_kind_at_its_place(graph):
    placement, influence = layout(graph), {}
    traces = node_traces(graph)
    assert len({trace["marker"]["symbol"] for trace in traces}) == len(traces)
    for trace in traces:
        rows = array(trace["customdata"]).astype(int)
        assert {NodeKind(kind).word for kind in graph.nodes.kind[rows]} == {trace["name"]}
        np.testing.assert_array_equal(array(trace["x"]), placement.x[rows])
        np.testing.assert_array_equal(array(trace["y"]), placement.y[rows])
        for row, text in zip(rows.tolist(), trace["hovertext"], strict=True):
            assert text.startswith(f"<b>{graph.nodes[row]}</b><br>")
            influence[row] = text
    assert sorted(influence) == list(range(len(graph)))


def test_hover_numbers_are_those_of_the_graph():
    texts = {
        text.partition("</b>")[0][3:]: text
        for trace in node_traces(make_graph(NAMES, EDGES))
        for text in trace["hovertext"]
    }
    assert f"influence {percent(0.75)}" in texts[TOKEN]
    assert f"influence {percent(0.75)}" in texts[UP]
    assert f"influence {percent(0.25)}" in texts[DOWN]
    assert f"to −25.0% {LOGIT}" in texts[DOWN]


def test_edges_run_from_source_to_target_in_the_colour_of_their_sign():
    graph = make_graph(NAMES, EDGES)
    placement = layout(graph)
    ends: dict[str, set[tuple[int, int]]] = {}
    for trace in edge_traces(graph):
        assert trace["hoverinfo"] == "skip"
        x, y = array(trace["x"]), array(trace["y"])
        last = np.flatnonzero(np.isnan(x)) - 1
        first = np.append(0, last[:-1] + 2)
        for a, b in zip(first, last, strict=True):
            near = [np.isclose(placement.x, x[i]) & np.isclose(placement.y, y[i]) for i in (a, b)]
            nodes = [int(np.flatnonzero(mask)[0]) for mask in near]
            ends.setdefault(trace["line"]["color"], set()).add((nodes[0], nodes[1]))
    positive, negative = ends["#0072B2"], ends["#D55E00"]
    assert positive == {(0, 1), (1, 3)}
    assert negative == {(2, 3)}


def test_edges_are_few_traces_and_each_sign_is_named_once():
    names = [f"feature:0/{i}@0" for i in range(60)]
    edges = {(name, LOGIT): (-1.0) ** i * (1 + i) for i, name in enumerate(names)}
    traces = edge_traces(make_graph([*names, LOGIT], edges))
    assert len(traces) == 6
    assert len({trace["opacity"] for trace in traces}) == 3
    shown = [trace["name"] for trace in traces if trace["showlegend"]]
    assert sorted(shown) == ["negative effect", "positive effect"]
    only = edge_traces(make_graph([*names, LOGIT], dict.fromkeys(edges, -1.0)))
    assert {trace["name"] for trace in only} == {"negative effect"}


def test_ticks_are_the_tokens_and_the_layers():
    frame, _ = parts(make_graph(["bias:1", *NAMES, "token:9@1"], EDGES))
    plain = [text.strip("\u2068\u2069") for text in frame["xaxis"]["ticktext"]]
    assert plain == ["bias", "&lt;bos&gt;", "the", "cat"]
    assert list(frame["yaxis"]["ticktext"]) == ["input", "0", "1", "output"]


def test_no_token_becomes_markup():
    frame, data = parts(hostile_graph())
    texts = [*frame["xaxis"]["ticktext"], *(note["text"] for note in frame["annotations"])]
    texts += [text for trace in data for text in trace.get("hovertext", ())]
    texts += [frame["title"]["text"], frame["title"]["subtitle"]["text"]]
    for text in texts:
        for tag in ("<br>", "<b>token:", "<b>feature:", "<b>logit:", "<b>“", "</b>"):
            text = text.replace(tag, "")
        assert not set("<>\n\r\u202e\udc80") & set(text), text
    assert "\u2068&amp;amp;\u2069" in frame["xaxis"]["ticktext"]
    assert {"\u2068⏎\u2069", "\u2068''\u2069", "\u2068\\udc80\u2069"} <= set(texts)


def test_title_and_subtitle_tell_prediction_checks_and_what_is_left_out():
    checks = Checks(conservation_max=2e-3, conservation_limit=1e-3, influence_resolved=0.93)
    graph = make_graph(NAMES, EDGES)
    source = graph.provenance.model_copy(update={"checks": checks})
    frame, _ = parts(replace(graph, provenance=source))
    assert "\u2068t0\u2069 100.0%" in frame["title"]["text"]
    subtitle = frame["title"]["subtitle"]["text"]
    assert "4 nodes · 3 edges" in subtitle
    assert "influence resolved 93.0%" in subtitle
    assert checks.failures[0] in subtitle
    one, _ = parts(make_graph([LOGIT], {}))
    assert (
        "1 node · 0 edges · 2 positions without nodes left out"
        in (one["title"]["subtitle"]["text"])
    )


def test_more_nodes_than_can_be_drawn_are_counted_in_the_subtitle():
    names = [f"feature:0/{i}@{i % 3}" for i in range(3005)]
    graph = make_graph([*names, LOGIT], {(name, LOGIT): 1.0 for name in names})
    frame, data = parts(graph)
    subtitle = frame["title"]["subtitle"]["text"]
    assert "the strongest 3,000 of 3,006 nodes · the strongest 400 of 3,005 edges" in subtitle
    assert sum(len(trace["hovertext"]) for trace in data if trace["mode"] == "markers") == 3000


def test_texts_lie_within_the_axes_since_plotly_drops_others():
    names = [*(f"token:1@{i}" for i in range(30)), "feature:30/1@29"]
    names += [f"logit:{i}@29" for i in range(5)]
    graph = make_graph(names, {(names[30], names[31]): 1.0}, [0.1] * 5, tokens=tuple("x" * 30))
    texts = tuple(t.model_copy(update={"text": "y" * 14}) for t in graph.provenance.targets)
    header = graph.provenance.model_copy(update={"targets": texts})
    frame, _ = parts(replace(graph, provenance=header))
    across, up = pixels_per_unit(frame)
    assert len(frame["annotations"]) == 5
    for note in frame["annotations"]:
        half = text_width(note["text"]) / 2 * 0.71
        assert note["x"] + half / across <= frame["xaxis"]["range"][1]
        assert note["y"] + half / up <= frame["yaxis"]["range"][1]


def pixels_per_unit(frame: dict[str, Any]) -> tuple[float, float]:
    margin = frame["margin"]
    across = frame["width"] - margin["l"] - margin["r"]
    up = frame["height"] - margin["t"] - margin["b"]
    return across / frame["xaxis"]["range"][1], up / frame["yaxis"]["range"][1]


@pytest.mark.parametrize("tokens", [3, 700])
def test_markers_are_smaller_than_the_distance_of_nodes_in_the_figure(tokens: int):
    names = [f"token:1@{i}" for i in range(tokens)]
    names += [f"feature:0/{i}@1" for i in range(200)]
    last = f"logit:1@{tokens - 1}"
    edges = {(name, last): 1.0 for name in names}
    frame, data = parts(make_graph([*names, last], edges, tokens=tuple("x" * tokens)))
    largest = max(array(trace["marker"]["size"]).max() for trace in data if "marker" in trace)
    assert largest < min(pixels_per_unit(frame))


@pytest.mark.parametrize("names", [[LOGIT], [TOKEN, LOGIT], ["bias:0", "target:0@0"], []])
def test_graphs_without_features_can_be_drawn(names: list[str]):
    graph = make_graph(names, {(names[0], names[1]): -1.0} if len(names) > 1 else {})
    assert sum(len(trace["hovertext"]) for trace in node_traces(graph)) == len(names)
    assert len(edge_traces(graph)) == (len(names) > 1)


def test_graphs_without_any_seed_can_be_drawn():
    graph = make_graph(NAMES, EDGES, [0.0])
    assert edge_traces(graph) == []
    assert len(make_table(NAMES)) == sum(len(t["hovertext"]) for t in node_traces(graph))
