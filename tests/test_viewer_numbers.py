"""What the page computes is what Python computes, on the same graphs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

import graphs
import viz.page.part
import viz.page.whole
from graphs.analysis.flow import Ends
from graphs.core.annotations import Annotations, Group
from graphs.core.graph import AttributionGraph
from tests.browser import needs_chromium, viewed
from tests.graph_oracles import make_graph
from viz.html.columns import as_bytes
from viz.html.packed import digits
from viz.page.page import write_page
from viz.page.part import part
from viz.page.payload import graph_data, placed
from viz.text.words import number, percent

pytestmark = needs_chromium

FLOAT32 = {"rel": 2e-6, "abs": 1e-9}  # the page holds shares in float32
SEEDS = range(8)


def layered(seed: int) -> AttributionGraph:
    """Some layers of features, errors and biases, some rows incomplete or not computed at all."""
    rng = random.Random(seed)
    names = ["token:1@0", "token:2@1", "token:3@2"]
    for layer in range(3):
        names.append(f"bias:{layer}")
        names += [f"feature:{layer}/{10 * layer + i}@{rng.randrange(3)}" for i in range(4)]
        names += [f"error:{layer}@{pos}" for pos in range(3)]
    inner = [*names]
    names += ["logit:7@2", "logit:8@2"]
    unexpanded = tuple(
        name for name in inner if name.startswith("feature:1") and rng.random() < 0.3
    )
    depth = {name: -1 if "token" in name else int(name.split(":")[1][0]) for name in inner}
    edges = {
        (source, target): rng.uniform(-1, 1)
        for target in names
        for source in inner
        if target.startswith(("feature", "logit"))
        and target not in unexpanded
        and depth[source] < depth.get(target, 9)
        and rng.random() < 0.7
    }
    dropped = {name: (0.0, rng.random()) for name in names if any(t == name for _, t in edges)}
    return make_graph(names, edges, [0.6, 0.3], unexpanded=unexpanded, dropped=dropped)


GRAPHS = [layered(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path: Path = tmp_path_factory.mktemp("viewer") / "page.html"
    write_page(GRAPHS[0], path)
    with viewed(browser, path) as found:
        yield found.page


def payload(graph: AttributionGraph) -> dict[str, Any]:
    held = part(graph)
    return graph_data(held, placed(held))


def sent(data: object) -> str:
    """Data for the page's `bytesOf` and `readData`."""
    return digits(as_bytes(data))


def as_scores(found: dict[str, float]) -> graphs.Scores:
    return graphs.Scores(float(found["replacement"]), float(found["completeness"]))


def assert_close(found: graphs.Scores, expected: graphs.Scores) -> None:
    assert found.replacement == pytest.approx(expected.replacement, **FLOAT32)
    assert found.completeness == pytest.approx(expected.completeness, **FLOAT32)


@pytest.mark.parametrize("graph", GRAPHS)
def test_pruning_keeps_what_python_keeps_and_scores_it_alike(page: Page, graph: AttributionGraph):
    for nodes, edges, keep in (
        (0.8, 0.98, False),
        (0.43, 0.71, False),
        (0.9, 0.5, True),
        (1.0, 1.0, True),
    ):
        found = page.evaluate(
            """([data, nodes, edges, keepErrors]) => {
                const graph = readGraph(readData(bytesOf(data)));
                const kept = pruned(graph, {nodes, edges, keepErrors});
                const name = (n) => graph.names[n];
                const names = graph.names.filter((_, n) => kept.node[n]);
                const links = [...graph.share.keys()].filter((e) => kept.edge[e]);
                return {
                    names, scores: scoresOfPruned(graph, kept), counts: [kept.nNodes, kept.nEdges],
                    links: links.map((e) => [graph.source[e], graph.target[e]].map(name)),
                };
            }""",
            [sent(payload(graph)), nodes, edges, keep],
        )
        pruned = graphs.prune(graph, graphs.PruneSettings(nodes, edges, keep))
        assert found["names"] == [str(node) for node in pruned.nodes]
        coo = pruned.weights.tocoo()
        links = {
            (str(pruned.nodes[int(source)]), str(pruned.nodes[int(target)]))
            for target, source in zip(coo.row, coo.col, strict=True)
        }
        assert set(map(tuple, found["links"])) == links
        assert found["counts"] == [len(pruned), len(links)]
        assert_close(as_scores(found["scores"]), graphs.scores(pruned))


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_part_of_a_graph_is_pruned_like_the_whole_as_far_as_it_says_so(
    page: Page, graph: AttributionGraph, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(viz.page.part, "MOST_EDGES", 25)
    held = part(graph, 18)
    data = graph_data(held, placed(held))
    nodes, edges = data["exact"]["nodes"], data["exact"]["edges"]
    assert 0 < nodes < 1
    assert 0 < edges < 0.999
    for share in (0.5, 1.0):
        found = page.evaluate(
            """([data, nodes, edges]) => {
                const graph = readGraph(readData(bytesOf(data)));
                const thresholds = {nodes, edges, keepErrors: false};
                const kept = pruned(graph, thresholds);
                return [scoresOfPruned(graph, kept), kept.nNodes, kept.nEdges,
                        isExact(graph, thresholds),
                        isExact(graph, {...thresholds, edges: edges + 1e-6})];
            }""",
            [sent(data), share * nodes, share * edges],
        )
        whole = graphs.prune(graph, graphs.PruneSettings(share * nodes, share * edges))
        assert_close(as_scores(found[0]), graphs.scores(whole))
        assert found[1:3] == [len(whole), whole.weights.nnz]
        assert found[3:] == [True, share < 1]


@pytest.mark.parametrize("graph", GRAPHS)
def test_scores_of_chosen_nodes_are_those_of_python(page: Page, graph: AttributionGraph):
    kept = np.random.default_rng(len(graph)).random(len(graph)) < 0.5
    for convention in ("absorbed", "renormalised"):
        found = page.evaluate(
            "([data, kept, convention]) => "
            "scoresOfNodes(readGraph(readData(bytesOf(data))), Uint8Array.from(kept), convention)",
            [sent(payload(graph)), kept.astype(int).tolist(), convention],
        )
        assert_close(as_scores(found), graphs.scores(graph, kept, convention))


@pytest.mark.parametrize("graph", GRAPHS)
def test_paths_between_two_nodes_are_those_of_python(page: Page, graph: AttributionGraph):
    targets = graph.target_rows().tolist()
    features = [row for row, node in enumerate(graph.nodes) if node.kind == graphs.NodeKind.FEATURE]
    for source, target in ((0, targets[0]), (2, targets[1]), (features[1], targets[0])):
        found = page.evaluate(
            """([data, source, target]) => {
                const graph = readGraph(readData(bytesOf(data)));
                const paths = strongestPaths(graph, source, target, 12);
                return paths.map((p) => [rowsOn(graph, p), p.share, signOf(graph, p)]);
            }""",
            [sent(payload(graph)), source, target],
        )
        masks = np.zeros((2, len(graph)), dtype=bool)
        masks[0, source] = masks[1, target] = True
        expected = graphs.strongest_paths(graph, Ends(masks[0], masks[1]), 12).listed
        assert [rows for rows, _, _ in found] == [list(path.nodes) for path in expected]
        assert [share for _, share, _ in found] == pytest.approx(
            [p.share for p in expected], **FLOAT32
        )
        assert [sign for _, _, sign in found] == [path.sign for path in expected]


def test_a_path_that_is_none_is_not_found(page: Page):
    graph = make_graph(["token:1@0", "token:2@1", "logit:1@2"], {("token:1@0", "logit:1@2"): 1.0})
    asked = "([data, s, t]) => strongestPaths(readGraph(readData(bytesOf(data))), s, t, 5).length"
    assert page.evaluate(asked, [sent(payload(graph)), 1, 2]) == 0
    assert page.evaluate(asked, [sent(payload(graph)), 0, 2]) == 1
    assert page.evaluate(asked, [sent(payload(graph)), 2, 0]) == 0


@pytest.mark.parametrize("graph", GRAPHS)
def test_flows_between_groups_are_those_of_a_collapsed_graph(page: Page, graph: AttributionGraph):
    names = [str(node) for node in graph.nodes]
    early = [name for name in names if name.startswith(("feature:0", "token"))][:5]
    late = [name for name in names if name.startswith("feature:2")][:3]
    notes = Annotations(
        pins=tuple(name for name in names if name not in early + late),
        groups=(Group(name="early", members=tuple(early)), Group(name="late", members=tuple(late))),
    )
    found = page.evaluate(
        """([data, notes]) => {
            const graph = readGraph(readData(bytesOf(data)));
            const parts = partsOf(graph, notesFrom(notes), []);
            const name = (part) => parts[part].name;
            const flows = flowsBetween(graph, parts);
            return {
                flows: flows.map((f) => [name(f.source), name(f.target), f.flow, f.net]),
                arrived: Object.fromEntries(arrivedAt(graph, parts).map((a, i) => [name(i), a])),
            };
        }""",
        [sent(payload(graph)), notes.model_dump(mode="json")],
    )
    collapsed = graphs.collapse(graph, notes.rows(graph))
    flow, net = collapsed.flow.tocoo(), collapsed.net.toarray()
    expected = {
        (collapsed.names[source], collapsed.names[target]): (size, net[target, source])
        for target, source, size in zip(flow.row, flow.col, flow.data, strict=True)
        if size > 0
    }
    assert {(source, target) for source, target, _, _ in found["flows"]} == set(expected)
    for source, target, size, signed in found["flows"]:
        assert (size, signed) == pytest.approx(expected[source, target], **FLOAT32)
    sizes = [size for _, _, size, _ in found["flows"]]
    assert sizes == sorted(sizes, reverse=True)
    for name, share in zip(collapsed.names, collapsed.arrived, strict=True):
        assert found["arrived"][name] == pytest.approx(share, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("graph", GRAPHS[:3])
def test_weights_and_differences_of_rows_are_those_of_the_graph(
    page: Page, graph: AttributionGraph
):
    one, other = graph.target_rows().tolist()
    found = page.evaluate(
        """([data, one, other]) => {
            const graph = readGraph(readData(bytesOf(data)));
            const told = (links) => links.map(({row, weight, share}) => [row, weight, share]);
            return [told(linksInto(graph, one)), told(differenceOf(graph, one, other))];
        }""",
        [sent(payload(graph)), one, other],
    )
    weights = graph.weights.toarray()
    into, difference = found
    assert {row for row, _, _ in into} == set(np.flatnonzero(weights[one]).tolist())
    for row, weight, _ in into:
        assert weight == pytest.approx(weights[one, row], **FLOAT32)
    expected = weights[one] - weights[other]
    total = abs(expected).sum()
    assert [row for row, _, _ in difference] == sorted(
        np.flatnonzero(weights[one] + weights[other]).tolist(), key=lambda row: -abs(expected[row])
    )
    for row, weight, share in difference:
        assert weight == pytest.approx(expected[row], rel=1e-5, abs=1e-7)
        assert share == pytest.approx(expected[row] / total, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("graph", GRAPHS[:4])
@pytest.mark.parametrize("ranked", [20_000_000, 10])
def test_in_a_part_of_a_graph_differences_are_those_of_the_whole(
    page: Page, graph: AttributionGraph, ranked: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(viz.page.part, "MOST_EDGES", 8)
    monkeypatch.setattr(viz.page.part, "_MOST_RANKED", ranked)
    held = part(graph, 14)
    data = graph_data(held, placed(held))
    assert data["partial"]
    targets = graph.target_rows().tolist()
    names = [str(graph.nodes[row]) for row in targets]
    found = page.evaluate(
        """([data, [one, other]]) => {
            const graph = readGraph(readData(bytesOf(data)));
            const rows = [graph.place.get(one), graph.place.get(other)];
            const links = differenceOf(graph, rows[0], rows[1]);
            return links.map(({row, weight, share}) => [graph.names[row], weight, share]);
        }""",
        [sent(data), names],
    )
    weights = graph.weights.toarray()
    expected = weights[targets[0]] - weights[targets[1]]
    here = {str(held.graph.nodes[row]) for row in held.rows.tolist()}
    fed = {str(graph.nodes[row]) for row in np.flatnonzero(weights[targets].any(axis=0)).tolist()}
    assert {name for name, _, _ in found} == fed & here
    assert len(fed & here) > 8
    for name, weight, share in found:
        size = expected[graph.find(name)]
        assert weight == pytest.approx(size, rel=1e-5, abs=1e-7)
        assert share == pytest.approx(size / abs(expected).sum(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("graph", GRAPHS[:3])
@pytest.mark.parametrize("keep", [False, True])
def test_a_part_of_a_graph_knows_what_pruning_leaves_of_the_whole(
    page: Page, graph: AttributionGraph, keep: bool
):
    held = part(graph, 14)
    for nodes, edges, at in (
        (0.8, 0.98, (0.8, 0.98)),
        (0.56, 0.83, (0.55, 0.85)),
        (1.0, 0.0, (1.0, 0.5)),
        (0.999, 0.997, (1.0, 1.0)),
    ):
        found = page.evaluate(
            "([data, view]) => wholeAt(readGraph(readData(bytesOf(data))), view)",
            [
                sent(graph_data(held, placed(held))),
                {"nodes": nodes, "edges": edges, "keepErrors": keep},
            ],
        )
        pruned = graphs.prune(graph, graphs.PruneSettings(*at, keep))
        assert (found["nodes"], found["edges"]) == at
        assert (found["nNodes"], found["nEdges"]) == (len(pruned), pruned.weights.nnz)
        assert_close(as_scores(found["scores"]), graphs.scores(pruned))


def test_only_a_part_of_a_graph_that_is_not_too_large_knows_the_whole(
    monkeypatch: pytest.MonkeyPatch,
):
    assert payload(GRAPHS[0])["whole"] is None
    held = part(GRAPHS[0], 14)
    assert graph_data(held, placed(held))["whole"] is not None
    monkeypatch.setattr(viz.page.whole, "_MOST_EDGES", 10)
    assert graph_data(held, placed(held))["whole"] is None
    monkeypatch.undo()
    monkeypatch.setattr(viz.page.part, "_MOST_RANKED", 10)
    held = part(GRAPHS[2], 14)
    assert graph_data(held, placed(held))["whole"] is None


def test_numbers_are_written_as_python_writes_them(page: Page):
    shares = [0.0, 1e-9, 0.00049, 0.0005, 0.00051, 0.1234, 0.99951, 1.0]
    assert page.evaluate("list => list.map(percent)", shares) == [
        percent(share) for share in shares
    ]
    values = [0, 1, -1, 0.123456, -12.3456, 123.456, 1234.5, 0.00123, 5.5, -0.5]
    found = page.evaluate("list => list.map(threeDigits)", values)
    assert found[:6] == [number(float(value)) for value in values][:6]
    assert found[6:] == ["1230", "0.00123", "5.5", "−0.5"]
