"""Which nodes and edges of a graph stay over thresholds, paraphrases and other dictionaries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from pydantic import ValidationError

from graphs.analysis.influence import influence_shares
from graphs.analysis.prune import PruneSettings, kept_by, prune
from graphs.comparison.consensus import consensus
from graphs.comparison.stability import StabilitySettings, stability
from graphs.comparison.variations import StabilityError, pruned_with
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.provenance import DictionaryIdentity
from graphs.core.stability import CLASSES, Stability
from tests.graph_oracles import make_graph, prune_by_hand, random_graphs

WHOLE = PruneSettings(node_threshold=1.0, edge_threshold=1.0)
# Nothing but what is given is varied, and nothing is pruned.
ALONE = StabilitySettings(prune=WHOLE, node_thresholds=(), edge_thresholds=())

TOKEN, STRONG, WEAK, OTHER = "token:1@0", "feature:0/1@1", "feature:0/2@1", "feature:0/9@1"
LOGIT = "logit:5@1"


def through(shares: dict[str, float], tokens: tuple[str, ...] = ("a", "b")) -> AttributionGraph:
    """Five nodes at most: from a token through features, each with its share of the logit."""
    edges = {(TOKEN, name): 1.0 for name in shares}
    edges |= {(name, LOGIT): share for name, share in shares.items()}
    return make_graph([TOKEN, *shares, LOGIT], edges, tokens=tokens)


def of_nodes(found: Stability) -> dict[str, str]:
    pairs = zip(found.nodes, found.node_shares, strict=True)
    return {name: found.class_of(share) for name, share in pairs if share is not None}


def of_edges(found: Stability) -> dict[tuple[str, str], str]:
    ends = [
        (found.nodes[s], found.nodes[t]) for s, t in zip(found.sources, found.targets, strict=True)
    ]
    pairs = zip(ends, found.edge_shares, strict=True)
    return {own: found.class_of(share) for own, share in pairs if share is not None}


def test_five_nodes_by_hand():
    graph = through({STRONG: 0.6, WEAK: 0.3, OTHER: 0.1})
    others = [{STRONG: 0.6, WEAK: 0.4}, {STRONG: 0.5, OTHER: 0.5}, {STRONG: 1.0}, {WEAK: 1.0}]
    variants = [through(shares) for shares in [*others, others[0]]]
    found = stability(graph, variants, settings=ALONE)
    (variation,) = found.variations
    assert dict(zip(found.nodes, variation.nodes, strict=True)) == {
        TOKEN: None,
        STRONG: 4,
        WEAK: 3,
        OTHER: 1,
        LOGIT: None,
    }
    assert of_nodes(found) == {STRONG: "core", WEAK: "contingent", OTHER: "contingent"}
    strict = stability(graph, variants, settings=replace(ALONE, noise_limit=0.3))
    assert of_nodes(strict)[OTHER] == "noise"
    core, contingent, noise = strict.classes()
    assert [core.nodes, contingent.nodes, noise.nodes] == [1, 1, 1]
    assert core.node_influence == pytest.approx(0.6)
    assert contingent.node_influence == pytest.approx(0.3)
    assert [core.edges, contingent.edges, noise.edges] == [2, 2, 2]
    assert noise.edge_influence == pytest.approx(0.1)
    # All three features share a layer and position, where one of three is core.
    assert strict.null.mean == pytest.approx(1 / 3)
    assert strict.null.sd == pytest.approx(np.sqrt((0.36 + 0.09 + 0.01) * 2 / 9))


def test_thresholds_by_hand():
    graph = through({STRONG: 0.6, WEAK: 0.3, OTHER: 0.1})
    settings = StabilitySettings(
        prune=PruneSettings(node_threshold=1.0, edge_threshold=1.0),
        node_thresholds=(0.49, 0.9, 0.97, 1.0),  # the token has half
        edge_thresholds=(1.0,),
    )
    found = stability(graph, settings=settings)
    assert found.variations[0].variants == (
        "nodes 0.49, edges 1",
        "nodes 0.9, edges 1",
        "nodes 0.97, edges 1",
    )
    assert dict(zip(found.nodes, found.variations[0].nodes, strict=True)) == {
        TOKEN: None,
        STRONG: 2,
        WEAK: 2,
        OTHER: 1,
        LOGIT: None,
    }


@hypothesis_settings(max_examples=30, deadline=None)
@given(random_graphs(ties=False))
def test_counts_over_thresholds_are_those_of_pruning_one_by_one(graph: AttributionGraph):
    # No simple fractions, which sums of shares may reach but for rounding.
    settings = StabilitySettings(node_thresholds=(0.31, 0.62), edge_thresholds=(0.47, 0.91))
    found = stability(graph, settings=settings)
    nodes, edges = prune_by_hand(graph, settings.prune)
    kept = [
        prune_by_hand(graph, PruneSettings(n, e))
        for n in settings.node_thresholds
        for e in settings.edge_thresholds
    ]
    rows = [graph.find(name) for name in found.nodes]
    assert set(rows) == nodes
    (variation,) = found.variations
    for row, count in zip(rows, variation.nodes, strict=True):
        assert count is None or count == sum(row in some for some, _ in kept)
    ends = [(rows[t], rows[s]) for t, s in zip(found.targets, found.sources, strict=True)]
    assert set(ends) == edges
    for pair, count in zip(ends, variation.edges, strict=True):
        assert count == sum(pair in some for _, some in kept)


@hypothesis_settings(max_examples=30, deadline=None)
@given(random_graphs())
def test_what_a_stricter_threshold_keeps_a_looser_one_keeps(graph: AttributionGraph):
    grid = [(n, e) for n in (0.2, 0.5, 0.8) for e in (0.5, 0.9, 1.0)]
    kept = {pair: kept_by(graph, PruneSettings(*pair)) for pair in grid}
    for (n, e), (nodes, edges) in kept.items():
        for (looser_n, looser_e), (more_nodes, more_edges) in kept.items():
            if looser_n >= n and looser_e >= e:
                assert np.all(more_nodes[nodes])
                assert np.all(more_edges[edges])


@hypothesis_settings(max_examples=30, deadline=None)
@given(random_graphs())
def test_a_graph_against_copies_of_itself_is_all_core(graph: AttributionGraph):
    settings = StabilitySettings(node_thresholds=(), edge_thresholds=())
    found = stability(graph, [graph, graph], [graph], settings)
    assert set(of_nodes(found).values()) <= {"core"}
    assert set(of_edges(found).values()) <= {"core"}
    assert len(found.edge_shares) == prune(graph).weights.nnz
    assert all(one.unaligned == 0.0 for one in found.variations)


def test_a_graph_against_others_that_share_nothing_is_all_noise():
    graph = through({STRONG: 0.7, WEAK: 0.3})
    found = stability(graph, 4 * [through({OTHER: 1.0})])
    assert set(of_nodes(found).values()) == {"noise"}
    assert set(of_edges(found).values()) == {"noise"}
    assert [one.node_influence for one in found.classes()] == [0.0, 0.0, 1.0]
    assert found.null.mean == 0.0


@hypothesis_settings(max_examples=30, deadline=None)
@given(random_graphs(), random_graphs())
def test_shares_of_influence_add_up_to_one(graph: AttributionGraph, other: AttributionGraph):
    found = stability(graph, [other])
    judged = [share for share in found.node_shares if share is not None]
    for kind in (None, "thresholds", "paraphrases"):
        classes = found.classes(kind)
        assert tuple(one.name for one in classes) == CLASSES
        assert sum(one.nodes for one in classes) == len(judged)
        assert sum(one.edges for one in classes) == len(found.sources)
        held = sum(
            found.node_influence[i] for i, s in enumerate(found.node_shares) if s is not None
        )
        assert sum(one.node_influence for one in classes) == pytest.approx(1.0 if held else 0.0)
        along = 1.0 if sum(found.edge_influence) else 0.0
        assert sum(one.edge_influence for one in classes) == pytest.approx(along)


def test_influence_is_that_of_the_whole_graph():
    graph = through({STRONG: 0.9, WEAK: 0.1})
    found = stability(graph)
    assert WEAK not in found.nodes
    shares = influence_shares(graph)
    expected = [shares[graph.find(name)] for name in found.nodes]
    assert list(found.node_influence) == pytest.approx(expected)


def test_the_order_of_nodes_does_not_matter():
    shares = {STRONG: 0.5, WEAK: 0.3, OTHER: 0.2}
    turned = dict(reversed(shares.items()))
    others = [{STRONG: 0.5, OTHER: 0.5}, {WEAK: 1.0}]
    found = stability(through(shares), [through(one) for one in others], settings=ALONE)
    again = stability(
        through(turned),
        [through(dict(reversed(one.items()))) for one in reversed(others)],
        settings=ALONE,
    )
    assert of_nodes(found) == of_nodes(again)
    assert of_edges(found) == of_edges(again)
    for one, other in zip(found.classes(), again.classes(), strict=True):
        assert (one.nodes, one.edges) == (other.nodes, other.edges)
        assert one.node_influence == pytest.approx(other.node_influence)
        assert one.edge_influence == pytest.approx(other.edge_influence)
    assert found.null.mean == pytest.approx(again.null.mean)


def test_paraphrases_are_matched_as_a_consensus_matches_prompts():
    graph = through({STRONG: 0.7, WEAK: 0.3})
    other = through({STRONG: 0.4, OTHER: 0.6}, tokens=("a", "c"))
    found = stability(graph, [other], settings=ALONE)
    common = {str(node) for node in consensus([graph, other]).nodes}
    assert {name for name, own in of_nodes(found).items() if own == "core"} == {STRONG}
    assert STRONG in common
    assert WEAK not in common


def test_paraphrases_are_pruned_as_the_graph_is():
    graph, other = through({STRONG: 0.55, WEAK: 0.45}), through({STRONG: 0.95, WEAK: 0.05})
    assert of_nodes(stability(graph, [graph])) == {STRONG: "core", WEAK: "contingent"}
    found = stability(graph, [other])
    assert of_nodes(found)[WEAK] == "noise"
    assert of_edges(found)[(WEAK, LOGIT)] == "noise"


def test_a_node_at_a_position_that_a_paraphrase_lacks_does_not_stay():
    graph = make_graph(
        ["token:1@0", "token:2@1", "feature:0/1@1", "feature:0/1@2", "logit:5@2"],
        {
            ("token:2@1", "feature:0/1@1"): 1.0,
            ("token:1@0", "feature:0/1@2"): 1.0,
            ("feature:0/1@1", "logit:5@2"): 1.0,
            ("feature:0/1@2", "logit:5@2"): 1.0,
        },
        tokens=("a", "very", "b"),
    )
    found = stability(graph, [through({STRONG: 1.0})], settings=ALONE)
    assert of_nodes(found) == {"feature:0/1@1": "noise", "feature:0/1@2": "core"}
    # Of 0.5 at each token and feature and 1 at the logit, the position in the middle has 1.
    assert found.variations[0].unaligned == pytest.approx(1 / 3)


def with_dictionary(graph: AttributionGraph, name: str) -> AttributionGraph:
    named = DictionaryIdentity(kind="transcoder", name=name)
    return replace(graph, provenance=graph.provenance.model_copy(update={"dictionary": named}))


def test_features_of_other_dictionaries_are_matched_by_evidence_and_errors_are_not_judged():
    names = [TOKEN, "bias:0", STRONG, WEAK, "error:0@1", LOGIT]
    edges = {(TOKEN, name): 1.0 for name in (STRONG, WEAK)}
    edges |= {(name, LOGIT): 1.0 for name in names[1:5]}
    promoted = {2: (" Texas", " Austin"), 3: (" banana", " melon")}
    graph = make_graph(names, edges, tokens=("a", "b"), output_tokens=promoted)
    narrow = with_dictionary(
        make_graph(
            [TOKEN, "feature:0/700@1", LOGIT],
            {(TOKEN, "feature:0/700@1"): 1.0, ("feature:0/700@1", LOGIT): 1.0},
            tokens=("a", "b"),
            output_tokens={1: (" Texas", " Austin")},
        ),
        "narrow",
    )
    found = stability(graph, against=[narrow], settings=ALONE)
    assert found.variations[0].variants == ("narrow",)
    assert of_nodes(found) == {STRONG: "core", WEAK: "noise"}
    assert of_edges(found) == {
        (TOKEN, STRONG): "core",
        (STRONG, LOGIT): "core",
        (TOKEN, WEAK): "noise",
        (WEAK, LOGIT): "noise",
    }
    # With paraphrases as well, these judge what dictionaries do not.
    both = stability(graph, [graph], [narrow], ALONE)
    assert of_nodes(both) == {STRONG: "core", WEAK: "noise", "bias:0": "core", "error:0@1": "core"}


def test_graphs_with_other_dictionaries_are_pruned_before_they_are_matched():
    """What pruning removes stands in front of what it keeps, in both graphs."""
    texas, banana = (" Texas", " Austin"), (" banana", " melon")
    graph = replace(through({WEAK: 0.05, STRONG: 0.95}), output_tokens={1: banana, 2: texas})
    wide = replace(
        with_dictionary(through({"feature:0/8@1": 0.05, OTHER: 0.95}), "wide"),
        output_tokens={1: banana, 2: texas},
    )
    settings = StabilitySettings(node_thresholds=(), edge_thresholds=())
    found = stability(graph, against=[wide], settings=settings)
    assert of_nodes(found) == {STRONG: "core"}
    assert set(of_edges(found).values()) == {"core"}


def test_a_pruned_graph_is_the_reference_as_it_is():
    graph = prune(through({STRONG: 0.7, WEAK: 0.2, OTHER: 0.1}), PruneSettings(0.95, 0.99))
    settings = StabilitySettings(node_thresholds=(0.5,), edge_thresholds=(0.98,))
    found = stability(graph, [graph], settings=settings)
    assert set(found.nodes) == set(map(str, graph.nodes))
    assert pruned_with(graph) == PruneSettings(0.95, 0.99)
    assert found.node_threshold == 0.95


def test_variants_that_are_none_are_refused():
    graph = through({STRONG: 0.7, WEAK: 0.3})
    other = with_dictionary(graph, "another")
    with pytest.raises(StabilityError, match=r"'org/tiny-plt' .* traced with 'another'"):
        stability(graph, [other])
    longer = with_dictionary(through({STRONG: 1.0}, tokens=("a", "b", "c")), "another")
    with pytest.raises(StabilityError, match="give it as a paraphrase"):
        stability(graph, against=[longer])
    header = other.provenance
    model = header.model.model_copy(update={"name": "org/other"})
    elsewhere = replace(other, provenance=header.model_copy(update={"model": model}))
    with pytest.raises(StabilityError, match="'org/other': compare graphs of two models"):
        stability(graph, against=[elsewhere])
    with pytest.raises(StabilityError, match="Nothing is varied"):
        stability(graph, settings=ALONE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"node_thresholds": (1.5,)}, "node_thresholds must be from 0 to 1"),
        ({"core_limit": 0.3, "noise_limit": 0.5}, "got 0.5 and 0.3"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        StabilitySettings(**values)  # pyright: ignore[reportArgumentType]


def test_a_record_that_cannot_be_is_refused():
    found = stability(through({STRONG: 0.7, WEAK: 0.3}))
    raw = found.model_dump()
    for broken, message in (
        ({"nodes": [*raw["nodes"][:-1], "feature"]}, "is not a node"),
        ({"node_influence": raw["node_influence"][1:]}, "entries in each column of nodes"),
        ({"targets": raw["targets"][1:]}, "entries in each column of edges"),
        ({"sources": [99, *raw["sources"][1:]]}, "starts or ends at no node"),
        ({"variations": []}, "at least 1 item"),
    ):
        with pytest.raises(ValidationError, match=message):
            Stability.model_validate({**raw, **broken})
    many = {**raw["variations"][0], "variants": ["only one"]}
    with pytest.raises(ValidationError, match="stays in 11 of 1 variants"):
        Stability.model_validate({**raw, "variations": [many]})


def test_errors_that_are_kept_by_the_settings_have_no_class():
    graph = make_graph(
        [TOKEN, STRONG, "error:0@1", LOGIT],
        {(TOKEN, STRONG): 1.0, (STRONG, LOGIT): 1.0, ("error:0@1", LOGIT): 1.0},
        tokens=("a", "b"),
    )
    kept = replace(ALONE, prune=replace(WHOLE, keep_errors=True))
    assert of_nodes(stability(graph, [graph], settings=kept)) == {STRONG: "core"}
    assert NodeKind.ERROR in {node.kind for node in graph.nodes}
