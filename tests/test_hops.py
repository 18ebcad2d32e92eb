"""Skipped hops: what one dictionary writes in two steps and another in one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from graphs.analysis.influence import graph_shares, influence_shares
from graphs.comparison.compare import ComparisonError
from graphs.comparison.correspond import CorrespondSettings
from graphs.comparison.hops import SkippedHops, Skips, skipped_hops
from graphs.core.graph import AttributionGraph
from graphs.core.identity import same_dictionary
from graphs.core.nodes import NodeKind
from tests.graph_oracles import make_graph, random_graphs

TOKEN, CITY, STATE, CAPITAL, LOGIT = NAMES = [
    "token:4@1",
    "feature:0/1@1",
    "feature:1/2@1",
    "feature:2/4@1",
    "logit:5@2",
]
FEW = CorrespondSettings(permutations=1)
SAYS = {CITY: (" Dallas",), STATE: (" Texas",), CAPITAL: (" Austin",)}
STEPS = {(TOKEN, CITY): 1.0, (CITY, STATE): 1.0, (STATE, CAPITAL): 1.0, (CAPITAL, LOGIT): 1.0}
JUMP = {(TOKEN, CITY): 1.0, (CITY, CAPITAL): 1.0, (CAPITAL, LOGIT): 1.0}


def drawn(
    edges: dict[tuple[str, str], float], dictionary: str, says: dict[str, tuple[str, ...]] = SAYS
) -> AttributionGraph:
    """A graph of the nodes that edges name, in the order of NAMES."""
    names = [name for name in NAMES if any(name in edge for edge in edges)]
    tokens = {row: says[name] for row, name in enumerate(names) if name in says}
    return renamed(make_graph(names, edges, output_tokens=tokens), dictionary)


def renamed(graph: AttributionGraph, dictionary: str) -> AttributionGraph:
    header = graph.provenance
    named = header.dictionary.model_copy(update={"name": dictionary})
    return replace(graph, provenance=header.model_copy(update={"dictionary": named}))


def test_a_step_that_is_one_edge_in_the_other_graph_is_skipped():
    found = skipped_hops(drawn(STEPS, "per layer"), drawn(JUMP, "cross layer"))
    # Three two-step paths of influence 1; only city → state → capital has both ends in both.
    assert found.first.judged == pytest.approx(1 / 3)
    assert found.first.lost == found.first.skipped.value == found.first.absent == 1.0
    (hop,) = found.first.hops
    assert (hop.nodes, hop.ends, hop.between) == ((1, 2, 3), (1, 2), ())
    assert (hop.step, hop.step_there, hop.direct, hop.direct_there) == (1.0, 0.0, 0.0, 1.0)
    # token → city → capital and city → capital → logit are lost but nothing is gained for them.
    assert (found.second.judged, found.second.lost, found.second.skipped.value) == (1.0, 1.0, 0.0)
    assert found.second.hops == ()


def test_half_of_a_step_may_be_skipped():
    half = {**STEPS, (STATE, CAPITAL): 0.5, (CITY, CAPITAL): 0.5}
    found = skipped_hops(drawn(STEPS, "per layer"), drawn(half, "cross layer"))
    # Each of the three paths loses half; the direct edge of one of them gains it.
    assert found.first.judged == 1.0
    assert found.first.lost == pytest.approx(0.5)
    assert found.first.skipped.value == pytest.approx(0.5 / 3)
    (hop,) = found.first.hops
    assert hop.between == (2,)
    assert (hop.step, hop.step_there, hop.direct, hop.direct_there) == (1.0, 0.5, 0.0, 0.5)
    assert found.first.absent == 0.0  # the state is a step of both
    assert found.second.skipped.value == 0.0


def test_a_direct_edge_of_both_graphs_skips_nothing():
    both = {**STEPS, (STATE, CAPITAL): 0.5, (CITY, CAPITAL): 0.5}
    mislabelled = drawn(both, "cross layer", {**SAYS, STATE: (" Ohio",)})
    found = skipped_hops(drawn(both, "per layer"), mislabelled)
    # Of the three judged paths, of half the influence each, that through the state is lost.
    assert found.first.judged == pytest.approx(0.6)
    assert found.first.lost == pytest.approx(1 / 3)
    assert found.first.skipped.value == 0.0


def test_a_step_at_another_position_is_another_step():
    at_end = {
        (TOKEN, "feature:0/1@2"): 1.0,
        ("feature:0/1@2", "feature:2/4@2"): 1.0,
        ("feature:2/4@2", LOGIT): 1.0,
    }
    names = [TOKEN, "feature:0/1@2", "feature:2/4@2", LOGIT]
    moved = make_graph(names, at_end, output_tokens={1: SAYS[CITY], 2: SAYS[CAPITAL]})
    found = skipped_hops(drawn(STEPS, "per layer"), renamed(moved, "cross layer"))
    assert found.first.judged == 0.0
    assert found.first.hops == ()


@settings(max_examples=25, deadline=None)
@given(random_graphs())
def test_between_equal_graphs_nothing_is_skipped(graph: AttributionGraph):
    for side in (lambda found: found.first, lambda found: found.second):
        skips = side(skipped_hops(graph, graph, FEW))
        assert skips.lost == skips.skipped.value == 0.0
        assert skips.hops == ()


def other_weights(graph: AttributionGraph, seed: int) -> AttributionGraph:
    """The same nodes with other weights, some of them 0."""
    rng = np.random.default_rng(seed)
    weights = graph.weights.copy()
    weights.data = (
        weights.data * rng.exponential(size=weights.nnz) * (rng.random(weights.nnz) < 0.7)
    )
    return replace(graph, weights=weights)


def by_loops(own: AttributionGraph, other: AttributionGraph) -> tuple[float, float]:
    """Influence that is judged and that is skipped, of two graphs of the same nodes."""
    arrived = [influence_shares(graph) for graph in (own, other)]
    share = [graph_shares(graph).toarray() for graph in (own, other)]
    nodes = own.nodes
    ends = np.flatnonzero(~nodes.is_kind(NodeKind.BIAS, NodeKind.ERROR))
    judged = skipped = 0.0
    for c in ends:
        for a in ends:
            direct = [arrived[side][c] * share[side][c, a] for side in (0, 1)]
            lost = []
            for b in np.flatnonzero(nodes.is_kind(NodeKind.FEATURE)):
                step = [arrived[k][c] * share[k][c, b] * share[k][b, a] for k in (0, 1)]
                judged += step[0]
                lost.append(max(0.0, step[0] - step[1]))
            skipped += min(sum(lost), max(0.0, direct[1] - direct[0]))
    return judged, skipped


@settings(max_examples=25, deadline=None)
@given(random_graphs())
def test_all_steps_are_what_plain_loops_find(graph: AttributionGraph):
    if not same_dictionary(graph, graph):
        return
    other = other_weights(graph, 1)
    found = skipped_hops(graph, other, FEW)
    for skips, pair in ((found.first, (graph, other)), (found.second, (other, graph))):
        judged, skipped = by_loops(*pair)
        assert skips.judged == pytest.approx(1.0 if judged else 0.0)
        assert skips.skipped.value == pytest.approx(skipped / (judged or 1.0), abs=1e-12)
        listed = sum(hop.skipped for hop in skips.hops)
        assert listed <= skipped + 1e-12


def numbers(skips: Skips) -> list[float]:
    return [skips.judged, skips.lost, skips.skipped.value, skips.absent]


@settings(max_examples=25, deadline=None)
@given(random_graphs())
def test_shares_are_shares_and_both_directions_are_of_the_same_hops(graph: AttributionGraph):
    one, other = renamed(graph, "one"), renamed(other_weights(graph, 2), "other")
    found, turned = skipped_hops(one, other, FEW), skipped_hops(other, one, FEW)
    for skips in (found.first, found.second):
        judged, lost, skipped, absent = numbers(skips)
        assert 0 <= judged <= 1 + 1e-12
        assert 0 <= absent <= skipped + 1e-12
        assert skipped <= lost + 1e-12
        assert lost <= 1 + 1e-12
    if same_ends(found, turned):
        assert numbers(found.first) == pytest.approx(numbers(turned.second))
        assert numbers(found.second) == pytest.approx(numbers(turned.first))


def same_ends(found: SkippedHops, turned: SkippedHops) -> bool:
    """Whether ties of similarity were broken alike."""
    return found.first.judged == pytest.approx(turned.second.judged)


def test_the_order_of_nodes_does_not_matter():
    names = ["token:4@1", "feature:0/1@1", "feature:0/3@1", "feature:1/2@1", "logit:5@2"]
    edges = {(names[0], names[1]): 1.0, (names[0], names[2]): 2.0, (names[1], names[3]): 1.0}
    edges |= {(names[2], names[3]): 3.0, (names[3], names[4]): 1.0, (names[1], names[4]): 0.5}
    says = {names[1]: (" a",), names[2]: (" b",), names[3]: (" c",)}

    def ordered(order: list[int], dictionary: str, weight: float) -> AttributionGraph:
        own = [names[i] for i in order]
        tokens = {row: says[name] for row, name in enumerate(own) if name in says}
        own_edges = {**edges, (names[1], names[4]): weight}
        return renamed(make_graph(own, own_edges, output_tokens=tokens), dictionary)

    plain = skipped_hops(ordered([0, 1, 2, 3, 4], "one", 0.5), ordered([0, 1, 2, 3, 4], "two", 2.0))
    mixed = skipped_hops(ordered([0, 2, 1, 3, 4], "one", 0.5), ordered([0, 2, 1, 3, 4], "two", 2.0))
    assert plain.first.skipped.value > 0
    assert numbers(plain.first) == pytest.approx(numbers(mixed.first))
    assert numbers(plain.second) == pytest.approx(numbers(mixed.second))


def test_steps_of_unknown_concepts_seem_skipped():
    # Two steps at one position, each recognised; exchanged, neither is.
    names = [TOKEN, CITY, STATE, "feature:1/3@1", CAPITAL, LOGIT]
    says = {1: SAYS[CITY], 2: SAYS[STATE], 3: (" South",), 4: SAYS[CAPITAL]}

    def one(state: float, south: float, direct: float, dictionary: str) -> AttributionGraph:
        edges = {(TOKEN, CITY): 1.0, (CITY, STATE): 1.0, (CITY, names[3]): 1.0}
        edges |= {(STATE, CAPITAL): state, (names[3], CAPITAL): south, (CAPITAL, LOGIT): 1.0}
        edges |= {(CITY, CAPITAL): direct}
        return renamed(make_graph(names, edges, output_tokens=says), dictionary)

    found = skipped_hops(one(0.6, 0.2, 0.2, "one"), one(0.45, 0.05, 0.5, "two")).first.skipped
    assert found.value < found.null_mean or found.null_mean == pytest.approx(found.value)
    assert found.known_null[-1] > found.value


def test_graphs_of_two_questions_are_refused_in_a_sentence():
    one = drawn(STEPS, "one")
    header = one.provenance
    texts = {"token_ids": (1, 2, 3), "tokens": ("a", "b", "c"), "prompt": "abc"}
    prompt = replace(one, provenance=header.model_copy(update=texts))
    with pytest.raises(ComparisonError, match=r"of one prompt, got '.*' and 'abc': trace one"):
        skipped_hops(one, prompt)
    other = header.model.model_copy(update={"name": "org/other"})
    model = replace(one, provenance=header.model_copy(update={"model": other}))
    with pytest.raises(ComparisonError, match="of one model, got graphs of 'org/tiny model' and"):
        skipped_hops(one, model)
    names = [*NAMES[:-1], "logit:6@2"]
    with pytest.raises(ComparisonError, match="of the same targets, got 't0'"):
        skipped_hops(one, make_graph(names, {}))
