"""What killed processes were writing is removed by the next write, what others write never."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

import circuits.model.gguf
import circuits.model.packaged
from graphs.disk.files import atomic_write
from graphs.disk.leftovers import temporary_path

# Begins to write a file, says so, and waits until it is killed.
WRITING = """
import sys, time
from graphs.disk.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    time.sleep(60)
"""


@contextmanager
def writing(path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that is writing a file, and where; it is killed at the end."""
    command = [sys.executable, "-c", WRITING, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, path.parent / process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@cache
def name_of_the_dead() -> str:
    """The name under which a process wrote that was killed in the middle."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process.kill()
    process.communicate()
    name, times = re.subn(f"-{os.getpid()}-", f"-{process.pid}-", temporary_path(Path()).name)
    assert times == 1
    return name


def left_by_the_dead(folder: Path) -> Path:
    return folder / name_of_the_dead()


def write(path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("new")


def test_what_a_killed_process_was_writing_goes_with_the_next_write(tmp_path: Path):
    with writing(tmp_path / "graph") as (process, temporary):
        assert temporary.read_text() == "half"
        write(tmp_path / "another")
        assert temporary.read_text() == "half"  # it runs
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert temporary.exists()
        write(tmp_path / "graph")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "graph"]


def test_what_is_not_known_to_be_of_a_dead_process_stays(tmp_path: Path):
    name = name_of_the_dead()
    machine = name.split("-")[1]
    others = {
        name.replace(machine, "0123abcd"),  # of another machine, whose processes nobody here knows
        name.replace(name.split("-")[2], "1"),  # it runs
        ".headwater-0123456789abcdef.tmp",  # as earlier versions wrote, of whom is not known
        f"{name}.txt",
        f"my{name}",
    }
    for other in others:
        (tmp_path / other).write_text("somebody's")
    write(tmp_path / "graph")
    assert {path.name for path in tmp_path.iterdir()} == {*others, "graph"}


def test_folders_of_killed_processes_go_as_well_and_links_are_not_followed(tmp_path: Path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    folder = tmp_path / "folder"
    left_by_the_dead(folder / "x").parent.mkdir(parents=True)
    left_by_the_dead(folder).mkdir()
    (left_by_the_dead(folder) / "weights.gguf").write_text("half")
    other = Path(str(left_by_the_dead(folder)).replace(".tmp", "") + "0.tmp")
    other.symlink_to(kept, target_is_directory=True)
    write(folder / "graph")
    assert sorted(path.name for path in folder.iterdir()) == ["graph", "x"]
    assert (kept / "file").exists()


def test_a_model_that_was_being_converted_goes_with_the_next_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    origin = circuits.model.packaged.Origin("package", "1", 1)
    package = circuits.model.packaged.Package("package", lambda folder: folder / "weights.gguf")
    monkeypatch.setattr(circuits.model.gguf, "convert", lambda _, fresh: (fresh / "model").touch())
    left_by_the_dead(tmp_path).mkdir()
    circuits.model.packaged._convert(package, tmp_path / "model", origin)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model", "origin.json"]
