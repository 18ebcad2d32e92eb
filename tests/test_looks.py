"""What a graph's file keeps of attention: heads of edges, and looks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from circuits import attend, attention_score, with_head_nodes
from circuits.attention.head_sources import HeadSources, shares_of
from circuits.attention.heads import heads
from circuits.attention.looks import looks, read_by_nodes
from circuits.machine import exactly
from circuits.model.subject import Subject
from graphs import AttributionGraph, prune, read_graph, write_graph
from graphs.analysis.head_shares import head_shares
from graphs.analysis.influence import influence_shares
from graphs.core.attended import KEPT_HEADS
from graphs.disk.files import GraphFileError
from graphs.reports.attended_summary import carried_by_heads
from tests.test_heads import SOURCES, whole_experiment
from viz.text.terminal import attended_lines


@pytest.mark.parametrize("kind", SOURCES)
def test_what_is_read_of_heads_is_influence(subject: Subject, kind: str):
    """With what crosses no attention, shares of heads are all that arrives at nodes with rows."""
    experiment = whole_experiment(subject, kind)
    with exactly():
        sources = HeadSources(experiment)
        read = read_by_nodes(experiment, sources)
    for layer, mixed in enumerate(sources.mixed):
        along = (read.toward[layer, : len(mixed)] * mixed).sum(2)
        torch.testing.assert_close(along, read.share[layer, : len(mixed)], rtol=1e-9, atol=1e-12)
    arrived = influence_shares(experiment.graph)
    known = experiment.graph.expanded
    assert 0 < float(read.share.sum()) < float(arrived[known].sum())


def test_shares_of_a_row_add_up_to_what_arrived(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    sources = HeadSources(experiment)
    rows = sources.rows_in_place(experiment.local.targets.covectors)
    shares = shares_of(rows, np.full(len(rows.weights), 0.25))
    sizes = rows.weights.abs().sum(1) + rows.heads.abs().sum((1, 2))
    torch.testing.assert_close(shares * sizes, torch.full_like(sizes, 0.25))


def test_a_look_is_the_score_of_the_key_that_most_is_carried_from(subject: Subject):
    experiment = whole_experiment(subject, "per layer")
    found = looks(experiment, 5)
    assert found.miss < 1e-9
    assert [look.carries for look in found.looks] == sorted(
        (look.carries for look in found.looks), reverse=True
    )
    for look in found.looks[:2]:
        score = attention_score(experiment, look.layer, look.head, look.query, look.key)
        pattern = experiment.local.recording.blocks[look.layer].pattern[look.head, look.query]
        np.testing.assert_allclose(look.attention, pattern[: look.query + 1], rtol=1e-9)
        assert look.score == score.score.value
        assert look.log_odds == score.log_odds
        names = {str(node): row for row, node in enumerate(score.nodes)}
        side = (score.odds or score.score).at_query
        for part in look.at_query[:-1]:
            assert part.node is not None
            assert part.part == side.weight[names[part.node]]
            assert part.running == side.running[names[part.node]]
        context = look.at_query[-1]
        assert context.node is None
    assert found.looks[0].pairs


def test_all_parts_of_a_side_add_up_if_all_are_kept(gemma: Subject, monkeypatch):
    monkeypatch.setattr("circuits.attention.looks.PARTS", 10_000)
    for look in looks(whole_experiment(gemma, "per layer"), 4).looks:
        whole = look.score if look.difference is None else look.difference
        for side in (look.at_query, look.at_keys):
            assert sum(part.part for part in side) == pytest.approx(whole, rel=1e-9)


def attended(subject: Subject) -> AttributionGraph:
    return attend(whole_experiment(subject, "per layer"), 6)


def test_edges_keep_their_strongest_heads(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    graph, found = attended(gemma), heads(experiment)
    assert graph.attended is not None
    edges = graph.attended.edges
    whole = edges.bypass + edges.rest + edges.part.sum(1)
    np.testing.assert_allclose(whole, found.weight, rtol=1e-4, atol=1e-6)
    places = edges.places(found.target, found.source)
    assert places.tolist() == list(range(len(found.weight)))
    for edge in (0, len(found.weight) // 2, len(found.weight) - 1):
        expected = found.strongest(edge, KEPT_HEADS)
        for (layer, head, part), kept in zip(expected, edges.heads(edge), strict=True):
            assert kept[:2] == (layer, head)
            assert kept[2] == pytest.approx(part, rel=1e-6)
    assert edges.places(np.array([0]), np.array([1])).tolist() == [-1]
    shares = head_shares(graph, edges)
    assert float(shares.heads.sum()) + shares.past + shares.rest == pytest.approx(1.0)
    checks = graph.provenance.checks
    assert checks.edge_heads_max is not None
    assert checks.scores_max is not None
    assert max(checks.edge_heads_max, checks.scores_max) < 1e-9


def test_a_pruned_graph_keeps_what_is_known_of_its_edges(gemma: Subject):
    graph = attended(gemma)
    small = prune(graph)
    assert graph.attended is not None
    assert small.attended is not None
    edges = small.attended.edges
    assert len(edges.target) == small.weights.nnz < graph.weights.nnz
    np.testing.assert_allclose(
        edges.bypass + edges.rest + edges.part.sum(1), small.weights.data, rtol=1e-4, atol=1e-6
    )
    assert small.attended.looks == graph.attended.looks


def test_files_keep_heads_of_edges_and_looks(gemma: Subject, tmp_path: Path):
    graph, path = attended(gemma), tmp_path / "graph.safetensors"
    write_graph(graph, path)
    again = read_graph(path)
    assert graph.attended is not None
    assert again.attended is not None
    assert again.attended.looks == graph.attended.looks
    for name, column in vars(graph.attended.edges).items():
        np.testing.assert_array_equal(getattr(again.attended.edges, name), column)
    arrays = load_file(path)
    size = sum(array.nbytes for name, array in arrays.items() if name.startswith("attended."))
    assert size <= 56 * graph.weights.nnz
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    endless = np.full_like(arrays["attended.part"], np.nan)
    layer = arrays["attended.layer"].copy()
    layer[0, 0] = -1
    for damage, sentence in (
        ({"attended.rest": None}, "lacks the arrays attended.rest"),
        ({"attended.part": arrays["attended.part"][:, 1:]}, "as many heads each"),
        ({"attended.target": arrays["attended.target"][::-1].copy()}, "must ascend"),
        ({"attended.source": arrays["attended.source"] + 10**6}, "outside the graph"),
        ({"attended.part": endless}, "is not finite"),
        ({"attended.layer": layer}, "has no layer, or a layer no head"),
    ):
        changed = {name: one for name, one in (arrays | damage).items() if one is not None}
        save_file(changed, path, metadata)
        with pytest.raises(GraphFileError, match=sentence):
            read_graph(path)
    header = json.loads(metadata["headwater"])
    header["looks"][0]["query"] += 1
    save_file(arrays, path, metadata | {"headwater": json.dumps(header)})
    with pytest.raises(GraphFileError, match="A look from"):
        read_graph(path)
    header["looks"] = None
    save_file(arrays, path, metadata | {"headwater": json.dumps(header)})
    with pytest.raises(GraphFileError, match="has heads of edges without looks"):
        read_graph(path)


def test_graphs_with_head_nodes_keep_looks_alone(gemma: Subject, tmp_path: Path):
    experiment, path = whole_experiment(gemma, "per layer"), tmp_path / "graph.safetensors"
    graph = with_head_nodes(experiment, n_looks=3)
    write_graph(graph, path)
    for one in (graph, read_graph(path), prune(graph)):
        assert one.attended is not None
        assert one.attended.edges is None
        assert one.attended.looks == looks(experiment, 3).looks
    assert graph.provenance.checks.scores_max is not None
    assert graph.provenance.checks.edge_heads_max is None
    shown = carried_by_heads(graph)
    assert shown is not None
    assert (shown.past, shown.strongest) == (None, ())
    lines = attended_lines(shown, graph.provenance.tokens)
    assert lines
    assert all(" look" in line for line in lines)
