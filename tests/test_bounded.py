"""A few hundred bytes never take more than a few megabytes of memory."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

import circuits.features.files.tensors
import circuits.features.labels
from circuits.features.files.configs import (
    DEEPEST,
    LARGEST_JSON,
    LARGEST_YAML,
    read_json,
    read_yaml,
)
from circuits.features.files.reading import read_transcoders
from circuits.features.files.tensors import WeightsFormatError, mapped
from circuits.features.labels import FeatureFileError, feature_files
from graphs.disk.files import GraphFileError, json_value, unpacked
from graphs.disk.npy import read_vector
from tests.test_weights import per_layer

MIB = 2**20


@contextmanager
def at_most(allowed: int) -> Iterator[None]:
    """Fails if a block holds more memory at once."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < allowed, f"{peak / MIB:.1f} MiB"


def aliases(levels: int) -> str:
    """Each line names the one above nine times, which are nine lists of it."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


def test_aliases_are_not_followed(tmp_path: Path):
    folder = per_layer(tmp_path)
    bomb = aliases(9) + "\nscan: *a8\n"
    assert len(bomb) < 500
    (folder / "config.yaml").write_text(bomb)
    with (
        at_most(5 * MIB),
        pytest.raises(WeightsFormatError, match="has aliases, which are not supported"),
    ):
        read_transcoders(folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * (DEEPEST + 5), f"more than {DEEPEST} nested lists"),
        ("[" * 50_000, f"more than {DEEPEST} nested lists"),
        ("a: " + "{b: " * 50_000, "cannot be read as YAML"),
        ("- " * 50_000, "cannot be read as YAML"),
        (f"a: {'9' * 5000}", "cannot be read as YAML"),
        ("a: 2026-99-99", "cannot be read as YAML"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("? [a]\n: b", "cannot be read as YAML"),
        ("\x1b", "cannot be read as YAML"),
        ("a" * (LARGEST_YAML + 1), f"a config of at most {LARGEST_YAML:,}"),
        ("- a", "must contain keys and values, got list"),
        ("", "must contain keys and values, got NoneType"),
    ],
)
def test_yaml_that_is_no_config_is_refused(tmp_path: Path, text: str, sentence: str):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with at_most(20 * MIB), pytest.raises(WeightsFormatError, match=sentence) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_configs_are_read_as_yaml_itself_reads_them(tmp_path: Path):
    config = {
        "model_kind": "transcoder_set",
        "scan": "é “a”",
        "transcoders": [f"hf://owner/name/layer_{i}.safetensors?revision=a" for i in range(200)],
        "k": 32,
        "numbers": [1.5, None, True, {"a": {"b": [[]]}}],
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8")) == config
    path.write_text(json.dumps(config), encoding="utf-8-sig")
    assert read_json(path) == config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": ' * 100_000, "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "must contain keys and values, got list"),
        (" " * (LARGEST_JSON + 1), f"a config of at most {LARGEST_JSON:,}"),
        ('{"a": [' + "[]," * 4 * MIB + "1]}", "would take more than"),
        ('{"a": "\\ud800"}', "cannot be read as JSON"),
    ],
)
def test_json_that_is_no_config_is_refused(tmp_path: Path, text: str, sentence: str):
    path = tmp_path / "cfg.json"
    path.write_text(text)
    with at_most(50 * MIB), pytest.raises(WeightsFormatError, match=sentence):
        read_json(path)


def bomb(size: int) -> bytes:
    """So many blanks in gzip, a thousandth of their size."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        for _ in range(size // MIB):
            file.write(b" " * MIB)
    return packed.getvalue()


def test_unpacking_is_bounded():
    packed = bomb(200 * MIB)
    assert len(packed) < MIB
    with (
        at_most(4 * MIB),
        pytest.raises(ValueError, match="decompresses to more than 1,048,576 bytes"),
    ):
        unpacked(packed, MIB)
    whole = gzip.compress(b"a graph", mtime=0)
    assert unpacked(whole, 7) == unpacked(whole + b"\0\0", 7) == b"a graph"
    with pytest.raises(ValueError, match="decompresses to more than 6 bytes"):
        unpacked(whole, 6)
    for damaged in (b"", b"a graph", whole[:-1], whole[:10]):
        with pytest.raises(ValueError, match="its compressed data is"):
            unpacked(damaged, 7)
    with pytest.raises(ValueError, match="extra bytes"):
        unpacked(whole * 2, 100)


def test_a_json_value_is_refused_for_the_memory_that_it_would_take():
    with at_most(MIB), pytest.raises(ValueError, match="more than 1,000,000 bytes of memory"):
        json_value(b"[" + b"[]," * 100_000 + b"1]", 10**6)
    assert json_value(b'{"a": [1, null, "b"]}') == {"a": [1, None, "b"]}


@pytest.fixture
def features(tmp_path: Path) -> Path:
    (tmp_path / "features").mkdir()
    return tmp_path / "features"


def write_index(features: Path, entry: object) -> None:
    packed = gzip.compress(json.dumps({"0": entry}).encode())
    (features / "index.json.gz").write_bytes(packed)


def refused(features: Path) -> str:
    files = feature_files(features.parent)
    assert files is not None
    with at_most(20 * MIB), pytest.raises(FeatureFileError) as caught:
        files.read(0, 0)
    return str(caught.value)


def test_an_index_of_features_is_unpacked_as_far_as_one_may_go(
    features: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(circuits.features.labels, "LARGEST_INDEX", MIB)
    (features / "index.json.gz").write_bytes(bomb(100 * MIB))
    assert "decompresses to more than 1,048,576 bytes" in refused(features)
    (features / "index.json.gz").write_bytes(gzip.compress(b"[" * 100_000))
    assert "index.json.gz is damaged (recursion limit exceeded" in refused(features)


@pytest.mark.parametrize(
    "offsets",
    [[0, 2**70], [2**70, 2**71], [-5, 3], ["a", "b"], [0.5, 9], [[], [1]], [True, 2**62]],
)
def test_places_that_no_file_has_are_refused(features: Path, offsets: list[object]):
    (features / "layer_0.bin").write_bytes(b"\xff\xff\xff\xff" + b"a" * 100)
    write_index(features, {"filename": "layer_0.bin", "offsets": offsets})
    assert "Feature 0 of layer 0" in refused(features)


def test_a_record_is_unpacked_as_far_as_one_may_go(features: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(circuits.features.labels, "LARGEST_RECORD", MIB)
    packed = bomb(100 * MIB)
    content = len(packed).to_bytes(4, "little") + packed
    (features / "layer_0.bin").write_bytes(content)
    write_index(features, {"filename": "layer_0.bin", "offsets": [0, len(content)]})
    assert "Feature 0 of layer 0" in refused(features)


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def lying(shape: str) -> bytes:
    """A header that says more numbers than follow."""
    return npy(np.ones(3)).replace(b"(3,), }".ljust(50), f"{shape}, }}".encode().ljust(50))


def test_packed_weights_are_unpacked_as_far_as_weights_may_be_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = npz(tmp_path / "params.npz", a=npy(np.zeros(2**21)))
    assert mapped(path)["a"].shape == (2**21,)
    monkeypatch.setattr(circuits.features.files.tensors, "ALLOWANCE", 0)
    with at_most(MIB), pytest.raises(WeightsFormatError, match="bytes would unpack to 16,777,344"):
        mapped(path)


@pytest.mark.parametrize("shape", ["(10000000000,)", "(-3, -1)", "(2**9,)", "(2,)"])
def test_a_header_larger_than_its_data_is_refused(tmp_path: Path, shape: str):
    content = lying(shape)
    assert content != npy(np.ones(3))
    with at_most(MIB), pytest.raises(WeightsFormatError, match="is damaged or incomplete"):
        mapped(npz(tmp_path / "params.npz", a=content))
    (tmp_path / "vector.npy").write_bytes(content)
    with at_most(MIB), pytest.raises(ValueError, match=r"header|malformed"):
        read_vector(tmp_path / "vector.npy")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:40],
        lambda content: content.replace(b"\x08\x00", b"\x63\x00"),  # an unknown way of packing
        lambda content: content[:60] + b"\xff" * 8 + content[68:],
        lambda content: b"PK\x03\x04" + b"\0" * 100,
        lambda content: b"",
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]):
    path = npz(tmp_path / "params.npz", a=npy(np.arange(100.0)))
    for name in ("params.npz", "params.safetensors"):
        (tmp_path / name).write_bytes(damage(path.read_bytes()))
        with pytest.raises(WeightsFormatError, match="is damaged or incomplete"):
            mapped(tmp_path / name)
        path = npz(tmp_path / "params.npz", a=npy(np.arange(100.0)))


@pytest.mark.parametrize(
    "array",
    [
        np.ones((2, 2)),
        np.array(1.0),
        np.array(["a"]),
        np.array([1j]),
        np.array([object()]),
        np.zeros(2, dtype=[("a", "f4")]),
    ],
)
def test_what_is_no_vector_is_refused(tmp_path: Path, array: np.ndarray):
    np.save(tmp_path / "vector.npy", array)
    with pytest.raises(ValueError, match=r"shape|objects"):
        read_vector(tmp_path / "vector.npy")


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "i1", "u8"])
def test_a_vector_comes_back_as_numbers(tmp_path: Path, dtype: str):
    np.save(tmp_path / "vector.npy", np.arange(5).astype(dtype))
    np.testing.assert_array_equal(read_vector(tmp_path / "vector.npy"), np.arange(5.0))
    with pytest.raises(GraphFileError, match="it is not a regular file"):
        read_vector(tmp_path)
