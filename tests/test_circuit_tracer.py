"""circuit-tracer's .pt file, which is a pickle, read without running what it holds."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
import torch

from circuits.graph_files.circuit_tracer_pt import open_circuit_tracer
from graphs import AttributionGraph, GraphFileError, compare, read_neuronpedia
from graphs.core.identity import same_dictionary
from graphs.formats.neuronpedia.names import CIRCUIT_TRACER_KIND, cantor
from tests.test_cli import assert_refused, run

TOKENS, LAYERS = 3, 2
ACTIVE = [[0, 1, 7], [0, 2, 9], [1, 1, 3], [1, 2, 8], [1, 2, 11]]  # layer, position, index
SELECTED = [0, 1, 3, 4]
EFFECTS = {  # target, source: rows of selected features, errors, tokens, targets
    (2, 0): 0.5,
    (3, 1): -0.25,
    (13, 2): 1.5,
    (14, 3): 2.0,
    (0, 11): 0.75,
    (13, 9): 0.125,
}


def read_circuit_tracer(*given: Any, **named: Any) -> AttributionGraph:
    """The graph in a file, without remarks."""
    return open_circuit_tracer(*given, **named).graph


@pytest.fixture
def theirs(monkeypatch) -> dict[str, type]:
    """Classes under circuit-tracer's names, which are gone when the file is read."""

    @dataclass
    class UnifiedConfig:
        n_layers: int
        d_vocab: int
        model_name: str
        original_architecture: str
        dtype: Any

    class LogitTarget(NamedTuple):
        token_str: str
        vocab_idx: int

    class Other:
        pass

    places = {
        "circuit_tracer.utils.tl_nnsight_mapping": UnifiedConfig,
        "circuit_tracer.attribution.targets": LogitTarget,
        "circuit_tracer.other": Other,
    }
    for place, made in places.items():
        parts = place.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            monkeypatch.setitem(sys.modules, name, sys.modules.get(name, ModuleType(name)))
        made.__module__, made.__qualname__ = place, made.__name__
        setattr(sys.modules[place], made.__name__, made)
    return {made.__name__: made for made in places.values()}


def contents(theirs: dict[str, type], **changes: Any) -> dict[str, Any]:
    count = len(SELECTED) + LAYERS * TOKENS + TOKENS + 2
    adjacency = torch.zeros(count, count)
    for (target, source), weight in EFFECTS.items():
        adjacency[target, source] = weight
    return {
        "input_string": "hello a b",
        "adjacency_matrix": adjacency,
        "cfg": theirs["UnifiedConfig"](LAYERS, 50, "org/m", "Gemma2ForCausalLM", torch.float32),
        "active_features": torch.tensor(ACTIVE).T.contiguous().T,  # a view, as theirs is
        "logit_targets": [theirs["LogitTarget"](" x", 4), theirs["LogitTarget"]("x-y", 51)],
        "logit_probabilities": torch.tensor([0.75, 0.25]),
        "vocab_size": 50,
        "input_tokens": torch.tensor([2, 5, 6]),
        "selected_features": torch.tensor(SELECTED),
        "activation_values": torch.arange(5.0) + 0.5,
        "scan": "org/set",
        **changes,
    }


def saved(tmp_path: Path, file: Any) -> Path:
    path = tmp_path / "graph.pt"
    torch.save(file, path)
    return path


def test_a_graph_is_read_whole(tmp_path, theirs):
    path = saved(tmp_path, contents(theirs))
    for name in [name for name in sys.modules if name.startswith("circuit_tracer")]:
        del sys.modules[name]
    graph = read_circuit_tracer(path, spell={2: "<bos>", 5: " a", 6: " b", 4: " x"}.__getitem__)
    names = [str(node) for node in graph.nodes]
    theirs_in_order = [
        *("feature:0/7@1", "feature:0/9@2", "feature:1/8@2", "feature:1/11@2"),
        *(f"error:{layer}@{pos}" for layer in range(LAYERS) for pos in range(TOKENS)),
        *("token:2@0", "token:5@1", "token:6@2", "logit:4@2", "target:1@2"),
    ]
    assert sorted(names) == sorted(theirs_in_order)
    entries = graph.weights.tocoo()
    assert {
        (names[t], names[s]): w
        for t, s, w in zip(entries.row, entries.col, entries.data, strict=True)
    } == {(theirs_in_order[t], theirs_in_order[s]): w for (t, s), w in EFFECTS.items()}
    assert graph.nodes.activation[graph.find("feature:1/11@2")] == 4.5
    assert graph.seed[graph.target_rows()].tolist() == [0.75, 0.25]
    header = graph.provenance
    assert (header.model.name, header.model.architecture, header.model.n_layers) == (
        "org/m",
        "Gemma2ForCausalLM",
        2,
    )
    assert (header.dictionary.name, header.prompt) == ("org/set", "hello a b")
    assert (header.tokens, header.token_ids) == (("<bos>", " a", " b"), (2, 5, 6))
    assert [target.text for target in header.targets] == [" x", "x-y"]
    assert [target.token_id for target in header.targets] == [4, None]


def test_files_of_2025_hold_numbers_of_targets_and_every_feature(tmp_path, theirs):
    file = contents(theirs, logit_tokens=torch.tensor([4, 9]), scan=["a", "b"])
    file["active_features"] = file["active_features"][SELECTED]
    file["activation_values"] = file["activation_values"][SELECTED]
    for key in ("logit_targets", "selected_features", "vocab_size"):
        del file[key]
    graph = read_circuit_tracer(saved(tmp_path, file))
    assert [str(graph.nodes[int(row)]) for row in graph.target_rows()] == ["logit:4@2", "logit:9@2"]
    assert [target.text for target in graph.provenance.targets] == ["#4", "#9"]
    assert graph.provenance.tokens == ("#2", "#5", "#6")
    assert graph.provenance.dictionary.name == "a, b"


def test_the_weight_of_a_direction_is_no_probability(tmp_path, theirs):
    for weight, seed in ((1.75, 1.75), (-0.5, 0.5)):
        path = saved(tmp_path, contents(theirs, logit_probabilities=torch.tensor([0.75, weight])))
        graph = read_circuit_tracer(path)
        assert graph.seed[graph.target_rows()].tolist() == [0.75, seed]
        assert [t.probability for t in graph.provenance.targets] == [0.75, 1.0]
    shown = run("show", path)
    assert "1 of 2 weights are negative: their absolute values are used." in shown.stderr
    assert "Targets have weights instead of probabilities" in shown.stderr


def test_without_probabilities_all_targets_count_the_same(tmp_path, theirs):
    path = saved(tmp_path, contents(theirs, logit_probabilities=torch.zeros(2)))
    graph = read_circuit_tracer(path)
    assert graph.seed[graph.target_rows()].tolist() == [1.0, 1.0]
    assert graph.provenance.targets[0].probability is None
    shown = run("show", path)
    assert "No target has a probability or a weight: all get the same weight." in shown.stderr
    assert "feature:1/8@2" in shown.stdout


def test_a_probability_that_rounding_made_larger_than_one_is_one(tmp_path, theirs):
    file = contents(theirs, logit_probabilities=torch.tensor([1.0000001, 0.25]))
    assert read_circuit_tracer(saved(tmp_path, file)).provenance.targets[0].probability == 1.0


def test_the_dictionary_has_the_key_of_2026_or_that_of_2025(tmp_path, theirs):
    file = contents(theirs, scan_name="org/later")
    del file["scan"]
    assert read_circuit_tracer(saved(tmp_path, file)).provenance.dictionary.name == "org/later"


class _Runs:
    """A pickle that would run a program."""

    def __reduce__(self):
        return (print, ("ran",))


def test_what_is_more_than_numbers_is_not_opened(tmp_path, theirs, capsys):
    for intruder in (theirs["Other"](), _Runs()):
        path = saved(tmp_path, contents(theirs, scan=intruder))
        with pytest.raises(GraphFileError, match=r"since a pickle can execute any code"):
            read_circuit_tracer(path)
    assert capsys.readouterr().out == ""


DAMAGED = {
    "lacks 'input_tokens'": lambda file: file.pop("input_tokens"),
    "lacks 'logit_tokens'": lambda file: file.pop("logit_targets"),
    "must be 15 x 15 real numbers for its features, errors, tokens": lambda file: file.update(
        adjacency_matrix=file["adjacency_matrix"][:14].clone()
    ),
    "got 15 x 15 of torch.complex64": lambda file: file.update(
        adjacency_matrix=file["adjacency_matrix"].to(torch.complex64)
    ),
    "must be 3000000009 x 3000000009 real": lambda file: setattr(file["cfg"], "n_layers", 10**9),
    "larger than its data in the file": lambda file: file.update(
        adjacency_matrix=torch.zeros(1).expand(10**7, 10**7)
    ),
    "closes a cycle": lambda file: file["adjacency_matrix"].fill_diagonal_(1.0),
    "A weight is not finite": lambda file: file["adjacency_matrix"][13].__setitem__(2, torch.inf),
    "its position must be below 3": lambda file: file["active_features"][0, 1:2].add_(5),
    "probability: Input should be less than or equal to 1.": lambda file: file[
        "logit_probabilities"
    ].mul_(3),
    "input_tokens must be integers, got torch.float32": lambda file: file.update(
        input_tokens=torch.tensor([0.5, 1.0, 2.0])
    ),
    "active_features must be integers, got torch.float32": lambda file: file.update(
        active_features=file["active_features"].float()
    ),
    "config: its parts have unexpected types": lambda file: file.update(cfg=5),
    "infinite: its parts have unexpected types": lambda file: setattr(
        file["cfg"], "n_layers", float("inf")
    ),
    "text: its parts have unexpected types": lambda file: file.update(selected_features="x"),
}


@pytest.mark.parametrize("text", sorted(DAMAGED))
def test_a_damaged_graph_is_refused_with_one_sentence(tmp_path, theirs, text: str):
    file = contents(theirs)
    DAMAGED[text](file)
    with pytest.raises(GraphFileError) as caught:
        read_circuit_tracer(saved(tmp_path, file))
    sentence = str(caught.value)
    assert re.sub("^(config|infinite|text): ", "", text) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_weights_that_were_to_be_trained_are_read(tmp_path, theirs):
    file = contents(theirs)
    file["adjacency_matrix"].requires_grad_()
    assert read_circuit_tracer(saved(tmp_path, file)).weights.nnz == len(EFFECTS)


def test_parts_are_neither_packed_nor_longer_than_stored(tmp_path, theirs):
    path = saved(tmp_path, contents(theirs, scan="x" * 10**6))
    packed, short = tmp_path / "packed.pt", tmp_path / "short.pt"
    with ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(GraphFileError, match="has compressed parts, which torch does not write"):
        read_circuit_tracer(packed)
    with ZipFile(short, "w", ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content[:100] if name.endswith("data/0") else content)
    with pytest.raises(GraphFileError, match=r"larger than its data|is not a complete"):
        read_circuit_tracer(short)


def test_a_graph_that_is_named_as_safetensors_is_refused_with_the_name_it_needs(tmp_path, theirs):
    """torch opens what is called so as what it is called."""
    path = saved(tmp_path, contents(theirs))
    named = path.rename(tmp_path / "graph.safetensors")
    for command in ("show", "prune"):
        assert_refused(run(command, named), "named as safetensors: if it is a graph of circuit-tr")
    with ZipFile(tmp_path / "other.safetensors", "w", ZIP_STORED) as archive:
        archive.writestr("a.txt", "text")
    assert_refused(run("show", tmp_path / "other.safetensors"), "rename it to other.pt.")
    again = named.rename(tmp_path / "graph.pt")
    assert run("show", again).exit_code == 0


def test_a_pt_and_the_json_made_of_it_are_one_graph(tmp_path, theirs):
    """As circuit-tracer's create_graph_files writes it: scan, prompt and nodes by their numbers."""
    graph = read_circuit_tracer(saved(tmp_path, contents(theirs)), spell="t{}".format)
    kinds = {
        "feature": CIRCUIT_TRACER_KIND,
        "error": "mlp reconstruction error",
        "token": "embedding",
    }
    top = LAYERS + 1
    nodes = [
        {
            "node_id": f"{row}",
            "feature": n.index if n.kind.word != "feature" else cantor(n.layer or 0, n.index or 0),
            "layer": "E" if n.kind.word == "token" else str(top if n.layer is None else n.layer),
            "ctx_idx": n.pos,
            "feature_type": kinds.get(n.kind.word, "logit"),
            "token_prob": float(graph.seed[row]),
        }
        for row, n in enumerate(graph.nodes)
    ]
    for row, n in enumerate(graph.nodes):
        if n.kind.word in ("token", "logit"):
            first = "E" if n.kind.word == "token" else str(top)
            nodes[row]["node_id"] = f"{first}_{n.index}_{n.pos}"
    entries = graph.weights.tocoo()
    links = [
        {"source": nodes[s]["node_id"], "target": nodes[t]["node_id"], "weight": float(w)}
        for t, s, w in zip(entries.row, entries.col, entries.data, strict=True)
    ]
    metadata = {
        "slug": "a",
        "scan": "org/set",
        "transcoder_list": [],
        "prompt_tokens": list(graph.provenance.tokens),
        "prompt": "hello a b",
        "schema_version": 1,
    }
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps({"metadata": metadata, "qParams": {}, "nodes": nodes, "links": links})
    )
    found = compare(graph, read_neuronpedia(path).graph, permutations=0)
    assert same_dictionary(graph, read_neuronpedia(path).graph)
    assert found.features.value == pytest.approx(1.0)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q", b"x" * 100])
def test_what_is_no_pt_file_is_refused(tmp_path, content: bytes):
    path = tmp_path / "graph.pt"
    path.write_bytes(content)
    with pytest.raises(GraphFileError, match=r"graph.pt (is not a complete|contains more than)"):
        read_circuit_tracer(path)


def test_a_list_is_no_graph(tmp_path):
    with pytest.raises(GraphFileError, match="expected a dictionary, got list"):
        read_circuit_tracer(saved(tmp_path, [1, 2]))
