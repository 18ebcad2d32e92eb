"""Our file gives back what was written, and refuses everything else."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from graphs.core.graph import AttributionGraph
from graphs.disk.files import GraphFileError
from graphs.formats.storage import read_graph, write_graph
from tests.graph_oracles import make_graph, random_graphs, responding
from tests.same_graph import assert_same_graph

pytestmark = pytest.mark.usefixtures("either_system")

NAMES = ["token:4@0", "feature:0/3@1", "error:0@1", "logit:1@1"]
EDGES = {
    ("token:4@0", "feature:0/3@1"): 2.0,
    ("feature:0/3@1", "logit:1@1"): -3.0,
    ("error:0@1", "logit:1@1"): 1.0,
}
GRAPH = make_graph(NAMES, EDGES, output_tokens={1: (" a", 'é"\n')})


def written(graph: AttributionGraph = GRAPH) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_graph(graph, Path(folder, "graph"))
        return Path(folder, "graph").read_bytes()


def read(content: bytes) -> AttributionGraph:
    # An error holds on to what was mapped, which Windows does not remove.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder, "graph").write_bytes(content)
        return read_graph(Path(folder, "graph"))


@given(random_graphs())
@settings(max_examples=50, deadline=None)
def test_a_graph_comes_back_bit_by_bit(graph):
    assert_same_graph(read(written(graph)), graph)


def test_every_dtype_comes_back(tmp_path):
    columns = GRAPH.nodes.columns()
    small = {name: columns[name].astype(np.int8) for name in ("kind", "layer", "pos")}
    columns |= small | {"index": columns["index"].astype(np.int32)}
    columns["value"] = np.array([np.nan, -0.0, 1e-40, 3e38], dtype=np.float32)
    columns["activation"] = np.frombuffer(b"\1\0\0\0\0\0\xf8\xff" * 4)  # a nan with a payload
    strided = np.array([0.0, 9.0, 0.0, 9.0, 0.0, 9.0, 1.0, 9.0])[::2]
    graph = replace(GRAPH, nodes=type(GRAPH.nodes)(**columns), seed=strided)
    back = read(written(graph))
    assert_same_graph(back, graph)
    assert back.nodes.activation.tobytes() == graph.nodes.activation.tobytes()


def test_an_empty_graph_comes_back():
    empty = make_graph([], {}, probabilities=[])
    assert_same_graph(read(written(empty)), empty)


def test_the_same_graph_gives_the_same_bytes():
    assert written() == written()


def test_a_dtype_that_the_format_lacks_is_not_written(tmp_path):
    half = replace(GRAPH, dropped=np.zeros(4, dtype=np.float16))
    with pytest.raises(GraphFileError, match="dropped has dtype float16"):
        write_graph(half, tmp_path / "graph")
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_no_reader_would_take_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("graphs.formats.storage._LONGEST_HEADER", 1000)
    with pytest.raises(GraphFileError, match="take more than 0 MB; prune the graph first"):
        write_graph(GRAPH, tmp_path / "graph")
    assert list(tmp_path.iterdir()) == []


def changed(
    tmp_path: Path, change: Callable[[dict, dict], None], graph: AttributionGraph = GRAPH
) -> Path:
    """The file after `change(arrays, header)`."""
    path = tmp_path / "graph"
    write_graph(graph, path)
    arrays = load_file(path)
    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["headwater"])
    change(arrays, header)
    save_file(arrays, path, metadata={"headwater": header.pop("text", json.dumps(header))})
    return path


def put(name: str, value: object) -> Callable[[dict, dict], None]:
    return lambda arrays, header: arrays.update({name: np.asarray(value)})


def put_header(*keys: str, value: object) -> Callable[[dict, dict], None]:
    def change(arrays: dict, header: dict) -> None:
        place = header
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


HOSTILE = {  # GRAPH: 4 nodes, edges 0→1, 1→3, 2→3
    "lacks the arrays kind, seed": lambda a, h: [a.pop("kind"), a.pop("seed")],
    "weights.data must be F32 or F64, is I64": put("weights.data", [1, 2, 3]),
    "kind must be I8 or I16 or I32 or I64, is F64": put("kind", [0.0, 3, 4, 5]),
    "expanded must be BOOL, is U8": put("expanded", np.zeros(4, dtype=np.uint8)),
    r"seed must have shape \[4\], has \[3\]": put("seed", np.zeros(3)),
    r"seed must have shape \[4\], has \[4, 1\]": put("seed", np.zeros((4, 1))),
    r"kind must have shape \[\], has \[\]": put("kind", np.int64(3)),
    r"kind must have shape \[4\], has \[4, 1\]": put("kind", np.zeros((4, 1), dtype=np.int8)),
    r"indptr must have shape \[5\], has \[4\]": put("weights.indptr", [0, 0, 1, 3]),
    r"indices must have shape \[3\], has \[2\]": put("weights.indices", [0, 1]),
    "must ascend from 0": put("weights.indptr", [0, 0, 2, 1, 3]),
    "indptr must ascend from 0 to": put("weights.indptr", [1, 1, 1, 1, 3]),
    "to the number of edges": put("weights.indptr", [0, 0, 1, 1, 2]),
    "refers to a node that does not exist": put("weights.indices", [0, 1, 4]),
    "indices refers to a node": put("weights.indices", [-1, 1, 2]),
    "must ascend within a row": put("weights.indices", [0, 2, 1]),
    "indices must ascend": put("weights.indices", [0, 1, 1]),
    "points backwards": put("weights.indices", [1, 1, 2]),
    "weight is not finite": put("weights.data", [1.0, np.nan, 1.0]),
    "cannot be negative": put("dropped_absolute", [0.0, -1.0, 0.0, 0.0]),
    "Only logit and target nodes": put("seed", [1.0, 0.0, 0.0, 0.0]),
    "Unknown node kind 11": put("kind", [0, 3, 4, 11]),
    "Node 1 has the form feature": put("index", [4, -1, -1, 1]),
    "position must be below 3": put("pos", [0, 1, 2**40, 1]),
    "names 1 targets, the nodes have 2": lambda a, h: [
        put("kind", [0, 5, 4, 5])(a, h),
        put("layer", [-1, -1, 0, -1])(a, h),
    ],
    "Two nodes have the same id": lambda a, h: [
        put("kind", [0, 0, 4, 5])(a, h),
        put("layer", [-1, -1, 0, -1])(a, h),
        put("index", [4, 4, -1, 1])(a, h),
        put("pos", [0, 0, 1, 1])(a, h),
    ],
    "has no readable header": put_header("text", value="{"),
    "has no readable": put_header("text", value="[" * 100_000),
    "no readable": put_header("text", value="[1]"),
    "no readable header": put_header("text", value='{"provenance": {"schema_version": NaN}}'),
    "damaged header: provenance.model.n_layers: Input should": put_header(
        "provenance", "model", "n_layers", value=0
    ),
    "damaged header: provenance.prompt: Input should be a valid string": put_header(
        "provenance", "prompt", value=3
    ),
    "damaged header: surprise: Extra inputs are not permitted": put_header("surprise", value=1),
    "damaged header: output_tokens": put_header("output_tokens", value={"x": []}),
    "output_tokens has a row outside": put_header("output_tokens", value={"4": []}),
    "has schema 4, but this version of headwater reads up to 3: upgrade headwater": put_header(
        "provenance", "schema_version", value=4
    ),
    "damaged header: provenance.schema_version": put_header(
        "provenance", "schema_version", value=10**400
    ),
    "provenance.schema_version: Input should be 3": put_header(
        "provenance", "schema_version", value="1"
    ),
}


def put_at(name: str, place: int | tuple[int, int], value: float) -> Callable[[dict, dict], None]:
    def change(arrays: dict, header: dict) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][place] = value

    return change


RESPONDING = responding(GRAPH, np.random.default_rng(3))  # 4 nodes, 5 rows of norms, 1 of a gate
HOSTILE_RESPONSES = {
    "it lacks constant, threshold, flows or the header": lambda a, h: h.pop("responses"),
    "Of its responses it lacks constant, threshold, flows or the header": lambda a, h: a.pop(
        "flows"
    ),
    "flows must have two dimensions": put("flows", np.zeros(10)),
    r"flows must have shape \[10\], has \[9\]": put("flows", np.zeros((9, 1))),
    r"flows of responses must have shape \(10, 1\), has \(10, 2\)": put("flows", np.zeros((10, 2))),
    r"constant must have shape \[10\], has \[4\]": put("constant", np.zeros(4)),
    "flow of responses is not finite": put_at("flows", (0, 0), np.nan),
    "weight or flow of responses is not finite": put_at("weights.data", -1, np.inf),
    "constant or threshold is infinite": put_at("constant", 0, np.inf),
    "must come behind all other nodes": lambda a, h: [
        put_at("kind", 0, 9)(a, h),
        put_at("layer", 0, 0)(a, h),
    ],
    "An edge starts at a norm or a gate": put_at("weights.indices", -1, 4),
    "Two rows of responses have the same id": lambda a, h: [
        put_at("kind", 9, 7)(a, h),
        put_at("layer", 9, 0)(a, h),
        put_at("index", 9, 0)(a, h),
    ],
    "gate:0/1@3 is out of range: its position must be below 3": put_at("pos", 9, 3),
    "The header names the norm of layer 0 at position 1, which has no row": lambda a, h: h[
        "responses"
    ]["norms"][0].update(pos=1),
    "damaged header: responses.norms.0.mean_square": lambda a, h: h["responses"]["norms"][0].update(
        mean_square=0.0
    ),
    "damaged header: responses.neurons.nonlinearity": lambda a, h: h["responses"]["neurons"].update(
        nonlinearity="unheard of"
    ),
}


@pytest.mark.parametrize("text", sorted(HOSTILE_RESPONSES))
def test_responses_that_break_the_format_are_refused(text: str, tmp_path: Path):
    assert_same_graph(read(written(RESPONDING)), RESPONDING)
    path = changed(tmp_path, HOSTILE_RESPONSES[text], RESPONDING)
    with pytest.raises(GraphFileError, match=text):
        read_graph(path)


@pytest.mark.parametrize("text", sorted(HOSTILE))
def test_a_file_that_breaks_the_format_is_refused_with_one_sentence(text: str, tmp_path):
    path = changed(tmp_path, HOSTILE[text])
    with pytest.raises(GraphFileError, match=text) as caught:
        read_graph(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_other_arrays_are_ignored(tmp_path):
    assert_same_graph(read_graph(changed(tmp_path, put("later", [1.0]))), GRAPH)


def test_bytes_that_are_no_booleans_are_refused(tmp_path):
    content = written()
    path = tmp_path / "graph"
    path.write_bytes(content)
    with safe_open(path, framework="np"):
        start = 8 + int.from_bytes(content[:8], "little")
        place = json.loads(content[8:start])["expanded"]["data_offsets"][0]
    damaged = bytearray(content)
    damaged[start + place] = 2
    path.write_bytes(damaged)
    with pytest.raises(GraphFileError, match="must hold only the bytes 0 and 1"):
        read_graph(path)


def test_a_safetensors_file_of_others_is_refused(tmp_path):
    save_file({"weight": np.zeros(2)}, tmp_path / "model")
    with pytest.raises(GraphFileError, match="is a safetensors file, but not a headwater graph"):
        read_graph(tmp_path / "model")


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.makedirs, (str(tmp_path / "run"),)

    import pickle

    (tmp_path / "graph").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(GraphFileError):
        read_graph(tmp_path / "graph")
    assert not (tmp_path / "run").exists()


def test_every_truncation_is_refused():
    content = written()
    for length in [*range(0, len(content), 97), len(content) - 1]:
        with pytest.raises(GraphFileError):
            read(content[:length])


CONTENT = written()


@given(st.lists(st.integers(0, 8 * len(CONTENT) - 1), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_flipped_bits_give_another_graph_or_one_error(places):
    damaged = bytearray(CONTENT)
    for place in places:
        damaged[place // 8] ^= 1 << place % 8
    with suppress(GraphFileError):  # any other error fails the test
        read(bytes(damaged))
