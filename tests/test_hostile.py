"""Broken and hostile JSON: one sentence with the first fault and its place, in bounded time.

tests/data/broken_graphs is the corpus: each file is a graph with one fault, which its name says.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.core.annotations import read_annotations
from graphs.disk.files import _PER_VALUE, LARGEST_JSON, MOST_MEMORY, GraphFileError
from graphs.formats.neuronpedia.reader import read_neuronpedia
from tests.test_neuronpedia_reader import anthropic_file, circuit_tracer_file

CORPUS = Path(__file__).with_name("data") / "broken_graphs"
PLACES = {  # what the sentence says; "" where the whole file is no JSON at all
    "array": "Input should be an object",
    "backwards": "Link 0 runs from token:4521@1 to token:2@0, against the order of layers",
    "cycle": "Link 5 runs from feature:3/77@1 to feature:0/77@1 and closes a cycle",
    "deep_array": "recursion limit exceeded at line 1 column 202",
    "deep_info": "recursion limit exceeded at line 1",
    "deep_object": "recursion limit exceeded at line 1",
    "duplicate_ids": "Two nodes have the id '0_77_1'",
    "empty": "EOF while parsing a value at line 1 column 0",
    "endless_layer": "Node '3_77_1' has '1000000000' where a whole number is expected",
    "endless_position": "nodes.4.ctx_idx",
    "far_position": "token:2@1073741824 is out of range",
    "headwater_of_another": "headwater.provenance: Field required",
    "infinite_probability": "nodes.6.token_prob: Input should be a finite number",
    "infinite_weight": "links.0.weight: Input should be a finite number",
    "link_from_nowhere": "Link 3 refers to 'nowhere'",
    "link_is_array": "links.2",
    "link_to_nowhere": "Link 4 refers to 'nowhere'",
    "links_text": "links: Input should be a valid array",
    "lone_surrogate": "unexpected end of hex escape at line 1 column",
    "long_number": "number out of range at line 1 column",
    "loop": "Link 1 runs from feature:0/77@1 to feature:0/77@1 and closes a cycle",
    "nan_activation": "nodes.0.activation: Input should be a finite number",
    "nan_weight": "links.0.weight: Input should be a finite number",
    "negative_layer": "Node '3_77_1' has '-3' where a whole number is expected",
    "negative_position": "nodes.0.ctx_idx",
    "no_nodes_key": "nodes: Field required",
    "no_tokens": "token:4521@1 is out of range: its position must be below 0",
    "node_is_number": "nodes.1: Input should be an object",
    "nodes_object": "nodes: Input should be a valid array",
    "not_utf8": "invalid unicode code point at line 1 column",
    "null": "Input should be an object",
    "number": "Input should be an object",
    "parallel_links": "Link 5 is the second one from token:4521@1 to feature:0/77@1",
    "params_array": "qParams: Input should be an object",
    "probability_of_a_feature": "feature:0/77@1 has 0.5",
    "same_node_twice": "Nodes 2 and 3 are both error:5@1",
    "spaces": "EOF while parsing a value at line 2",
    "supernodes_of_numbers": "qParams.supernodes",
    "tokens_of_numbers": "metadata.prompt_tokens.0: Input should be a valid string",
    "trailing_comma": "trailing comma at line 1 column",
    "truncated": "EOF while parsing an object at line 1 column 700",
    "two_roots": "trailing characters at line 1 column",
    "unknown_kind": "Node '0_77_1' has the unknown feature_type 'lorsa'",
    "utf16": "expected value at line 1 column 1",
}


def refusal(path: Path) -> str:
    with pytest.raises(GraphFileError) as caught:
        read_neuronpedia(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 500
    return sentence


def test_every_file_of_the_corpus_has_its_place():
    assert {path.stem for path in CORPUS.iterdir()} == set(PLACES)


@pytest.mark.parametrize("name", sorted(PLACES))
def test_the_first_fault_is_named_with_its_place(name: str):
    assert PLACES[name] in refusal(CORPUS / f"{name}.json")


def test_a_file_of_a_gigabyte_is_not_read(tmp_path):
    path = tmp_path / "huge.json"
    path.touch()
    os.truncate(path, 2**30)
    assert f"has 1,024 MiB, and the limit for JSON is {LARGEST_JSON >> 20} MiB" in refusal(path)
    with pytest.raises(GraphFileError, match="1,024 MiB"):
        read_annotations(path)


def test_a_probability_that_rounding_made_larger_than_one_is_one(tmp_path):
    path = tmp_path / "sure.json"
    file = circuit_tracer_file()
    file["nodes"][6] |= {"token_prob": 1.0000001, "clerp": 'Output "a" (p=7)'}
    path.write_text(json.dumps(file))
    graph = read_neuronpedia(path).graph
    assert graph.provenance.targets[0].probability == graph.seed[6] == 1.0


def test_more_values_than_memory_holds_are_not_read(tmp_path):
    path = tmp_path / "many.json"
    path.write_bytes(b"[" + b"1," * (MOST_MEMORY // _PER_VALUE) + b"1]")
    assert "would take more than 4 GiB of memory" in refusal(path)
    path.write_bytes(b'{"x": [' + b'{"":1},' * (11 * 10**6) + b"1]}")
    assert "would take more than 4 GiB of memory" in refusal(path)


def test_a_million_faults_are_one(tmp_path):
    path = tmp_path / "faults.json"
    file = circuit_tracer_file() | {"links": [{}] * 10**6}
    path.write_text(json.dumps(file))
    assert "links.0.source: Field required" in refusal(path)


def test_a_mark_of_byte_order_is_no_fault(tmp_path):
    path = tmp_path / "marked.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(circuit_tracer_file()).encode())
    assert len(read_neuronpedia(path).graph) == 7


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["0_77_1", "3_77_1", "E_2_0", "27_23_1", "P_3", "target_2_1", "output_1_0"])
    | st.sampled_from(["embedding", "logit", "bias", "mlp reconstruction error", "E", "0", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(part, (*path, key))
    return found


def read_or_refuse(content: bytes) -> None:
    """Any bytes give a graph or one sentence."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.json")
        path.write_bytes(content)
        try:
            read = read_neuronpedia(path)
        except GraphFileError as error:
            sentence = str(error)
            assert sentence.startswith(str(path))
            assert sentence.endswith(".")
            assert "\n" not in sentence
        else:
            assert len(read.graph) == len(read.graph.nodes)


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08", b"\x1f\x8b\x08 and 7 more"])
def test_what_begins_as_packed_and_is_not_is_refused(content: bytes):
    read_or_refuse(content)


@given(st.data(), st.sampled_from([circuit_tracer_file, anthropic_file]))
@settings(max_examples=300, deadline=None)
def test_a_file_with_anything_in_any_place_is_read_or_refused(data, make):
    file = make()
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(file) or [("nodes",)]))
        place: Any = file
        for key in way:
            place = place[key]
        if data.draw(st.booleans()):
            place[last] = data.draw(JSON)
        elif last in place or isinstance(place, list):
            del place[last]
    read_or_refuse(json.dumps(file).encode())


@given(st.data(), st.sampled_from(sorted(CORPUS.iterdir())))
@settings(max_examples=200, deadline=None)
def test_bytes_of_the_corpus_cut_doubled_and_changed_are_read_or_refused(data, path):
    content = path.read_bytes()[:4000] or b"{"
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, len(content)))
    middle = data.draw(st.sampled_from([b"", content[start:end] * 2]) | st.binary(max_size=8))
    read_or_refuse(content[:start] + middle + content[end:])
