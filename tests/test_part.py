"""What a page holds of a graph, where it puts it, and what two pages share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

import viz.page.differences
import viz.page.part
from graphs.analysis.influence import influence
from graphs.analysis.leading import leading
from graphs.analysis.prune import PruneSettings, prune
from graphs.comparison.positions import align_prompts
from graphs.core.annotations import NO_ANNOTATIONS
from graphs.core.graph import AttributionGraph, row_sizes
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, Description, Example
from graphs.core.provenance import DictionaryIdentity
from graphs.formats.neuronpedia.pages import feature_page
from tests.graph_oracles import make_graph, make_header, make_table
from tests.test_layout import assert_apart
from tests.test_viewer_numbers import GRAPHS, layered
from viz.html.columns import as_bytes
from viz.page.overview import part_overview
from viz.page.pair import pair_data
from viz.page.part import ALLOWED_NODES, Part, part
from viz.page.payload import graph_data, placed, placed_together


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
    monkeypatch.setattr(viz.page.part, "_MOST_RANKED", 10)
    held = part(graph)
    assert held.n_edges == graph.weights.nnz > held.graph.weights.nnz
    assert set(names_of(held)) <= {str(node) for node in graph.nodes}


def test_very_large_graphs_lose_no_input_of_a_target_and_rows_keep_their_sums(monkeypatch):
    graph = GRAPHS[2]
    monkeypatch.setattr(viz.page.part, "_MOST_RANKED", 10)
    pruned = part(graph).graph
    rows = [graph.find(node) for node in pruned.nodes]
    for target in pruned.target_rows().tolist():
        own = graph.weights.toarray()[rows[target], rows]
        assert pruned.weights.toarray()[target].tolist() == own.tolist()
    sums = row_sizes(graph.weights) + graph.dropped_absolute
    assert row_sizes(pruned.weights) + pruned.dropped_absolute == pytest.approx(sums[rows])


def test_where_not_all_rows_of_targets_fit_the_most_probable_are_whole(monkeypatch):
    graph = replace(GRAPHS[0], seed=GRAPHS[0].seed[[*range(27), 28, 27]])  # the second is likelier
    likeliest = int(graph.seed.argmax())
    count = int(np.count_nonzero(graph.weights.toarray()[likeliest]))
    monkeypatch.setattr(viz.page.differences, "MOST_INTO_TARGETS", count)
    monkeypatch.setattr(viz.page.part, "MOST_EDGES", 10)
    held = part(graph)
    assert held.rows[held.whole].tolist() == [likeliest]
    assert np.count_nonzero(held.rows[held.target] == likeliest) == count
    (remark,) = [
        line for line in graph_data(held, placed(held))["remarks"] if "differences" in line
    ]
    assert "The 1 most probable of 2 predictions have all inputs" in remark


def test_a_target_of_no_probability_keeps_its_inputs_and_pruning_ignores_them():
    graph = replace(GRAPHS[0], seed=np.where(np.arange(len(GRAPHS[0])) == 27, 0.6, 0.0))
    held = part(graph)
    inputs = np.flatnonzero(graph.weights.toarray()[28])
    assert sorted(held.source[held.target == 28].tolist()) == inputs.tolist()
    assert np.all(held.edge_before[held.target == 28] > 1)


def test_data_of_five_thousand_nodes_stays_below_three_megabytes():
    rng = np.random.default_rng(0)
    features = [f"feature:{i // 500}/{i}@1" for i in range(4999)]
    names = ["token:1@0", *features, *(f"logit:{i}@1" for i in range(11))]
    weights = np.tril(rng.standard_normal((5011, 5011)), -1)
    weights[:5000] *= rng.random((5000, 5011)) < 0.02
    weights[:, 5000:] = 0.0
    empty = np.zeros(5011)
    said = Description(label="words", examples=(Example(tokens=(" a",), activations=(1.0,)),) * 9)
    graph = AttributionGraph(
        nodes=make_table(names),
        weights=csr_array(weights.astype(np.float32)),
        seed=np.r_[np.zeros(5000), np.full(11, 0.05)],
        dropped=empty,
        dropped_absolute=empty,
        expanded=np.r_[False, np.ones(5010, dtype=bool)],
        provenance=make_header(11, ("a", "b"), 10, [0.05] * 11),
        descriptions={name[8:-2]: said for name in features},
    )
    held = part(graph, 5011)
    assert len(held.whole) == 10  # of 5,000 inputs each; one more would be too much
    overview = part_overview(held, NO_ANNOTATIONS)
    assert overview is not None
    assert len(as_bytes(graph_data(held, placed(held), overview=overview))) < 3e6


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
    sides = pair_data(part(first), part(second))
    assert [side["columnOf"] for side in sides] == [[0, 1, 3], [0, 1, 2, 3]]
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
