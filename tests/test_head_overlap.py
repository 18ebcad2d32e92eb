"""Heads across prompts: how much of what heads write two graphs share, and several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from circuits.model.subject import Subject
from graphs import consensus, influence
from graphs.analysis.head_shares import written_shares
from graphs.comparison.head_overlap import head_overlap
from graphs.core.head_totals import HeadTotals
from tests.test_heads import whole_experiment


def test_shares_are_those_of_each_nodes_own_parts(gemma: Subject):
    graph = whole_experiment(gemma, "per layer").graph
    found = written_shares(graph)
    assert found is not None
    assert graph.heads is not None
    expected = np.zeros_like(found)
    arrived = (influence(graph) + graph.seed) / graph.seed.sum()
    for row, parts, rest in zip(
        graph.heads.row.tolist(), graph.heads.parts, graph.heads.rest, strict=True
    ):
        whole = np.abs(parts).sum() + abs(rest)
        expected[:, :, graph.nodes.pos[row]] += arrived[row] * np.abs(parts) / whole
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert written_shares(replace(graph, heads=None)) is None


def test_overlap_is_by_head_and_aligned_position(gemma: Subject):
    graph = whole_experiment(gemma, "per layer").graph
    here = np.arange(len(graph.provenance.tokens))
    same = head_overlap(graph, graph, here)
    assert same is not None
    assert same.overlap.value == pytest.approx(1.0)
    assert same.overlap.p_value < 0.02
    assert same.changed(5) == []
    assert graph.heads is not None
    # The same, but that the heads of a layer are others: by hand.
    turned = graph.heads.parts[:, :, ::-1].copy()
    other = replace(graph, heads=HeadTotals(graph.heads.row, turned, graph.heads.rest))
    found = head_overlap(graph, other, here)
    assert found is not None
    one = written_shares(graph)
    assert one is not None
    one /= one.sum()
    two = one[:, ::-1]
    expected = np.minimum(one, two).sum() / np.maximum(one, two).sum()
    assert found.overlap.value == pytest.approx(expected)
    layer, head, pos, before, after = found.changed(1)[0]
    assert (before, after) == (one[layer, head, pos], two[layer, head, pos])
    assert abs(after - before) == pytest.approx(np.abs(two - one).max())
    # No position has an aligned one: nothing is shared.
    apart = head_overlap(graph, graph, np.full_like(here, -1))
    assert apart is not None
    assert apart.overlap.value == 0
    # One position has none: what is written there is in neither.
    busiest = int(one.sum((0, 1)).argmax())
    some = head_overlap(graph, graph, np.where(here == busiest, -1, here))
    assert some is not None
    lost = float(one[:, :, busiest].sum())
    assert 0 < lost < 1
    assert some.overlap.value == pytest.approx((1 - lost) / (1 + lost))
    assert head_overlap(graph, replace(graph, heads=None), here) is None


def test_a_consensus_names_the_heads_that_write_in_all_prompts(gemma: Subject):
    graph = whole_experiment(gemma, "per layer").graph
    assert graph.heads is not None
    silent = graph.heads.parts.copy()
    silent[:, 0] = 0
    other = replace(graph, heads=HeadTotals(graph.heads.row, silent, graph.heads.rest))
    found = consensus([graph, graph, other])
    shares = written_shares(graph)
    less = written_shares(other)
    assert found.at_heads is not None
    assert shares is not None
    assert less is not None
    for place, node in enumerate(found.heads):
        at = node.layer, node.index, node.pos
        mean = (2 * shares[at] + less[at]) / 3
        assert found.at_heads.mean[place] == pytest.approx(mean)
        assert found.at_heads.present[place] == pytest.approx(2 / 3 if node.layer == 0 else 1.0)
    assert list(found.at_heads.mean) == sorted(found.at_heads.mean, reverse=True)
    assert consensus([graph, replace(graph, heads=None)]).at_heads is None
