"""Graphs from and to other programs: what each file can hold, its size, and the commands."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from scipy.sparse import csr_array

import graphs
from graphs.core.annotations import Annotations, Group
from graphs.core.identity import same_dictionary
from graphs.core.nodes import Description, Example
from graphs.core.provenance import NEURONS
from graphs.formats.neuronpedia.writer import SMALLEST_UPLOAD, Upload, upload_problems
from tests.graph_oracles import make_graph, make_table, random_graphs
from tests.same_graph import assert_same_graph
from tests.test_cli import assert_refused, run
from tests.test_neuronpedia import GRAPH, SCHEMA
from tests.test_neuronpedia_reader import anthropic_file, circuit_tracer_file
from viz.page.page import page_data

DESCRIBED = replace(
    GRAPH,
    descriptions={
        "0/3": Description(
            label="Paris", examples=(Example(tokens=("a", "b"), activations=(0.0, 1.5)),)
        )
    },
)
# What a file of another program cannot say: what a graph comes back with that lost our key.
LOST = {
    "value": str([float("nan")] * 8),
    "dropped": [0.0] * 8,
    "dropped_absolute": [0.0] * 8,
    "expanded": [False] * 3 + [True, False] + [True] * 3,  # features and targets
    "output_tokens": {},  # they are the label
    "model.revision": None,
    "model.architecture": "unknown",
    "dictionary.kind": "cross layer transcoder",
    "dictionary.revision": None,  # in the name
    "dtype": "unknown",
    "context_only": 0,
    "checks": graphs.Checks().model_dump(),
}


def write(folder: Path, content: dict[str, Any] | graphs.AttributionGraph) -> Path:
    if isinstance(content, dict):
        path = folder / "graph.json"
        path.write_text(json.dumps(content))
        return path
    path = folder / "graph.safetensors"
    graphs.write_graph(content, path)
    return path


def without_our_key(graph: graphs.AttributionGraph, folder: Path) -> graphs.AttributionGraph:
    file = graphs.to_neuronpedia(graph, Upload("demo"))
    del file["headwater"]
    return graphs.read_neuronpedia(write(folder, file)).graph


def test_neuronpedia_json_holds_everything_under_our_key(tmp_path):
    path = tmp_path / "a.json"
    graphs.write_neuronpedia(DESCRIBED, path, Upload("demo"))
    back = graphs.read_neuronpedia(path).graph
    assert_same_graph(back, DESCRIBED, dtypes=False)
    assert back.descriptions == DESCRIBED.descriptions


@given(random_graphs())
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_neuronpedia_json_holds_comes_back_without_our_key(tmp_path, graph):
    back = without_our_key(graph, tmp_path)
    assert list(back.nodes) == list(graph.nodes)
    np.testing.assert_array_equal(back.weights.toarray(), graph.weights.toarray())
    np.testing.assert_array_equal(back.seed, graph.seed)
    np.testing.assert_array_equal(back.nodes.activation, graph.nodes.activation)
    kept = ("prompt", "tokens")
    for name in kept:
        assert getattr(back.provenance, name) == getattr(graph.provenance, name)
    assert [t.text for t in back.provenance.targets] == [t.text for t in graph.provenance.targets]
    assert back.provenance.model.n_layers == graph.provenance.model.n_layers
    again = without_our_key(back, tmp_path)  # what is left is left for good
    assert_same_graph(replace(again, provenance=back.provenance), back, dtypes=False)


def test_what_neuronpedia_json_cannot_hold_without_our_key(tmp_path):
    """Exactly the fields of LOST are other than they were."""
    header = GRAPH.provenance.model_copy(
        update={"n_prefix": 1, "checks": graphs.Checks(conservation_max=1e-7)}
    )
    table = make_table([str(node) for node in GRAPH.nodes], value=np.arange(8.0))
    graph = replace(
        GRAPH,
        nodes=table,
        dropped=np.full(8, 0.5),
        dropped_absolute=np.full(8, 0.5),
        expanded=np.arange(8) == 7,
        provenance=header.model_copy(
            update={"model": header.model.model_copy(update={"revision": "r"})}
        ),
    )
    back = without_our_key(graph, tmp_path)

    def fields(one: graphs.AttributionGraph) -> dict[str, Any]:
        about = one.provenance.model_dump(mode="json", exclude={"settings"})
        nested = {
            f"{part}.{name}": value
            for part in ("model", "dictionary")
            for name, value in about.pop(part).items()
        }
        arrays = {
            name: getattr(one, name).tolist()
            for name in ("seed", "dropped", "dropped_absolute", "expanded")
        }
        columns = {name: str(column.tolist()) for name, column in one.nodes.columns().items()}
        weights = one.weights.toarray().tolist()
        tokens = {"output_tokens": dict(one.output_tokens), "weights": weights}
        return about | nested | arrays | columns | tokens

    before, after = fields(graph), fields(back)
    differ = {name for name in before if before[name] != after[name]}
    named_otherwise = {"model.name", "dictionary.name", "token_ids", "targets"}
    assert differ - named_otherwise == LOST.keys()
    assert {name: after[name] for name in LOST} == LOST
    assert back.label(3) == "say Paris, é"
    assert after["model.name"] == "tiny-model"  # as Neuronpedia allows it
    assert after["token_ids"] == [4, -1, -1]  # of tokens that are no nodes


def chain(edges: int) -> graphs.AttributionGraph:
    """A graph of about so many edges, from 400 nodes to 400 others."""
    names = [f"feature:{layer}/{i}@1" for layer in (0, 1) for i in range(400)]
    generator = np.random.default_rng(0)
    dense = np.zeros((802, 802))
    dense[401:801, 1:401] = generator.standard_normal((400, 400)) ** 5
    dense[1:401, 0], dense[801, 401:801] = 1.0, generator.random(400)
    dense[401:801, 1:401][generator.random((400, 400)) > edges / 160_000] = 0.0
    graph = make_graph(["token:1@0", *names, "logit:1@2"], {})
    return replace(graph, weights=csr_array(np.tril(dense, -1)))


def test_an_export_is_bounded_and_says_what_it_hides(tmp_path):
    graph = chain(40_000)
    path = tmp_path / "a.json"
    assert len(graphs.write_neuronpedia(graph, path, Upload("demo"))) == len(graph)
    whole = path.stat().st_size
    sizes: list[int] = []
    for largest in (whole // 2, whole // 4, 100_000):
        part = graphs.write_neuronpedia(graph, path, Upload("demo"), largest=largest)
        sizes.append(path.stat().st_size)
        assert 0.75 * largest < sizes[-1] <= largest
        file = json.loads(path.read_text())
        jsonschema.validate(file, SCHEMA)
        assert len(file["links"]) == part.weights.nnz < graph.weights.nnz
        told = file["metadata"]["pruning_settings"]
        assert told["hidden_nodes"] == len(graph) - len(part)
        assert told["hidden_edges"] == graph.weights.nnz - part.weights.nnz
        assert 0 < told["node_threshold"] == told["edge_threshold"] < 1
        by_hand = graphs.prune(
            graph, graphs.PruneSettings(told["node_threshold"], told["edge_threshold"])
        )
        assert_same_graph(by_hand, part)
    assert sizes == sorted(sizes, reverse=True)


def test_what_cannot_be_made_small_enough_is_refused(tmp_path):
    with pytest.raises(
        graphs.GraphFileError, match=r"tokens and predictions alone take \d,\d+ byt"
    ):
        graphs.write_neuronpedia(GRAPH, tmp_path / "a.json", Upload("demo"), largest=1500)
    assert not list(tmp_path.iterdir())


def test_problems_of_uploads_to_neuronpedia_are_reported(tmp_path):
    path = tmp_path / "a.json"
    graphs.write_neuronpedia(GRAPH, path, Upload("demo"))
    assert upload_problems(GRAPH, path) == []
    flat = make_graph(["token:1@0", "feature:0/1@1", "logit:1@2"], {})
    assert upload_problems(flat, path) == [
        "Neuronpedia's page cannot show a graph whose nodes are all in layer 0."
    ]
    path.write_bytes(b"x" * (SMALLEST_UPLOAD - 1))
    assert upload_problems(GRAPH, path)[0].startswith(
        "Neuronpedia does not accept files of less than"
    )


READERS = {
    "neuronpedia": lambda path: len(graphs.read_neuronpedia(path).graph),
    "node-link": lambda path: len(json.loads(path.read_text())["nodes"]),
    "graphml": lambda path: len(nx.read_graphml(path)),
    "gexf": lambda path: len(nx.read_gexf(path)),
    "dot": lambda path: path.read_text().count("tooltip="),
}


@pytest.mark.parametrize("form", READERS)
def test_notes_beside_a_graph_go_into_every_export(tmp_path, form: str):
    path = write(tmp_path, GRAPH)
    notes = Annotations(
        labels={"0/3": "the capital"},
        groups=(Group(name="ends", members=("logit:7@1", "logit:9@1")),),
    )
    graphs.write_annotations(notes, graphs.annotations_path(path))
    out = tmp_path / "out"
    result = run("export", path, "--full", "--format", form, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"8 of 8 nodes and 3 of 3 edges in {out}" in result.stdout
    assert READERS[form](out) == 8
    assert "the capital" in out.read_text()
    assert "ends" in out.read_text()


def test_parquet_goes_into_two_files(tmp_path):
    path = write(tmp_path, GRAPH)
    result = run("export", path, "--format", "parquet", "--out", tmp_path / "a.parquet", "--json")
    files = [str(tmp_path / f"a.{part}.parquet") for part in ("nodes", "edges")]
    assert json.loads(result.stdout)["files"] == files
    (tmp_path / "b.edges.parquet").mkdir()
    refused = run("export", path, "--format", "parquet", "--out", tmp_path / "b.parquet")
    assert_refused(refused, "b.edges.parquet is a folder")


def test_a_bounded_export_is_told(tmp_path):
    graph = chain(40_000)
    path = write(tmp_path, graph)
    out = tmp_path / "a.json"
    result = run("export", path, "--full", "--largest", 1, "--out", out, "--json")
    told = json.loads(result.stdout)
    assert out.stat().st_size <= 2**20
    assert told["n_edges"] + told["hidden_edges"] == graph.weights.nnz
    assert told["hidden_edges"] > 10_000


def test_a_slider_at_the_threshold_hides_nothing_of_a_pruned_export(tmp_path):
    path, out = write(tmp_path, chain(4000)), tmp_path / "a.json"
    assert run("export", path, "--node-threshold", "0.6", "--out", out).exit_code == 0
    file = json.loads(out.read_text())
    shown = [n["influence"] for n in file["nodes"] if n["feature_type"].endswith("transcoder")]
    # The last node crosses the threshold, and is kept.
    assert 0.6 < max(shown) == file["metadata"]["node_threshold"] < 0.61
    assert sorted(shown)[-2] < 0.6


@pytest.mark.parametrize(
    ("metadata", "model", "dictionary"),
    [
        ({"scan": "gemma-2-2b"}, "gemma-2-2b", "gemma-2-2b"),
        ({"scan": "qwen3-1.7b"}, "qwen3-1.7b", "qwen3-1.7b"),
        ({"scan": "mntss/gemma-scope-transcoders"}, "unknown", "mntss/gemma-scope-transcoders"),
        ({"scan": "org/repo//folder@main"}, "unknown", "org/repo//folder@main"),
        ({"scan": "llama-3-131k-relu"}, "unknown", "llama-3-131k-relu"),
        ({"scan": "custom-12", "transcoder_list": ["a", "b"]}, "unknown", "a, b"),
        ({"scan": "default"}, "unknown", "default"),
        ({"scan": "m", "info": {"transcoder_set": "org/set"}}, "m", "org/set"),
        ({"scan": "m", "feature_details": {"neuronpedia_source_set": "s"}}, "m", "s"),
        ({"scan": "org/set", "info": {"transcoder_set": "org/set"}}, "unknown", "org/set"),
    ],
)
def test_a_scan_is_the_model_only_where_it_does_not_name_the_dictionary(
    tmp_path, metadata: dict[str, Any], model: str, dictionary: str
):
    file = circuit_tracer_file()
    file["metadata"] |= metadata
    header = graphs.read_neuronpedia(write(tmp_path, file)).graph.provenance
    assert (header.model.name, header.dictionary.name) == (model, dictionary)
    shown = run("show", tmp_path / "graph.json").stdout
    assert shown.startswith(f"{model} · {dictionary} · ")


def test_dictionaries_are_told_apart_and_the_unknown_is_never_the_same():
    def named(**metadata: Any) -> graphs.AttributionGraph:
        with tempfile.TemporaryDirectory() as folder:
            file = circuit_tracer_file()
            file["metadata"] |= metadata
            return graphs.read_neuronpedia(write(Path(folder), file)).graph

    sets = [{"neuronpedia_source_set": name} for name in ("gemmascope-16k", "clt-hp")]
    one, other = (named(feature_details=details) for details in sets)
    assert same_dictionary(one, one)
    assert not same_dictionary(one, other)
    assert same_dictionary(named(), named())  # circuit-tracer's scan is the dictionary
    assert not same_dictionary(named(scan=None), named(scan=None))
    header = GRAPH.provenance
    neurons = header.model_copy(
        update={"dictionary": graphs.DictionaryIdentity(kind=NEURONS, name="MLP neurons")}
    )
    chat = header.model.model_copy(update={"name": "chat"})
    for about, same in ((header, True), (neurons, False)):
        pair = (about, about.model_copy(update={"model": chat}))
        first, second = (replace(GRAPH, provenance=provenance) for provenance in pair)
        assert same_dictionary(first, second) == same


@pytest.mark.parametrize("make", [circuit_tracer_file, anthropic_file])
def test_commands_read_the_files_of_others(tmp_path, make):
    path = write(tmp_path, make())
    page = tmp_path / "page.html"
    for command in (
        ("show", path),
        ("paths", path),
        ("group", path),
        ("prune", path, "--html", page),
        ("compare", path, path, "--permutations", 5),
    ):
        result = run(*command)
        assert result.exit_code == 0, result.output
        assert "nan" not in result.stdout
        strict = run(*command, "--json").stdout
        assert json.loads(strict, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert page_data(page.read_text())["graphs"][0]["nodes"]["names"]


def test_a_persons_label_is_shown(tmp_path):
    path = write(tmp_path, circuit_tracer_file())
    graphs.write_annotations(
        Annotations(labels={"0/77": "the greeting"}), graphs.annotations_path(path)
    )
    assert "the greeting" in run("show", path).stdout


def test_an_import_writes_the_graph_and_its_notes(tmp_path):
    path, out = write(tmp_path, anthropic_file()), tmp_path / "ours.safetensors"
    result = run("import", path, "--out", out)
    assert result.exit_code == 0, result.output
    read = graphs.read_neuronpedia(path)
    assert_same_graph(graphs.read_graph(out), read.graph)
    beside = graphs.annotations_path(out)
    assert graphs.read_annotations(beside) == read.annotations.made_of(read.graph)
    assert str(beside) in result.stdout
    own = Annotations(pins=("logit:18142@2",))
    graphs.write_annotations(own, beside)
    again = run("import", path, "--out", out)
    assert "(existing file kept)" in again.stdout
    assert graphs.read_annotations(beside) == own


def test_a_persons_own_annotations_win_over_those_in_the_file(tmp_path):
    path = write(tmp_path, anthropic_file())
    graphs.write_annotations(
        Annotations(groups=(Group(name="mine", members=("feature:9/10022605@2",)),)),
        graphs.annotations_path(path),
    )
    names = {group["name"] for group in json.loads(run("group", path, "--json").stdout)["groups"]}
    assert "mine" in names
    assert "Texas" not in names


def test_links_to_missing_nodes_are_reported(tmp_path):
    file = anthropic_file()
    file["links"].append({"source": "gone", "target": "q3", "weight": 1.0})
    result = run("show", write(tmp_path, file))
    assert result.exit_code == 0
    assert "Link 4 refers to 'gone', which is not among the nodes" in result.stderr


def test_bad_input_of_import_and_export(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[")
    out = tmp_path / "b.safetensors"
    assert_refused(run("import", path, "--out", out), "is not a graph of circuit-tracer")
    assert_refused(run("import", tmp_path / "no", "--out", out), "Cannot read")
    assert_refused(run("import", tmp_path, "--out", out), "is not a regular file")
    (tmp_path / "c.pt").write_bytes(b"PK\x03\x04")
    assert_refused(run("import", tmp_path / "c.pt", "--out", out), "is not a complete .pt file")
    good = write(tmp_path, circuit_tracer_file())
    assert_refused(run("import", good, "--out", tmp_path / "x" / "y"), "There is no folder")
    none = run("export", good, "--out", tmp_path / "z.json", "--largest", 0)
    assert (none.exit_code, "--largest" in none.stderr) == (2, True)
    assert not out.exists()
    assert_refused(run("import", good, "--out", "."), "is a folder")
    assert_refused(run("export", good, "--format", "parquet", "--out", "."), "is a folder")
    assert_refused(run("import", good, "--out", tmp_path / "y.json"), "name it y.safetensors")
    assert_refused(run("prune", good, "--out", tmp_path / "y.pt"), "none of the suffixes")
    assert_refused(run("import", good, "--tokenizer", "atlas-small", "--out", out), "for .pt files")
    before = good.read_bytes()
    assert_refused(run("export", good, "--out", good), "would overwrite the input")
    ours = write(tmp_path, GRAPH)
    assert_refused(run("prune", ours, "--out", ours), "would overwrite the input")
    assert good.read_bytes() == before


def test_pruning_keeps_what_is_said(tmp_path):
    path, out = write(tmp_path, anthropic_file()), tmp_path / "pruned.safetensors"
    assert run("prune", path, "--out", out).exit_code == 0
    said = graphs.read_annotations(graphs.annotations_path(out))
    read = graphs.read_neuronpedia(path)
    assert said == read.annotations.made_of(read.graph)


def test_graphs_without_nodes_are_compared_and_drawn(tmp_path: Path):
    empty, tokenless = tmp_path / "empty.json", tmp_path / "tokenless.json"
    for path, tokens in ((empty, ["a"]), (tokenless, [])):
        path.write_text(
            json.dumps({"metadata": {"prompt_tokens": tokens}, "nodes": [], "links": []})
        )
    other = tmp_path / "other.safetensors"
    graphs.write_graph(
        make_graph(["token:1@0", "logit:2@0"], {("token:1@0", "logit:2@0"): 1.0}), other
    )
    for pair in ((empty, other), (other, empty), (tokenless, tokenless)):
        result = run("view", *pair, "--html", tmp_path / "page.html")
        assert result.exit_code == 0, result.output
        result = run("compare", *pair, "--permutations", 2)
        assert result.exit_code == 0, result.output
    assert_refused(run("consensus", empty, other), "empty.json does not name the dictionary of")
