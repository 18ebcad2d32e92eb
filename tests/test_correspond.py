"""Two models side by side: what is matched, and what chance would match."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from graphs.analysis.influence import influence_shares
from graphs.comparison.concepts import concepts, path_overlap
from graphs.comparison.correspond import CorrespondSettings, correspond
from graphs.comparison.evidence import Weights, evidence, similarity
from graphs.comparison.matching import match_by_identity
from graphs.comparison.positions import align_prompts
from graphs.comparison.profiles import Profile, Profiled
from graphs.comparison.transport import transport
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import Description, NodeKind
from tests.graph_oracles import make_graph

WORDS = [f"w{i}" for i in range(60)]


def circuit(n_layers: int, mixed: np.ndarray, seed: int = 0, width: int = 8) -> AttributionGraph:
    """Layers of features that raise a token each; `mixed` gives them other numbers.

    The circuit of other depth has the same features, spread over its layers.
    """
    rng = np.random.default_rng(seed)
    depth = [round(step * (n_layers - 1) / 3) for step in range(4)]
    names = [f"token:{p}@{p}" for p in range(3)]
    features = [
        f"feature:{depth[step]}/{mixed[step * width + i]}@2"
        for step in range(4)
        for i in range(width)
    ]
    names += [*features, "logit:1@2"]
    edges = {
        (names[s], names[t]): float(rng.standard_normal())
        for t in range(3, len(names))
        for s in range(t)
        if rng.random() < 0.4 and (s < 3 or (t - 3) // width > (s - 3) // width)
    }
    tokens = {3 + i: (f" {WORDS[i]}", " the") for i in range(4 * width)}
    graph = make_graph(names, edges, output_tokens=tokens)
    model = graph.provenance.model.model_copy(update={"n_layers": n_layers})
    return replace(graph, provenance=graph.provenance.model_copy(update={"model": model}))


NUMBERS = np.arange(32)
SHUFFLED = np.random.default_rng(7).permutation(1000)[:32]


def all_scores(found) -> dict[str, object]:
    compared = found.comparison
    return {
        "matched": found.matched,
        "alike": found.matched_weighted,
        "features": compared.features,
        "edges": compared.edges,
        "ranks": compared.ranks,
    }


def test_a_model_against_itself_scores_one():
    graph = circuit(4, NUMBERS)
    found = correspond(graph, graph)
    for name, score in all_scores(found).items():
        assert score.value == pytest.approx(1.0), name
        assert score.value > score.null[-1] or name == "matched", name
    assert np.array_equal(found.pairs[:, 0], found.pairs[:, 1])
    assert found.shift == 0.0


def test_a_deeper_model_with_other_numbers_is_found_again():
    first, second = circuit(4, NUMBERS), circuit(10, SHUFFLED)
    found = correspond(first, second)
    assert found.matched_weighted.value > 0.95
    assert found.comparison.edges.value == pytest.approx(1.0)
    assert len(found.pairs) == 32
    assert np.array_equal(found.pairs[:, 0], found.pairs[:, 1])
    assert found.comparison.edges.p_value < 0.05
    np.testing.assert_allclose(found.depth[:, 0], found.depth[:, 1], atol=0.06)
    curve = found.shift_curve(4)
    np.testing.assert_allclose(curve[:, 0], [0, 1 / 3, 2 / 3, 1], atol=1e-9)
    assert len(found.shift_curve(1)) == 1
    assert curve[:, 2].sum() == pytest.approx(found.influence().mean(axis=1).sum())


def test_unlike_circuits_are_near_their_null():
    first = circuit(4, NUMBERS)
    second = circuit(4, NUMBERS, seed=5)  # other edges
    rng = np.random.default_rng(2)
    mixed = rng.permutation(32)
    tokens = {3 + i: (f" {WORDS[mixed[i]]}", " the") for i in range(32)}
    found = correspond(first, replace(second, output_tokens=tokens))
    for name in ("features", "edges", "ranks"):
        score = all_scores(found)[name]
        assert score.null[0] <= score.value <= score.null[-1], name


def test_kinds_of_evidence_by_hand():
    names = ["token:0@0", "feature:0/1@0", "feature:1/2@1", "logit:1@1"]
    first = make_graph(names, {}, tokens=("a", "b"), output_tokens={1: (" Cat", " dog"), 2: ()})
    second = make_graph(names, {}, tokens=("a", "b"), output_tokens={1: ("cat",), 2: (" dog",)})
    said = {"0/1": Description(label="say cat"), "1/2": Description(label="")}
    first, second = replace(first, descriptions=said), replace(second, descriptions=said)
    found = {kind.name: kind for kind in evidence(first, second, np.array([0, 1]), Weights())}
    assert set(found) == {"outputs", "labels", "position", "depth"}
    length = np.sqrt(1 + 1 / 4)
    np.testing.assert_allclose(found["outputs"].similarity, [[1 / length, 0.5 / length], [0, 0]])
    assert found["outputs"].known.tolist() == [[True, True], [False, False]]
    assert found["labels"].similarity.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert found["labels"].known.tolist() == [[True, False], [False, False]]
    np.testing.assert_allclose(found["position"].similarity, [[1, 0.5], [0.5, 1]])
    assert found["depth"].similarity.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    mean = similarity(list(found.values()), (2, 2))
    assert mean[0, 0] == pytest.approx((0.3 / length + 0.2 + 0.1 + 0.1) / 0.7)
    assert mean[1, 1] == 0.0  # of which only the place is known
    left = evidence(first, second, np.array([0, -1]), Weights(depth=0.0, labels=0.0))
    assert [kind.name for kind in left] == ["outputs", "position"]
    assert left[1].known.tolist() == [[True, True], [False, False]]


def test_profiles_tell_features_apart_that_say_nothing():
    graph = circuit(4, NUMBERS)
    silent = replace(graph, output_tokens={})
    rows = graph.nodes.is_kind(NodeKind.FEATURE)
    rng = np.random.default_rng(3)
    profile = Profile(
        model="m",
        dictionary="d",
        prompts=(
            Profiled(text="abc", tokens=tuple("abc")),
            Profiled(text="d" * 9, tokens=("d",) * 9),
        ),
        layer=graph.nodes.layer[rows],
        index=graph.nodes.index[rows],
        activation=csr_array(rng.random((32, 12))),
        promoted=((),) * 32,
    )
    assert correspond(silent, silent).matched.value == 0.0
    found = correspond(silent, silent, profiles=(profile, profile))
    assert found.matched_weighted.value == pytest.approx(1.0)
    assert {kind.name for kind in found.evidence} == {"activations", "position", "depth"}


def test_plans_move_influence_to_what_is_alike():
    graph = circuit(4, NUMBERS)
    found = correspond(graph, circuit(10, SHUFFLED), CorrespondSettings(permutations=6, plans=4))
    assert found.transported is not None
    mass, agreement = found.transported
    assert mass.value > 0.95
    assert agreement.value > 0.9
    assert len(agreement.null) == 4
    assert agreement.value > agreement.null[-1] + 0.2


def test_a_plan_that_cannot_be_found_is_not_known():
    """Where nothing is alike the numbers of a plan underflow: POT divides by zero, and warns."""
    graph = circuit(4, NUMBERS)
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    nothing = np.full((len(rows), len(rows)), -10.0)
    found = transport(graph, graph, (rows, rows), nothing)
    assert math.isnan(found.mass)
    assert math.isnan(found.agreement(np.array([[0, 0]])))
    alike = transport(graph, graph, (rows, rows), np.eye(len(rows)))
    assert alike.mass > 0.95


def test_concepts_and_paths_of_groups():
    first, second = circuit(4, NUMBERS), circuit(10, SHUFFLED)
    found = correspond(first, second, CorrespondSettings(permutations=5))
    groups = (
        {"low": np.arange(3, 11), "high": np.arange(27, 35)},
        {"upper": np.arange(27, 35), "lower": np.arange(3, 11), "alone": np.arange(11, 13)},
    )
    match = found.comparison.match
    listed = concepts(first, second, match, groups)
    named = [
        (c.first and c.first.name, c.second and c.second.name, c.first and c.first.features)
        for c in listed
    ]
    assert sorted(named, key=str) == [
        ("high", "upper", 8),
        ("low", "lower", 8),
        (None, "alone", None),
    ]
    high = next(concept for concept in listed if concept.first and concept.first.name == "high")
    assert high.first is not None
    assert high.first.depth == pytest.approx(1.0)
    same = path_overlap(
        first,
        first,
        match_by_identity(first, first, align_prompts(first.provenance, first.provenance)),
        (),
        (groups[0], groups[0]),
    )
    assert same.value == pytest.approx(1.0)
    across = path_overlap(first, second, match, found.null_matches, (groups[0], groups[1]))
    assert across.value > across.null[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_similarity": 1.0}, "min_similarity must be at least 0 and below 1"),
        ({"permutations": -1}, "must not be negative"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        CorrespondSettings(**settings)
    with pytest.raises(ValueError, match="weight of labels must be finite and not negative"):
        Weights(labels=-1.0)


def test_a_graph_without_features_matches_nothing():
    empty = make_graph(["token:0@0", "logit:1@0"], {("token:0@0", "logit:1@0"): 1.0}, tokens=("a",))
    found = correspond(empty, empty, CorrespondSettings(permutations=2, plans=1))
    assert len(found.pairs) == 0
    assert found.matched.value == 0.0
    assert found.comparison.edges.value == 1.0
    assert found.transported is not None
    assert found.transported[0].value == 0.0


def test_errors_are_not_compared():
    names = ["token:0@0", "feature:0/1@0", "error:1@0", "logit:1@0"]
    edges = {(names[0], names[1]): 1.0, (names[1], names[3]): 1.0, (names[2], names[3]): 2.0}
    graph = make_graph(names, edges, tokens=("a",), output_tokens={1: (" x",)})
    found = correspond(graph, graph, CorrespondSettings(permutations=0))
    assert found.comparison.edges.value == pytest.approx(1.0)


def test_a_graph_knows_better_than_a_profile_what_a_feature_raises():
    names = ["feature:0/1@0", "logit:1@0"]
    first, second = (
        make_graph(names, {(names[0], names[1]): 1.0}, tokens=("a",), output_tokens=said)
        for said in ({0: (" up",)}, {})
    )
    profile = Profile(
        model="m",
        dictionary="d",
        prompts=(Profiled(text="a", tokens=("a",)),),
        layer=np.array([0]),
        index=np.array([1]),
        activation=csr_array(np.ones((1, 1))),
        promoted=((" down",),),
    )
    positions = np.array([0])
    found = evidence(first, second, positions, Weights(), (profile, profile))
    assert found[0].name == "outputs"
    assert found[0].similarity.tolist() == [[0.0]]  # up of the graph, down of the profile
    found = evidence(second, second, positions, Weights(), (profile, profile))
    assert found[0].similarity.tolist() == [[1.0]]


def test_concepts_share_the_influence_of_their_matched_features():
    graph = circuit(4, NUMBERS)
    positions = align_prompts(graph.provenance, graph.provenance)
    match = match_by_identity(graph, graph, positions)
    shares = influence_shares(graph)
    groups = ({"a": np.arange(3, 11)}, {"b": np.arange(3, 7), "c": np.arange(7, 11)})
    listed = concepts(graph, graph, match, groups)
    whole = max(shares[3:7].sum(), shares[7:11].sum())
    assert [c.shared for c in listed if c.first is not None] == [pytest.approx(float(whole))]


def test_predictions_of_two_vocabularies_match_without_blanks():
    names = ["token:0@0", "feature:0/1@0", "logit:1@0", "logit:2@0"]
    first, second = (
        make_graph(names, {}, chances, tokens=("a",)) for chances in ([0.9, 0.1], [0.2, 0.8])
    )

    def saying(graph: AttributionGraph, *texts: str) -> AttributionGraph:
        targets = tuple(
            target.model_copy(update={"text": text})
            for target, text in zip(graph.provenance.targets, texts, strict=True)
        )
        header = graph.provenance.model_copy(update={"targets": targets})
        return replace(graph, provenance=header)

    one, other = saying(first, " Paris", " Lyon"), saying(second, "Paris", "Rome")
    found = correspond(one, other, CorrespondSettings(permutations=0)).comparison.match
    pairs = dict(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert pairs == {0: 0, 2: 2, 3: 3}
