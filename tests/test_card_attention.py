"""Attention taken apart on a card that is made up: the numbers of the CPU."""

from __future__ import annotations

import numpy as np
from card import card, on_card

from circuits import (
    attend,
    attention_entries,
    attention_score,
    head_paths,
    heads,
    prepare,
    score_pairs,
    trace,
    with_head_nodes,
)
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.interventions.experiment import Experiment
from circuits.model.subject import Subject
from tests.conftest import cached_subject
from tests.test_card import on_the_card
from tests.tiny import tiny_prompt, tiny_subject, toy_dictionary
from tests.tolerances import EXACT

SETTINGS = TraceSettings(expansion=Expansion(max_features=6), labels=0)


def experiment(subject: Subject, *, there: bool) -> Experiment:
    source = on_the_card(toy_dictionary()) if there else toy_dictionary()
    return prepare(trace(tiny_prompt(), subject, source, SETTINGS), subject, source)


def test_attention_on_the_card_is_that_of_the_cpu():
    own = experiment(cached_subject("gemma-3"), there=False)
    edges = heads(own)
    edge = int(np.abs(edges.parts).sum((1, 2)).argmax())
    ends = int(edges.source[edge]), int(edges.target[edge])
    with card():
        found = experiment(on_card(tiny_subject("gemma-3")), there=True)
        np.testing.assert_allclose(heads(found).parts, edges.parts, **EXACT)
        np.testing.assert_allclose(
            head_paths(found, *ends).through, head_paths(own, *ends).through, **EXACT
        )
        entries = [attention_entries(one, ends[1]).flow for one in (own, found)]
        np.testing.assert_allclose(*entries, **EXACT)
        scores = [attention_score(one, 1, 2, 5, 3).score for one in (own, found)]
        np.testing.assert_allclose(*(one.at_keys.running for one in scores), **EXACT)
        pairs = [score_pairs(one, 1, 2, 5, 3, 5).weight for one in (own, found)]
        np.testing.assert_allclose(*pairs, **EXACT)
        looks = [attend(one, 4).attended for one in (own, found)]
        assert looks[0] is not None
        assert looks[1] is not None
        assert [one.name for one in looks[1].looks] == [one.name for one in looks[0].looks]
        nodes = [with_head_nodes(one, scores=True) for one in (own, found)]
        assert list(nodes[0].nodes) == list(nodes[1].nodes)
        for which in ("weights", "score_weights"):
            one, other = (getattr(graph, which).toarray() for graph in nodes)
            np.testing.assert_allclose(other, one, **EXACT)
