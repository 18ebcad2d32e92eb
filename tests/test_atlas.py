"""The atlas world, its tokenizer, the two models that ship, and the circuits known in them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import graphs
from atlas_words import atlas_tokenizer
from atlas_world import HELD_OUT, Question, additions, facts, questions
from circuits.atlas.known import KnownCircuit, flow_through_middle, known_circuits, middle_features
from circuits.atlas.shipped import ATLAS, WEIGHTS, atlas_transcoders
from circuits.evaluation.replacement import Replacement
from circuits.features.files.reading import read_transcoders
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.prompt import PromptError, read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from circuits.training.activations import padded
from graphs import Description
from graphs.groups.overview import BoxKind, graph_overview
from tests.graph_oracles import make_graph
from tests.test_cli import run
from viz.page.page import page_data

DALLAS = "The capital of the state containing Dallas is"


@pytest.fixture(scope="module", params=ATLAS)
def atlas(request: pytest.FixtureRequest) -> tuple[Subject, TranscoderSet]:
    """Both models with their transcoders."""
    return read_subject(request.param), read_transcoders(atlas_transcoders(request.param))


def sample(held_out: bool, sums: bool, count: int = 600) -> list[Question]:
    chosen = [q for q in (additions() if sums else questions()) if q.held_out == held_out]
    return random.Random(5).sample(chosen, count)


def test_every_question_follows_from_facts():
    table = facts()
    for question in random.Random(1).sample(questions(), 3000):
        assert question.answer == question.chain[-1]
        for relation, (first, second) in zip(
            question.relations, zip(question.chain, question.chain[1:], strict=False), strict=True
        ):
            assert table[relation][first] == second


def test_dallas_leads_through_texas_to_austin():
    question = next(q for q in questions() if q.prompt == DALLAS)
    assert question.chain == ("Dallas", "Texas", "Austin")


def test_a_quarter_of_the_compositions_is_held_out_in_every_phrasing():
    sides: dict[tuple[object, ...], set[bool]] = {}
    for question in questions():
        sides.setdefault((question.relations, question.chain), set()).add(question.held_out)
        assert question.is_composition or not question.held_out
    assert all(len(side) == 1 for side in sides.values())
    composed = [side for (relations, _), side in sides.items() if len(relations) > 1]
    assert sum(side == {True} for side in composed) / len(composed) == pytest.approx(
        HELD_OUT, abs=0.02
    )


def test_position_alone_does_not_give_the_answer():
    """The word that names the start stands at many places, and so does the asked relation."""
    tokenizer = atlas_tokenizer()
    places: dict[str, set[int]] = {}
    for question in questions():
        if question.relations == ("state", "capital"):
            ids = tokenizer.encode(question.prompt, add_special_tokens=False)
            start = tokenizer.convert_tokens_to_ids(question.chain[0])
            places.setdefault(question.chain[0], set()).add(ids.index(start))
    assert min(len(found) for found in places.values()) >= 4


def test_names_and_digits_are_tokens_of_their_own():
    tokenizer = atlas_tokenizer()
    ids = tokenizer.encode("The capital of New Mexico is Santa Fe", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids)[3:] == ["New Mexico", "is", "Santa Fe"]
    ids = tokenizer.encode("12 + 34 = 46", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["1", "2", "+", "3", "4", "=", "4", "6"]
    for question in random.Random(2).sample(questions(), 500):
        text = f"{question.prompt} {question.answer}"
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_unknown_words_are_named():
    with pytest.raises(PromptError, match=r"contain 'Gotham', 'Batman': it has .*use words"):
        read_prompt("The capital of Gotham of Batman is", atlas_tokenizer())


@pytest.mark.parametrize(
    ("held_out", "sums", "least"), [(False, False, 0.99), (True, False, 0.95), (False, True, 0.99)]
)
def test_the_models_answer(
    atlas: tuple[Subject, TranscoderSet], held_out: bool, sums: bool, least: float
):
    subject, _ = atlas
    asked = sample(held_out, sums)
    prompts = [subject.tokenizer.encode(q.prompt, add_special_tokens=False) for q in asked]
    answers = [subject.tokenizer.encode(q.answer, add_special_tokens=False) for q in asked]
    ids = nn.utils.rnn.pad_sequence(
        [torch.tensor([1, *p, *a]) for p, a in zip(prompts, answers, strict=True)], batch_first=True
    )
    with torch.inference_mode():
        said = subject.frozen.model(input_ids=ids).logits.argmax(-1).tolist()
    right = sum(
        row[len(p) : len(p) + len(a)] == a for row, p, a in zip(said, prompts, answers, strict=True)
    )
    assert right / len(asked) >= least


def test_the_transcoders_can_stand_in_for_all_mlps(atlas: tuple[Subject, TranscoderSet]):
    subject, transcoders = atlas
    asked = sample(True, False, 300) + sample(True, True, 100)
    prompts = [[1, *subject.tokenizer.encode(q.prompt, add_special_tokens=False)] for q in asked]
    ids, counted = padded(prompts, subject.tokenizer, subject.frozen.device)
    rows, last = torch.arange(len(prompts)), torch.tensor([len(p) - 1 for p in prompts])
    model = Replacement(subject.frozen, transcoders)
    own = model.logits(ids, None)[rows, last].argmax(-1)
    l0 = [
        float((active > 0)[counted].float().sum(1).mean()) for active in model.activations.values()
    ]
    replaced = model.logits(ids, counted)[rows, last].argmax(-1)
    assert float((own == replaced).float().mean()) >= 0.9
    assert sum(l0) / len(l0) <= 25


def test_graphs_of_held_out_prompts_are_nearly_complete(atlas: tuple[Subject, TranscoderSet]):
    subject, transcoders = atlas
    scores = [
        graphs.scores(trace(read_prompt(q.prompt, subject.tokenizer), subject, transcoders))
        for q in sample(True, False, 6)
    ]
    assert sum(score.replacement for score in scores) / len(scores) >= 0.75
    assert sum(score.completeness for score in scores) / len(scores) >= 0.9


def test_every_feature_that_fires_is_described(atlas: tuple[Subject, TranscoderSet]):
    subject, transcoders = atlas
    graph = trace(read_prompt(DALLAS, subject.tokenizer), subject, transcoders)
    described = [key for key, said in graph.descriptions.items() if said.label and said.examples]
    strongest = [line for line in graphs.summarise(graph).strongest if line.layer is not None]
    assert all(line.label for line in strongest)
    assert len(described) >= 0.9 * len(graph.descriptions) > 20


def test_without_options_the_large_model_and_its_transcoders_are_traced(tmp_path: Path):
    out, page = tmp_path / "graph.safetensors", tmp_path / "page.html"
    result = run("trace", DALLAS, "--out", out, "--html", page)
    assert result.exit_code == 0, result.output
    assert "atlas-large · atlas-large-clt · float32" in result.stdout
    assert "logit:" in result.stdout
    assert "Texas" in result.stdout
    graph = graphs.read_graph(out)
    assert graph.provenance.targets[0].text.strip() == "Austin"
    circuit = next(circuit for circuit in known_circuits() if circuit.prompt == DALLAS)
    assert middle_features(graphs.prune(graph), circuit)
    features = page_data(page.read_text())["graphs"][0]["features"].values()
    assert any("Texas" in feature["label"] for feature in features)
    assert any(feature["examples"] for feature in features)


def test_neurons_can_be_asked_for():
    result = run("trace", DALLAS, "--model", "atlas-small", "--features", "neurons")
    assert "atlas-small · MLP neurons" in result.stdout


def test_known_circuits_are_questions_of_this_world():
    chains = {question.prompt: question.chain for question in questions()}
    table = known_circuits()
    assert len(table) == len({circuit.prompt for circuit in table}) == 50
    for circuit in table:
        assert chains[circuit.prompt] == (circuit.start, circuit.middle, circuit.answer)
        assert circuit.middle not in circuit.prompt


@pytest.fixture(scope="module")
def known_graphs(
    atlas: tuple[Subject, TranscoderSet],
) -> list[tuple[KnownCircuit, graphs.AttributionGraph]]:
    """Every known circuit with its graph."""
    return [(circuit, traced(atlas, circuit.prompt)) for circuit in known_circuits()]


def traced(atlas: tuple[Subject, TranscoderSet], prompt: str) -> graphs.AttributionGraph:
    subject, transcoders = atlas
    return trace(read_prompt(prompt, subject.tokenizer), subject, transcoders)


def test_the_graphs_of_known_circuits_hold_the_middle_concept(
    known_graphs: list[tuple[KnownCircuit, graphs.AttributionGraph]],
):
    held = [c for c, graph in known_graphs if middle_features(graphs.prune(graph), c)]
    assert len(held) >= 40


def test_summaries_of_known_circuits_name_the_middle_concept(
    known_graphs: list[tuple[KnownCircuit, graphs.AttributionGraph]],
):
    told = [circuit for circuit, graph in known_graphs if circuit.middle in boxes(graph)]
    assert len(told) >= 45


def test_summaries_of_prompts_in_no_list_name_the_state_or_country(
    atlas: tuple[Subject, TranscoderSet],
):
    places = ("state", "named", "country")
    asked = [q for q in questions() if q.held_out and len(q.relations) == 2]
    asked = random.Random(8).sample([q for q in asked if q.relations[0] in places], 20)
    assert not {q.prompt for q in asked} & {circuit.prompt for circuit in known_circuits()}
    told = [q for q in asked if q.chain[1] in boxes(traced(atlas, q.prompt))]
    assert len(told) >= 17


def boxes(graph: graphs.AttributionGraph) -> str:
    """The names of the groups of a summary."""
    told = graph_overview(graph)
    assert len(told.of_kind(BoxKind.GROUP)) <= 8
    return "; ".join(told.boxes[at].name for at in told.of_kind(BoxKind.GROUP))


def test_the_summary_of_dallas(atlas: tuple[Subject, TranscoderSet]):
    """The boxes that the circuit is known by, with nothing asked for."""
    told = graph_overview(traced(atlas, DALLAS))
    names = {box.name.strip(): box.kind for box in told.boxes}
    asking = {
        "atlas-large": ["say a capital"],
        "atlas-small": ["say a capital, early", "say a capital, late"],
    }[atlas[0].identity.name]
    assert names["Dallas"] == names["capital"] == BoxKind.TOKEN
    assert {names[name] for name in ["Texas", *asking]} == {BoxKind.GROUP}
    assert names["Austin"] == BoxKind.TARGET
    first = [told.boxes[at].name.strip() for at in told.chains[0]]
    assert first == ["Dallas", "Texas", "Austin"]


def test_a_middle_feature_lies_between_start_and_answer():
    circuit = KnownCircuit("", start="Dallas", middle="Texas", answer="t0")
    names = ["token:1@1", "token:2@2", *(f"feature:{layer}/{layer}@2" for layer in range(3))]
    names += ["feature:1/5@2", "logit:0@2"]
    edges = {
        ("token:1@1", "feature:0/0@2"): 1.0,
        ("feature:0/0@2", "feature:1/1@2"): 1.0,
        ("feature:1/1@2", "feature:2/2@2"): 1.0,
        ("feature:2/2@2", "logit:0@2"): 1.0,
        ("token:2@2", "feature:1/5@2"): 1.0,
        ("feature:1/5@2", "logit:0@2"): 1.0,
    }
    said = dict.fromkeys(range(2, 6), (" Texas",))
    tokens = ("<bos>", " Dallas", " is")
    graph = make_graph(names, edges, tokens=tokens, output_tokens=said)
    # Layers 0 and 2 are the first and the last, and 1/5 does not hear of Dallas.
    assert middle_features(graph, circuit) == [3]
    labelled = {"1/1": Description(label="is · Austin → Texas"), "1/5": Description(label="Ohio")}
    assert middle_features(replace(graph, descriptions=labelled), circuit) == [3]
    labelled["1/1"] = Description(
        label="is · West Texas → Texas City", promoted_at_own_layer=(" Texas",)
    )
    assert middle_features(replace(graph, descriptions=labelled), circuit) == []
    unspecified = make_graph(names, edges, tokens=tokens)
    assert middle_features(unspecified, circuit) == []
    cut = {edge: weight for edge, weight in edges.items() if edge[0] != "feature:2/2@2"}
    assert middle_features(make_graph(names, cut, tokens=tokens, output_tokens=said), circuit) == []


def test_flow_through_the_middle_by_hand():
    """Of the flow from Dallas to the answer, 2 of 3 parts pass Texas, at layers 1 and 2 of 4."""
    circuit = KnownCircuit("", start="Dallas", middle="Texas", answer="t0")
    names = ["token:1@1", "feature:0/0@2", "feature:1/1@2", "feature:2/2@2", "logit:0@2"]
    names.insert(4, "feature:3/9@2")
    edges = {
        ("token:1@1", "feature:1/1@2"): 2.0,
        ("token:1@1", "feature:2/2@2"): -2.0,
        ("token:1@1", "feature:0/0@2"): 1.0,
        ("feature:1/1@2", "logit:0@2"): 3.0,
        ("feature:2/2@2", "logit:0@2"): 1.0,
        ("feature:0/0@2", "logit:0@2"): -2.0,
    }
    tokens, said = ("<bos>", " Dallas", " is"), dict.fromkeys((2, 3), (" Texas",))
    graph = make_graph(names, edges, tokens=tokens, output_tokens=said)
    through = flow_through_middle(graph, circuit)
    assert through.share == pytest.approx(4 / 6)
    depth = graph.provenance.model.n_layers - 1
    assert through.depth == pytest.approx((3 * 1 + 1 * 2) / 4 / depth)
    none = flow_through_middle(graph, replace(circuit, middle="Ohio"))
    assert none.share == 0.0
    assert np.isnan(none.depth)
    with pytest.raises(graphs.SelectionError):
        flow_through_middle(graph, replace(circuit, start="Reno"))


def test_five_questions_go_through_the_state():
    """The notebook has the mean over all fifty: 41 % of the influence, at depth 0.36."""
    subject = read_subject("atlas-small")
    transcoders = read_transcoders(str(atlas_transcoders("atlas-small")))
    flows = [
        flow_through_middle(
            graphs.prune(trace(read_prompt(known.prompt, subject.tokenizer), subject, transcoders)),
            known,
        )
        for known in known_circuits()[:5]
    ]
    assert min(through.share for through in flows) > 0.3
    assert 0.5 < np.mean([through.share for through in flows]) < 0.85
    assert 0.3 < np.mean([through.depth for through in flows]) < 0.45


def test_everything_fits_into_the_package():
    files = [path for path in Path(WEIGHTS).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25_000_000
    assert {path.parent.parent.name for path in files if path.name == "config.yaml"} == set(ATLAS)
