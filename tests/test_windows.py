"""Commands where Windows' rules hold: every file that one writes another reads, and may replace."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphs
from circuits.features.files.locations import find_location
from circuits.model.hub import Repository, open_repository
from graphs.disk.files import GraphFileError, atomic_write
from tests import windows
from tests.test_audit_command import contents
from tests.test_cli import run
from tests.test_train_command import SHORT, corpus
from tests.test_viewer_numbers import layered

__all__ = ["corpus"]  # a fixture


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    windows.impose(monkeypatch)


def done(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code in (0, 1), result.output
    assert result.stderr.count("Cannot") == 0
    return result.stdout


@pytest.mark.usefixtures("rules")
def test_the_rules_hold(tmp_path: Path):
    """What is tested here would be nothing if the rules let everything pass."""
    path = tmp_path / "file"
    path.write_text("a\n")
    assert path.read_bytes() == b"a\r\n"
    with path.open("rb"), pytest.raises(PermissionError):
        (tmp_path / "file").replace(tmp_path / "other")
    mapped = np.memmap(path, np.uint8, "r")
    for name in ("new", "other"):
        (tmp_path / name).touch()
    with pytest.raises(PermissionError):
        (tmp_path / "new").replace(path)
    del mapped
    (tmp_path / "new").replace(path)
    for attempt in (
        lambda: os.open(tmp_path, os.O_RDONLY),
        lambda: (tmp_path / "other").replace(tmp_path / "nul.html"),
        lambda: (tmp_path / "COM1").mkdir(),
    ):
        with pytest.raises(OSError, match=r"Permission denied|cannot find"):
            attempt()
    assert str((tmp_path / "a" / "b").relative_to(tmp_path)) == "a\\b"
    descriptor = os.open(path, os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fsync(descriptor)
    os.close(descriptor)


@pytest.mark.usefixtures("rules")
def test_a_graph_is_traced_tested_changed_and_exported(model_folder: Path, tmp_path: Path):
    graph, pruned = tmp_path / "graph.safetensors", tmp_path / "pruned.safetensors"
    for _ in range(2):  # the second time every file is replaced
        done("trace", "fjfoi", "--model", model_folder, "--out", graph)
        done("check", graph, "--features", 3, "--random-sets", 1)
        done("intervene", graph, "--scale", "layer:1=0", "--save")
        done("group", graph, "--save")
        done("prune", graph, "--out", pruned, "--html", tmp_path / "pruned.html")
        done("view", graph, pruned)
        for form in ("neuronpedia", "node-link", "graphml", "gexf", "dot", "parquet"):
            done("export", graph, "--format", form, "--out", tmp_path / f"{form}.out")
        foreign = (tmp_path / "neuronpedia.out").replace(tmp_path / "foreign.json")
        done("import", foreign, "--out", tmp_path / "imported.safetensors")
        done("compare", graph, pruned, "--html", tmp_path / "compared.html")
        (tmp_path / "prompts.txt").write_text("fjfoi\n")
        done("profile", model_folder, tmp_path / "prompts.txt", "--out", tmp_path / "profile")
        header = graphs.read_graph(graph).provenance
        assert header.report is not None
        assert header.measured
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".headwater")]
    for name in ("dot.out", "foreign.json", "graph-pruned.html", "graph.annotations.json"):
        assert b"\r" not in (tmp_path / name).read_bytes()


@pytest.mark.usefixtures("rules", "few_graphs")
def test_a_dictionary_is_trained_goes_on_and_is_traced_with(
    model_folder: Path, corpus: Path, tmp_path: Path
):
    out = tmp_path / "dictionary"
    asked = ("train", corpus, "--model", model_folder, "--out", out, *SHORT)
    done(*asked)
    before = contents(out)
    done(*asked, "--checkpoint-every", "20")
    assert contents(out) == before
    assert {b"\r" in before[name] for name in ("config.yaml", "log.jsonl", "report.json")} == {
        False
    }
    done("trace", "fjfoi", "--model", model_folder, "--transcoders", out)


@pytest.mark.usefixtures("rules")
def test_folders_within_a_dictionary_are_found_as_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for layer in range(2):
        (tmp_path / "all" / f"layer_{layer}" / "width_20").mkdir(parents=True)
        (tmp_path / "all" / f"layer_{layer}" / "width_20" / "params.npz").touch()
    names = ("layer_0/width_20/params.npz", "layer_1/width_20/params.npz")
    assert find_location(tmp_path / "all").files == names
    for layer in range(2):
        place = tmp_path / "scope" / f"layer_{layer}" / "width_20" / "average_l0_50"
        place.mkdir(parents=True)
        (place / "params.npz").touch()
    found = find_location(tmp_path / "scope" / "width_20" / "average_l0_60")
    assert found.files == ("layer_0/params.npz", "layer_1/params.npz")
    snapshot = tmp_path / "models--org--set" / "snapshots" / "0123"
    (snapshot / "layer_0").mkdir(parents=True)
    (snapshot / "layer_0" / "params.npz").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("circuits.model.hub.snapshot_download", lambda *_, **__: str(snapshot))
    monkeypatch.setattr("circuits.model.hub.HfApi", None)  # there is no network
    monkeypatch.setattr("circuits.model.hub.user_cache_path", lambda _: tmp_path / "cache")
    cached = Repository("org/set", "0123", ("layer_0/params.npz",), listed=False)
    assert open_repository("org/set") == cached


def test_a_mount_that_flushes_no_folders_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flush = os.fsync

    def files_only(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path:
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GraphFileError, match="No space left"), atomic_write(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "whole"


def test_a_console_of_one_byte_for_a_character_shows_what_it_can(tmp_path: Path):
    graph = tmp_path / "graph.safetensors"
    labelled = graphs.Annotations(labels={"logit:7@2": "日本語 → ü"})
    graphs.write_graph(layered(0), graph)
    graphs.write_annotations(labelled, graphs.annotations_path(graph))
    for command in (["paths"], ["compare", str(graph)]):
        ran = subprocess.run(
            [sys.executable, "-m", "headwater", command[0], str(graph), *command[1:]],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
            check=False,
        )
        assert ran.returncode == 0, ran.stderr.decode("cp1252")
        assert ran.stderr == b""
        assert ran.stdout.decode("cp1252").strip()
