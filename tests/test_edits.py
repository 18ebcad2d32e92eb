"""Edits: names become changes of nodes, and what cannot be edited is refused in one sentence."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
from scipy.sparse import csr_array

from graphs.analysis.select import SelectionError
from graphs.core.annotations import Annotations, Group
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import Description, NodeId
from graphs.core.nonlinearities import NONLINEARITIES
from graphs.core.report import Order
from graphs.core.responses import FrozenNorm, NeuronForm, Responses
from graphs.interventions.changes import Change, intervention
from graphs.interventions.edits import Add, EditError, Scale, SetTo, Steer, Swap
from graphs.interventions.heads import HeadPatch, HeadPlace, chosen_heads
from graphs.interventions.predict import predict
from tests.graph_oracles import make_graph, make_table

TEXAS, AUSTIN, ERROR, LOGIT = "feature:0/1@1", "feature:1/2@2", "error:0@1", "logit:1@2"
NAMES = ["token:0@1", TEXAS, ERROR, AUSTIN, LOGIT]
EDGES = {
    ("token:0@1", TEXAS): 4.0,
    (TEXAS, AUSTIN): 3.0,
    (ERROR, AUSTIN): 2.0,
    (TEXAS, LOGIT): 0.5,
    (AUSTIN, LOGIT): 5.0,
    (ERROR, LOGIT): -1.0,
}
SEED = Annotations(groups=(Group(name="Texas", members=(TEXAS,)),))


def small(activation: float = 4.0, tokens: tuple[str, ...] = ("<bos>", " Dallas", " is")):
    """Texas (activation 4) feeds Austin (activation 5), both feed the answer."""
    graph = make_graph(NAMES, EDGES, tokens=tokens)
    nodes = replace(graph.nodes, activation=np.array([nan, activation, nan, 5.0, nan]))
    header = graph.provenance.model_copy(update={"n_prefix": 1})
    said = {"0/1": Description(label="Dallas → Texas"), "1/2": Description(label="Austin")}
    return replace(graph, nodes=nodes, provenance=header, descriptions=said)


def changes(graph: AttributionGraph, *edits, notes: Annotations = SEED) -> dict[str, Change]:
    return {str(change.node): change for change in intervention(graph, edits, notes).changes}


def change_of(graph: AttributionGraph, through: int, *edits) -> list[float]:
    """What the graph predicts for Texas, Austin and the answer."""
    made = [intervention(graph, edits, SEED)]
    return predict(graph, made, [through])[0, [1, 3, 4]].tolist()


def test_edits_are_a_factor_and_an_offset():
    found = changes(small(), SetTo(TEXAS, 2.0), Scale(ERROR, -1.0), Add(AUSTIN, 0.5))
    assert {name: (c.factor, c.offset) for name, c in found.items()} == {
        TEXAS: (0.0, 2.0),
        ERROR: (-1.0, 0.0),
        AUSTIN: (1.0, 0.5),
    }


@pytest.mark.parametrize("name", ["supernode:Texas", "group:Texas", "concept:Texas", "feature:0/1"])
def test_features_are_named_in_several_ways(name: str):
    assert list(changes(small(), SetTo(name, 0.0))) == [TEXAS]


def test_a_plus_is_that_position_and_all_later_ones():
    found = changes(small(), Scale("supernode:Texas+", 0.0))
    assert {name: change.onward for name, change in found.items()} == {
        TEXAS: False,
        "feature:0/1@2": True,
    }


def test_a_feature_need_not_be_in_the_graph():
    assert changes(small(), SetTo("feature:1/7@1", 3.0)) == {
        "feature:1/7@1": Change(NodeId.parse("feature:1/7@1"), 0.0, 3.0)
    }


def california(tokens: tuple[str, ...]) -> AttributionGraph:
    said = {"0/1": Description(label="Austin"), "1/2": Description(label="California")}
    return replace(small(tokens=tokens), descriptions=said)


def test_a_swap_turns_one_off_and_the_other_on_as_it_is_in_the_other_graph():
    found = changes(small(), Swap("Texas", "California", california(("<bos>", " Oakland", " is"))))
    assert found == {
        TEXAS: Change(NodeId.parse(TEXAS), 0.0, 0.0),
        AUSTIN: Change(NodeId.parse(AUSTIN), 0.0, 5.0),
    }
    # A feature of both is as active as in the other graph.
    assert changes(small(), Swap("Texas", "Texas", small(7.0)))[TEXAS].offset == 7.0


def test_a_swap_is_held_at_new_tokens_if_asked():
    last = len(small().provenance.tokens) - 1
    other = california(("<bos>", " Oakland", " is"))
    once = changes(small(), Swap("Texas", "California", other))
    onward = changes(small(), Swap("Texas+", "California", other))
    assert set(onward) == set(once)
    assert not any(change.onward for change in once.values())
    for name, change in onward.items():
        assert change.onward == (change.node.pos == last), name
    assert {change.onward for change in onward.values()} == {True, False}


def test_concepts_are_swapped_where_both_are_with_all_that_differs_there():
    """Texas is at layer 0, position 1 here, and so is California there."""
    other = small(7.0, ("<bos>", " Oakland", " is"))
    nodes = other.nodes
    nodes.index[NAMES.index(TEXAS)] = 5  # another feature at the same layer and position
    said = {"0/5": Description(label="Oakland → California"), "1/2": Description(label="Austin")}
    found = changes(
        small(),
        Swap("Texas", "California", replace(other, descriptions=said)),
        notes=Annotations(),
    )
    assert found == {
        TEXAS: Change(NodeId.parse(TEXAS), 0.0, 0.0),
        "feature:0/5@1": Change(NodeId.parse("feature:0/5@1"), 0.0, 7.0),
    }
    elsewhere = {"1/2": Description(label="California")}  # at a layer at which Texas is not
    with pytest.raises(EditError, match="at no layer of 'Texas'"):
        changes(
            small(),
            Swap("Texas", "California", replace(other, descriptions=elsewhere)),
            notes=Annotations(),
        )


def test_a_swap_needs_positions_that_stand_for_each_other():
    with pytest.raises(EditError, match="is at no position of the other prompt"):
        changes(small(), Swap("Texas", "California", california((" Dallas", " is", " now"))))


def test_a_swap_needs_what_it_names():
    with pytest.raises(SelectionError, match="label that names 'Ohio'"):
        changes(small(), Swap("Ohio", "Texas", small()))
    with pytest.raises(SelectionError, match="selects no feature"):
        changes(small(), Swap("error:0@1", "Texas", small()))


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ([SetTo(TEXAS, nan)], "not finite"),
        ([Scale(TEXAS, inf)], "not finite"),
        ([Steer(0, 1, np.array([nan]))], "not finite"),
        ([Steer(2, 1, np.zeros(1))], "layers are 0 to 1"),
        ([Steer(0, 3, np.zeros(1))], "positions 0 to 2"),
        ([SetTo(TEXAS, 1.0), Scale("supernode:Texas", 2.0)], "feature:0/1@1 is edited twice, by"),
        ([SetTo(TEXAS, 1.0), SetTo(TEXAS, 1.0)], "is edited twice"),
        ([SetTo(f"{TEXAS}+", 1.0), SetTo("feature:0/1@2", 1.0)], "feature:0/1@2 is edited twice"),
        ([SetTo("token:0@1", 0.0)], "token:0@1 cannot be edited"),
        ([SetTo(LOGIT, 0.0)], "logit:1@2 cannot be edited"),
        ([Add(ERROR, 1.0)], "has no activation"),
        ([SetTo("feature:0/1@3", 0.0)], "choose one of 1 to 2"),
        ([SetTo("feature:0/1@0", 0.0)], "choose one of 1 to 2"),
        (
            [SetTo("feature:2/1@1", 0.0)],
            "in a layer that the model does not have: its layers are 0 to 1",
        ),
    ],
)
def test_what_cannot_be_edited_is_refused(edits, sentence: str):
    with pytest.raises(EditError, match=sentence):
        intervention(small(), edits, SEED)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("head:1.5", HeadPlace(1, 5)),
        ("head:1/5", HeadPlace(1, 5)),
        ("head:0.3@2", HeadPlace(0, 3, 2)),
        ("head:0.3@is", HeadPlace(0, 3, 2)),
        ("head:0.3@ Dallas+", HeadPlace(0, 3, 1, onward=True)),
        ("head:0.3@2<1", HeadPlace(0, 3, 2, 1)),
        ("head:0.3@is ← Dallas", HeadPlace(0, 3, 2, 1)),
        ("head:0.3@<bos>", HeadPlace(0, 3, 0)),
        ("head:0.3@is<<bos>", HeadPlace(0, 3, 2, 0)),
        ("head:0.3@<bos><<bos>", HeadPlace(0, 3, 0, 0)),
    ],
)
def test_heads_queries_and_entries_have_names(name: str, place: HeadPlace):
    (found,) = intervention(small(), [Scale(name, 0.5)]).heads
    assert found.place == place
    assert intervention(small(), [Scale(str(place), 0.5)]).heads == (found,)
    assert predict(small(), [intervention(small(), [Scale(name, 0.5)])], [1]) is not None


def test_a_head_is_patched_at_aligned_positions():
    other = small(tokens=("<bos>", " Oakland", " is"))
    made = intervention(small(), [Swap("head:0.1", "head:0.1", other)])
    (patch,) = made.heads
    assert isinstance(patch, HeadPatch)
    assert patch.queries == ((0, 0), (1, 1), (2, 2))
    assert patch.other.tokens == other.provenance.tokens
    (patch,) = intervention(small(), [Swap("head:0.1@is", "head:0.1@Oakland", other)]).heads
    assert isinstance(patch, HeadPatch)
    assert patch.queries == ((2, 1),)
    assert made.last_layer == -1  # the MLP of its layer reads what it writes


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ([Scale("head:", 0.0)], "A head is LAYER.HEAD, as in 4.5, got ''"),
        ([Scale("head:@2", 0.0)], "A head is LAYER.HEAD"),
        ([Scale("head:4", 0.0)], "A head is LAYER.HEAD"),
        ([Scale("head:-1.2", 0.0)], "A head is LAYER.HEAD"),
        ([Scale("head:1.-2", 0.0)], "A head is LAYER.HEAD"),
        ([Scale("head:4.5.6", 0.0)], "A head is LAYER.HEAD"),
        ([Scale("head:1.5+", 0.0)], "A head is LAYER.HEAD"),
        ([Scale("head:" + "9" * 30 + ".1", 0.0)], "A head is LAYER.HEAD"),
        ([Scale("head:1.5\nhead:1.6", 0.0)], "A head is LAYER.HEAD"),
        ([Scale("head:2.5", 0.0)], "no layer 2: the model has layers 0 to 1"),
        ([Scale("head:1.5@", 0.0)], "No token is '' for head:1.5: the prompt has '<bos>' @0"),
        ([Scale("head:1.5@+", 0.0)], "No token is '.' for head:1.5"),
        ([Scale("head:1.5@3", 0.0)], "no position 3 for head:1.5: the prompt has positions 0 to 2"),
        ([Scale("head:1.5@-1", 0.0)], "No token is '-1'"),
        ([Scale("head:1.5@2\n", 0.0), Scale("head:1.5@2", 0.0)], "is edited twice"),
        ([Scale("head:1.5@2<", 0.0)], "'2<' is half an entry: give QUERY<KEY, as in head:4.5@8<4"),
        ([Scale("head:1.5@<2", 0.0)], "half an entry"),
        ([Scale("head:1.5@1<2", 0.0)], "head:1.5@1<2 looks ahead: name the query first"),
        ([Scale("head:1.5@2<1+", 0.0)], "No token is '1.'"),
        ([Scale("head:1.5@2<9", 0.0)], "no position 9"),
        ([Scale("head:1.5", inf)], "not finite"),
        ([SetTo("head:1.5", 0.0)], "head:1.5 has no activation: scale it"),
        ([Add("head:1.5@2", 1.0)], "has no activation"),
        ([Scale("head:1.5", 0.0), Scale("head:1.5@2", 0.0)], "head:1.5@2 is edited twice, by"),
        ([Scale("head:1.5@1+", 0.0), Scale("head:1.5@2", 0.0)], "is edited twice"),
        ([Swap("head:1.5", "head:1.4", small())], "takes its own output only"),
        ([Swap("head:1.5", "feature", small())], "swaps a head and something else"),
        ([Swap("head:1.5@2<1", "head:1.5@2<1", small())], "swaps entries"),
        ([Swap("head:1.5", "head:1.5@2", small())], "names a query of the other prompt only"),
        ([Swap("head:1.5@9", "head:1.5", small())], "no position 9"),
    ],
)
def test_hostile_names_of_heads_are_refused(edits, sentence: str):
    with pytest.raises((EditError, SelectionError), match=sentence) as caught:
        intervention(small(), edits)
    assert "\n" not in str(caught.value)


def test_a_token_that_occurs_twice_lists_its_places():
    graph = small(tokens=("<bos>", " is", " is"))
    with pytest.raises(SelectionError, match="'is' is at several positions: give one of @1, @2"):
        intervention(graph, [Scale("head:1.5@is", 0.0)])


def test_heads_that_react_are_named_in_lists():
    chosen = chosen_heads(small(), queries=["0.1,1.2", "head:1.3"], running=["0.7"])
    assert chosen.only == {(0, 1), (1, 2), (1, 3)}
    assert chosen.patterns == {(0, 1), (1, 2), (1, 3), (0, 7)}
    for wrong in ("", "0.1,", "0.1 0.2", "2.0", "a"):
        with pytest.raises(SelectionError):
            chosen_heads(small(), keys=[wrong])


@pytest.mark.parametrize("name", ["feature:0/99", "nonsense", "supernode:Ohio", "error:5@2"])
def test_names_of_nothing_are_refused(name: str):
    with pytest.raises(SelectionError):
        intervention(small(), [SetTo(name, 0.0)], SEED)


def test_held_features_pass_on_nothing_but_what_is_edited():
    everything_held = 2
    assert change_of(small(), everything_held, Scale(TEXAS, 0.5)) == [0.0, -1.5, -0.25]
    assert change_of(small(), everything_held, SetTo(ERROR, 0.0)) == [0.0, -2.0, 1.0]


def test_features_that_run_follow_what_reaches_them():
    # Austin gets -3 of its 5, so what it gives the answer falls by 3/5.
    found = change_of(small(), 0, Scale(TEXAS, 0.0))
    assert found == pytest.approx([0.0, -3.0, -0.5 - 5 * 3 / 5])


def test_an_edited_feature_that_runs_scales_what_reaches_it():
    both = change_of(small(), -1, Scale(TEXAS, 0.0), Scale(AUSTIN, 0.5))
    assert both == pytest.approx([0.0, -3.0, -0.5 + 5 * (0.5 * (1 - 3 / 5) - 1)])
    given = change_of(small(), -1, Scale(TEXAS, 0.0), SetTo(AUSTIN, 10.0))
    assert given == pytest.approx([0.0, -3.0, -0.5 + 5.0])


def test_many_are_predicted_at_once():
    graph = small()
    made = [intervention(graph, [edit]) for edit in (Scale(TEXAS, 0.0), Scale(ERROR, 2.0))]
    both = predict(graph, made, [2, -1])
    np.testing.assert_array_equal(both[0], predict(graph, made[:1], [2])[0])
    np.testing.assert_array_equal(both[1], predict(graph, made[1:], [-1])[0])


def test_of_what_is_not_in_the_graph_nothing_is_said():
    graph = small()
    for edit in (SetTo("feature:1/7@1", 3.0), Steer(0, 1, np.zeros(1))):
        assert np.isnan(predict(graph, [intervention(graph, [edit])], [2])).all()
    tokens = predict(graph, [intervention(graph, [])], [2])[0]
    assert np.isnan(tokens[[0, 2]]).all()  # a token and an error have no row
    assert tokens[[1, 3, 4]].tolist() == [0.0, 0.0, 0.0]


NORMS = {
    "unembedding": FrozenNorm(
        before="unembedding", layer=2, pos=2, mean_square=4.0, width=3, dimensions=3
    ),
    "mlp": FrozenNorm(before="mlp", layer=1, pos=2, mean_square=4.0, width=3, dimensions=3),
    "attention": FrozenNorm(
        before="attention", layer=1, pos=2, mean_square=4.0, width=3, dimensions=3
    ),
}


def responding(
    rows: dict[str, tuple[float, dict[str, float]]],
    *norms: str,
    neurons: NeuronForm | None = None,
    threshold: float = nan,
    flow: float | None = None,
) -> AttributionGraph:
    """The small graph with rows of values and weights by name; no value has a constant.

    `threshold`: of Austin.  `flow`: into Austin, behind the norm in front of attention.
    """
    graph = small()
    weights = np.zeros((len(rows), len(graph)))
    for row, (_, of) in enumerate(rows.values()):
        for name, weight in of.items():
            weights[row, NAMES.index(name)] = weight
    values = [value for value, _ in rows.values()]
    flows = np.zeros((len(graph) + len(rows), 0 if flow is None else 1))
    if flow is not None:
        flows[NAMES.index(AUSTIN)] = flow
    known = Responses(
        norms=tuple(NORMS[name] for name in norms),
        neurons=neurons,
        constant=np.zeros(len(graph) + len(rows)),
        threshold=np.where(np.array(NAMES) == AUSTIN, threshold, nan),
        nodes=make_table(list(rows), value=values),
        weights=csr_array(weights),
        dropped=np.zeros(len(rows)),
        dropped_absolute=np.zeros(len(rows)),
        flows=flows,
    )
    known.require_consistent()
    nodes = replace(graph.nodes, value=np.array([nan, 4.0, nan, 5.0, 4.5]))
    return replace(graph, nodes=nodes, responses=known)


def predicted(graph: AttributionGraph, through: int, *edits, order: Order = "first") -> list[float]:
    made = [intervention(graph, edits, SEED)]
    return predict(graph, made, [through], order)[0, [1, 3, 4]].tolist()


def test_the_final_norm_divides_by_what_it_then_reads():
    """x = (3, 3/2, ...) with |x|² = 12; Texas writes δ = -x / 4 and something beside x."""
    rows = {
        "norm:2/0@2": (12.0, {TEXAS: 3.0}),
        "norm:2/1@2": (0.0, {TEXAS: 2.0}),
        "norm:2/2@2": (1.0, {}),
    }
    graph = responding(rows, "unembedding")
    # Ablated with the rest held, x·δ is -3 and q·ε is (-2, 1/4).
    size = 9 / 12 + 3 / 2 * (4 + 1 / 16)
    scale = np.sqrt(4 / (4 + (2 * -3 + size) / 3))
    assert predicted(graph, 1, SetTo(TEXAS, 0.0)) == pytest.approx(
        [0.0, -3.0, (4.5 - 0.5) * scale - 4.5]
    )
    held = predicted(graph, 2, SetTo(TEXAS, 0.0))
    assert held == change_of(small(), 2, SetTo(TEXAS, 0.0))  # nothing runs


def test_what_reads_no_norm_is_not_scaled():
    graph = responding({"norm:2/0@2": (12.0, {TEXAS: 3.0})}, "unembedding")
    assert graph.responses is not None
    constant = graph.responses.constant.copy()
    constant[NAMES.index(LOGIT)] = nan
    beside = replace(graph, responses=replace(graph.responses, constant=constant))
    assert predicted(beside, 1, SetTo(TEXAS, 0.0)) == change_of(small(), 1, SetTo(TEXAS, 0.0))
    assert predicted(graph, 1, SetTo(TEXAS, 0.0)) != change_of(small(), 1, SetTo(TEXAS, 0.0))


def test_norms_inside_scale_what_reads_them():
    graph = responding({"norm:1/0@2": (12.0, {TEXAS: 2.4})}, "mlp")
    # x·δ = -2.4, so the norm divides by 1.2 / 6 less, to first order by a factor of 1 + 2.4 / 12.
    austin = (5 - 3) * 1.2 - 5
    found = predicted(graph, 0, SetTo(TEXAS, 0.0))
    assert found == pytest.approx([0.0, austin, -0.5 + 5 * austin / 5])
    assert predicted(graph, 1, SetTo(TEXAS, 0.0)) == change_of(small(), 1, SetTo(TEXAS, 0.0))


def test_norms_of_attention_scale_what_flows_through_it():
    rows = {"attention_norm:1/0@2": (12.0, {TEXAS: 2.4})}
    graph = responding(rows, "attention", flow=2.0)
    austin = -3 + 0.2 * 2.0
    found = predicted(graph, 0, SetTo(TEXAS, 0.0))
    assert found == pytest.approx([0.0, austin, -0.5 + austin])


def test_a_feature_below_its_threshold_is_off():
    graph = responding({}, threshold=2.5)  # Austin is left with 2
    assert predicted(graph, 0, SetTo(TEXAS, 0.0)) == pytest.approx([0.0, -3.0, -3.5])
    assert predicted(graph, 0, SetTo(TEXAS, 0.0), order="full") == pytest.approx([0, -3.0, -5.5])
    above = predicted(graph, 0, SetTo(TEXAS, 2.0), order="full")  # Austin is left with 3.5
    assert above == pytest.approx([0.0, -1.5, -0.25 - 1.5])


@pytest.mark.parametrize("order", ["first", "full"])
def test_a_gated_neuron_follows_its_activation_function(order: Order):
    """Austin is a neuron f(g) · u = 5 with g = 2; Texas writes 1 to its gate."""
    f = NONLINEARITIES["silu"]
    u = 5 / f(np.array(2.0))
    form = NeuronForm(nonlinearity="silu", gated=True)
    graph = responding({"gate:1/2@2": (2.0, {TEXAS: 1.0})}, neurons=form)
    # Half of what reaches it goes through the gate: (f(g) / g · u · Δg + f(g) · Δu) / 2 = -3.
    beside = (-3 * 2 + 5 / 2 * 1) / f(np.array(2.0))
    if order == "full":
        expected = f(np.array(1.0)) * (u + beside) - 5
    else:
        sigmoid = 1 / (1 + np.exp(-2.0))
        slope = sigmoid * (1 + 2 * (1 - sigmoid))
        expected = -slope * u + f(np.array(2.0)) * beside
    found = predicted(graph, 0, SetTo(TEXAS, 0.0), order=order)
    assert found == pytest.approx([0.0, float(expected), -0.5 + float(expected)])


def test_a_neuron_without_a_gate_follows_its_activation_function():
    """Austin is a neuron f(z) = 5; of other neurons nothing is known but their rows."""
    z = 5.0 + 0.03354  # relu, so that f(z) = z; the activation is 5
    form = NeuronForm(nonlinearity="relu", gated=False)
    graph = responding({"gate:1/2@2": (z, {TEXAS: 7.0})}, neurons=form)
    full = predicted(graph, 0, SetTo(TEXAS, 0.0), order="full")
    assert full == pytest.approx([0.0, -5.0, -5.5])  # it is off
    first = predicted(graph, 0, SetTo(TEXAS, 0.0))
    assert first == pytest.approx([0.0, -7.0, -7.5])
