"""Files that headwater wrote before schema 2 read equal: fixtures in tests/data/schema_1."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import graphs
from circuits.features.files.reading import read_transcoders
from circuits.features.labels import feature_files
from graphs.core.provenance import SCHEMA_VERSION
from headwater.audit_folder import AuditFolder
from tests.test_cli import run

FILES = Path(__file__).with_name("data") / "schema_1"
DEFAULTS = {"order": "first"}  # of fields that are new and not open
GRAPHS = ("graph", "pruned", "contrast")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, in which commands run as they ran then."""
    copytree(FILES, tmp_path / "files")
    monkeypatch.chdir(tmp_path / "files")
    return tmp_path / "files"


def header_of(path: Path, key: str = "headwater") -> dict[str, Any]:
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()[key])


def assert_holds(read: Any, stored: Any) -> None:
    """Everything that is stored was read; what was read beyond it is new and open."""
    if isinstance(stored, dict):
        assert isinstance(read, dict)
        for name, value in stored.items():
            if name != "schema_version":
                assert_holds(read[name], value)
        new = {name: value for name, value in read.items() if name not in stored and value}
        assert new.items() <= DEFAULTS.items()
    elif isinstance(stored, list):
        for one, other in zip(read, stored, strict=True):
            assert_holds(one, other)
    else:
        assert read == stored


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_reads_equal(name: str):
    path = FILES / f"{name}.safetensors"
    graph, arrays, header = graphs.read_graph(path), load_file(path), header_of(path)
    for column in ("kind", "layer", "pos", "index", "activation", "value"):
        np.testing.assert_array_equal(getattr(graph.nodes, column), arrays[column])
    for column in ("seed", "dropped", "dropped_absolute", "expanded"):
        np.testing.assert_array_equal(getattr(graph, column), arrays[column])
    for column in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(graph.weights, column), arrays[f"weights.{column}"])
    assert header["provenance"]["schema_version"] == 1
    assert_holds(graph.provenance.model_dump(mode="json"), header["provenance"])
    tokens = {str(row): list(top) for row, top in graph.output_tokens.items()}
    assert tokens == header["output_tokens"]
    described = {key: said.model_dump(mode="json") for key, said in graph.descriptions.items()}
    assert_holds(described, header["descriptions"])


def test_a_graph_is_written_with_the_present_schema(tmp_path: Path):
    graph = graphs.read_graph(FILES / "graph.safetensors")
    graphs.write_graph(graph, tmp_path / "again.safetensors")
    header = header_of(tmp_path / "again.safetensors")["provenance"]
    assert header["schema_version"] == SCHEMA_VERSION == 3
    assert graphs.read_graph(tmp_path / "again.safetensors").provenance == graph.provenance


def test_annotations_read_equal():
    path = FILES / "graph.annotations.json"
    read = graphs.read_annotations(path)
    assert read.groups
    assert_holds(read.model_dump(mode="json"), json.loads(path.read_text()))


def test_our_json_reads_as_the_graph_of_which_it_is_a_part():
    read = graphs.read_neuronpedia(FILES / "graph.json").graph
    pruned = graphs.read_graph(FILES / "pruned.safetensors")
    assert list(read.nodes) == list(pruned.nodes)
    assert read.provenance == pruned.provenance
    np.testing.assert_array_equal(read.weights.toarray(), pruned.weights.toarray())
    np.testing.assert_array_equal(read.nodes.value, pruned.nodes.value)


def test_a_profile_reads_equal():
    path = FILES / "features.profile"
    profile, arrays = graphs.read_profile(path), load_file(path)
    header = header_of(path, "headwater-profile")
    assert (profile.model, profile.dictionary) == (header["model"], header["dictionary"])
    assert [list(tokens) for tokens in profile.promoted] == header["raised"]
    assert [one.model_dump(mode="json") for one in profile.prompts] == header["prompts"]
    np.testing.assert_array_equal(profile.layer, arrays["layer"])
    np.testing.assert_array_equal(profile.index, arrays["index"])
    np.testing.assert_array_equal(profile.activation.data, arrays["activation.data"])
    np.testing.assert_array_equal(profile.activation.indices, arrays["activation.indices"])
    np.testing.assert_array_equal(profile.decoder, arrays["decoder"])


def test_an_audit_folder_reads_equal_and_goes_on(here: Path):
    stored = json.loads((here / "audit" / "one" / "pair.json").read_text())
    found = AuditFolder(here / "audit").done(graphs.PromptPair.model_validate(stored["pair"]))
    assert found is not None
    assert_holds(found.model_dump(mode="json"), stored)
    before = (here / "audit" / "one" / "pair.json").stat().st_mtime_ns
    few = ("--max-features", 30, "--mediators", 3, "--random-sets", 2)
    result = run("audit", "pairs.jsonl", "--out", "audit", "--model", "tiny", *few)
    assert result.exit_code == 0, result.output
    assert (here / "audit" / "one" / "pair.json").stat().st_mtime_ns == before


def test_a_dictionary_reads_equal():
    read = read_transcoders(FILES / "dictionary")
    for layer, transcoder in enumerate(read.layers):
        stored = load_file(FILES / "dictionary" / f"layer_{layer}.safetensors")
        np.testing.assert_array_equal(transcoder.encoder_bias.numpy(), stored["b_enc"])
        np.testing.assert_array_equal(transcoder.decoder_bias.numpy(), stored["b_dec"])
    assert feature_files(FILES / "dictionary") is not None


def test_a_checkpoint_goes_on_and_ends_with_the_same_dictionary(here: Path):
    folder = here / "dictionary"
    before = {path.name: load_file(path) for path in folder.glob("layer_*.safetensors")}
    for name in before:
        (folder / name).unlink()
    result = run(
        *("train", "corpus.txt", "--model", "tiny", "--out", "dictionary", "--kind", "skip"),
        *("--width", 24, "--l0", 3, "--steps", 60, "--batch", 64, "--checkpoint-every", 20),
    )
    assert result.exit_code == 0, result.output
    assert {path.name for path in folder.glob("layer_*.safetensors")} == set(before)
    for name, stored in before.items():
        again = load_file(folder / name)
        assert again.keys() == stored.keys()
        for key, array in stored.items():
            # Processors of another kind sum products in another order.
            np.testing.assert_allclose(again[key], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_can_be_tested_in_its_model(here: Path, name: str):
    result = run("intervene", f"{name}.safetensors", "--scale", "layer:1=0", "--json")
    assert result.exit_code == 0, result.output
