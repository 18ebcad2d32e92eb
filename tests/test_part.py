"""What a page holds of a graph, where it puts it, and what two pages share."""

from __future__ import annotations

import numpy as np
import pytest

import viz.part
from graphs.annotations import NO_ANNOTATIONS
from graphs.graph import AttributionGraph
from graphs.influence import influence
from graphs.leading import leading
from graphs.neuronpedia_pages import feature_page
from graphs.nodes import INPUT_KINDS, TARGET_KINDS
from graphs.positions import align_prompts
from graphs.provenance import DictionaryIdentity
from graphs.prune import PruneSettings, prune
from tests.graph_oracles import make_graph
from tests.test_layout import assert_apart
from tests.test_viewer_numbers import GRAPHS, layered
from viz.pair import pair_data
from viz.part import ALLOWED_NODES, Part, part
from viz.payload import placed, placed_together


def names_of(held: Part) -> list[str]:
    return [str(held.graph.nodes[row]) for row in held.rows.tolist()]


def test_a_small_graph_is_held_whole():
    held = part(GRAPHS[0])
    assert held.rows.tolist() == list(range(len(GRAPHS[0])))
    carried = held.strengths.carried
    assert sorted(held.edges.tolist()) == np.flatnonzero(carried > 0).tolist()
    assert np.all(np.diff(carried[held.edges]) <= 0)


def test_of_a_large_one_the_strongest_with_all_inputs_and_targets():
    graph = GRAPHS[1]
    held = part(graph, 9)
    always = set(np.flatnonzero(graph.nodes.is_kind(*INPUT_KINDS, *TARGET_KINDS)).tolist())
    others = set(held.rows.tolist()) - always
    assert always <= set(held.rows.tolist())
    assert len(held.rows) == 9
    arrived = held.strengths.arrived
    left = set(range(len(graph))) - set(held.rows.tolist())
    assert min(arrived[list(others)]) >= max(arrived[list(left)])
    assert (held.n_nodes, held.n_edges) == (len(graph), graph.weights.nnz)
    assert len(part(graph, 1).rows) == len(always)
    for count in (0, ALLOWED_NODES + 1):
        with pytest.raises(ValueError, match=f"from 1 to {ALLOWED_NODES} nodes, got {count}"):
            part(graph, count)


@pytest.mark.parametrize("graph", GRAPHS[:4])
@pytest.mark.parametrize("threshold", [0.3, 0.55, 0.8, 0.97])
def test_what_stands_before_a_node_says_when_pruning_drops_it(
    graph: AttributionGraph, threshold: float
):
    scores = influence(graph)
    expected = leading(lambda: [scores], threshold)
    assert (part(graph).node_before < threshold).tolist() == expected.tolist()
    always = graph.nodes.is_kind(*INPUT_KINDS, *TARGET_KINDS)
    kept = prune(graph, PruneSettings(threshold, 1.0)).nodes
    left = {str(node) for node, stays in zip(graph.nodes, expected | always, strict=True) if stays}
    assert {str(node) for node in kept} <= left  # pruning also takes what has lost its edges


def test_of_very_many_edges_the_weak_are_pruned_before_they_are_ranked(monkeypatch):
    graph = GRAPHS[2]
    monkeypatch.setattr(viz.part, "_MOST_RANKED", 10)
    held = part(graph)
    assert held.n_edges == graph.weights.nnz > held.graph.weights.nnz
    assert set(names_of(held)) <= {str(node) for node in graph.nodes}


@pytest.mark.parametrize("graph", GRAPHS[:3])
def test_nodes_of_every_level_keep_apart_and_levels_grow(graph: AttributionGraph):
    levels = placed(part(graph))
    before: set[int] = set()
    for rows, placement in levels:
        assert_apart(placement)
        assert before < set(rows.tolist())
        before = set(rows.tolist())
    assert before == set(range(len(graph)))


def test_two_graphs_share_the_columns_of_tokens_that_stand_for_each_other():
    tokens = ("<bos>", " the", " old", " cat")
    first = make_graph(["token:1@0", "token:2@2", "logit:1@2"], {("token:2@2", "logit:1@2"): 1.0})
    second = make_graph(
        ["token:1@0", "token:2@3", "logit:1@3"], {("token:2@3", "logit:1@3"): 1.0}, tokens=tokens
    )
    positions = align_prompts(first.provenance, second.provenance)
    assert positions.tolist() == [0, 1, 3]
    data = pair_data(part(first), part(second), NO_ANNOTATIONS, NO_ANNOTATIONS)
    assert [graph["columnOf"] for graph in data["graphs"]] == [[0, 1, 3], [0, 1, 2, 3]]
    levels = placed_together(
        (part(first), np.array([0, 3, 3])), (part(second), np.array([0, 3, 3]))
    )
    for _, (one, other) in levels:
        assert one.x.tolist() == other.x.tolist()
        assert one.columns.tolist() == other.columns.tolist() == [0, 3]


def test_graphs_without_nodes_have_a_part():
    held = part(make_graph([], {}, probabilities=[]))
    assert (len(held.rows), len(held.edges)) == (0, 0)


@pytest.mark.parametrize(
    ("name", "model", "page"),
    [
        (
            "google/gemma-scope-2-270m-pt/transcoder_all/width_16k_l0_small_affine",
            "google/gemma-3-270m",
            "gemma-3-270m/{layer}-gemmascope-2-transcoder-16k/{index}",
        ),
        (
            "mwhanna/gemma-scope-2-27b-it/transcoder_all/width_262k_l0_small_affine",
            "google/gemma-3-27b-it",
            "gemma-3-27b-it/{layer}-gemmascope-2-transcoder-262k/{index}",
        ),
        (
            "mwhanna/gemma-scope-transcoders",
            "x",
            "gemma-2-2b/{layer}-gemmascope-transcoder-16k/{index}",
        ),
        ("mwhanna/qwen3-8b-transcoders", "x", "qwen3-8b/{layer}-transcoder-hp/{index}"),
        ("transcoder-hp", "qwen3-4b", "qwen3-4b/{layer}-transcoder-hp/{index}"),
        ("google/gemma-scope-2-270m-pt/transcoder_all/width_16k_l0_big", "x", None),
        ("transcoder-hp", "somebody/else", None),
        ("neurons", "gemma-3-270m", None),
    ],
)
def test_features_of_known_dictionaries_have_a_page(name: str, model: str, page: str | None):
    header = layered(0).provenance
    header = header.model_copy(
        update={
            "dictionary": DictionaryIdentity(kind="transcoder", name=name),
            "model": header.model.model_copy(update={"name": model}),
        }
    )
    assert feature_page(header) == (page and f"https://www.neuronpedia.org/{page}")
