"""Contents of files by their digests, each large file read once."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

import circuits.model.fingerprints
from circuits.model.fingerprints import content_digest, fingerprint, model_files


@pytest.fixture(autouse=True)
def remembering(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files of any size are remembered, in a cache of the test's own."""
    monkeypatch.setattr(circuits.model.fingerprints, "CACHED_FROM", 0)
    monkeypatch.setattr(
        circuits.model.fingerprints, "user_cache_path", lambda _: tmp_path / "cache"
    )


def test_a_digest_is_that_of_the_whole_file(tmp_path: Path):
    path = tmp_path / "a"
    content = bytes(range(256)) * 9000  # more than a first megabyte
    path.write_bytes(content)
    assert content_digest(path) == sha256(content).hexdigest()
    path.write_bytes(content[:-1] + b"x")
    assert content_digest(path) == sha256(content[:-1] + b"x").hexdigest()


def test_a_file_is_read_once_while_it_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, read = tmp_path / "a", list[str]()
    path.write_bytes(b"one")
    whole = circuits.model.fingerprints.file_digest

    def counted(file, name: str):
        read.append(file.name)
        return whole(file, name)

    monkeypatch.setattr(circuits.model.fingerprints, "file_digest", counted)
    assert content_digest(path) == content_digest(path) == sha256(b"one").hexdigest()
    assert len(read) == 1
    path.write_bytes(b"two!")  # another size
    assert content_digest(path) == sha256(b"two!").hexdigest()
    [note] = (tmp_path / "cache" / "fingerprints").iterdir()
    note.write_text("{")
    assert content_digest(path) == sha256(b"two!").hexdigest()
    assert len(read) == 3


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr(
        circuits.model.fingerprints, "user_cache_path", lambda _: tmp_path / "taken"
    )
    (tmp_path / "a").write_bytes(b"one")
    assert content_digest(tmp_path / "a") == sha256(b"one").hexdigest()


def test_what_the_hub_names_by_its_digest_is_not_read(tmp_path: Path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / ("ab" * 32)).write_bytes(b"large")
    (tmp_path / "model.safetensors").symlink_to(blobs / ("ab" * 32))
    assert content_digest(tmp_path / "model.safetensors") == "ab" * 32


def test_a_fingerprint_is_of_names_and_contents_wherever_they_lie(tmp_path: Path):
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        for name in ("config.json", "model.safetensors", "notes.txt"):
            (tmp_path / folder / name).write_text(name)
    one, other = (model_files(tmp_path / folder) for folder in ("one", "other"))
    assert set(one) == {"config.json", "model.safetensors"}
    assert fingerprint(one) == fingerprint(dict(reversed(other.items())))
    (tmp_path / "other" / "config.json").write_text("another")
    assert fingerprint(one) != fingerprint(other)
    renamed = {"model-1.safetensors": one["model.safetensors"], "config.json": one["config.json"]}
    assert fingerprint(one) != fingerprint(renamed)
