"""How much of an effect goes through the nodes between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from circuits.evaluation.mediation import mediations
from circuits.interventions.experiment import prepare
from circuits.interventions.intervene import intervene
from circuits.model.subject import Subject
from circuits.pipe import trace
from graphs import EditError, NodeKind, Regime, Scale, SetTo, intervention, predict
from graphs.interventions.mediation import Mediation, Route, interventions_of
from tests.conftest import cached_subject
from tests.graph_oracles import make_graph, make_table
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT


@pytest.fixture(scope="module")
def subject() -> Subject:
    return cached_subject("llama")


def test_the_model_is_asked_with_the_features_between_running_and_held(subject: Subject):
    source = toy_dictionary()
    graph = trace(tiny_prompt(), subject, source)
    experiment = prepare(graph, subject, source)
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE)).tolist()
    layers = graph.nodes.layer[features].tolist()
    lower, upper = (
        [row for row, at in zip(features, layers, strict=True) if at == layer] for layer in (0, 1)
    )
    target = int(graph.target_rows()[0])
    routes = [
        Route((lower[0],), tuple(upper), target),
        Route((upper[0],), (), target),
        Route(tuple(lower), (upper[0],), target),
    ]
    found = mediations(experiment, routes)
    for route, one in zip(routes, found, strict=True):
        ablated = [Scale(str(graph.nodes[row]), 0.0) for row in route.sources]
        held = [
            SetTo(str(graph.nodes[row]), float(graph.nodes.activation[row]))
            for row in route.between
        ]
        pair = [intervention(graph, ablated), intervention(graph, [*ablated, *held])]
        last = int(graph.nodes.layer[list(route.sources)].max())
        plain = intervene(experiment, pair, Regime.CONSTRAINED, last)
        assert [one.effect, one.held] == pytest.approx(
            plain.measured[:, target].tolist(), rel=EXACT["rtol"]
        )
        predicted = plain.predicted[:, target].tolist()
        assert [one.predicted, one.predicted_held] == pytest.approx(predicted, rel=EXACT["rtol"])
    assert found[1].share == 0.0  # nothing is between
    assert found[0].share != pytest.approx(0.0, abs=1e-3)


def test_a_graph_says_how_much_goes_through_a_step():
    names = ["token:4@1", "feature:0/1@1", "feature:1/2@1", "logit:5@2"]
    edges = {(names[0], names[1]): 1.0, (names[1], names[2]): 2.0}
    edges |= {(names[2], names[3]): 3.0, (names[1], names[3]): 1.0}
    graph = make_graph(names, edges)
    graph = replace(graph, nodes=make_table(names, [np.nan, 1.0, 2.0, np.nan]))
    made, through = interventions_of(graph, [Route((1,), (2,), 3)])
    one, held = predict(graph, made, through)[:, 3].tolist()
    assert through == [0, 0]
    assert (one, held) == pytest.approx((-4.0, -1.0))  # 3 of 4 go through the step
    found = Mediation(one, held, one, held, least=0.0)
    assert found.share == found.predicted_share == pytest.approx(0.75)


def test_a_small_effect_has_no_share():
    assert Mediation(1e-6, 0.0, np.nan, 0.0, least=1e-3).share is None
    assert Mediation(1e-6, 0.0, np.nan, 0.0, least=1e-3).predicted_share is None


def test_only_features_are_ablated_and_held():
    graph = make_graph(["token:4@1", "feature:0/1@1", "logit:5@2"], {})
    with pytest.raises(EditError, match="token:4@1 cannot be ablated or held: give features"):
        interventions_of(graph, [Route((0,), (1,), 2)])
