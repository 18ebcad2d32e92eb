"""One at a time changes a file, and no lock stays behind."""

from __future__ import annotations

import errno
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

import graphs.disk.locks
from graphs.disk.files import GraphFileError
from graphs.disk.locks import locked

HOLDING = """
import sys, time
from graphs.disk.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
COUNTING = """
import sys
from pathlib import Path
from graphs.disk.locks import locked
path = Path(sys.argv[1])
for _ in range(40):
    with locked(path):
        path.write_text(str(int(path.read_text()) + 1))
"""


def count(path: Path) -> None:
    for _ in range(20):
        with locked(path):
            path.write_text(str(int(path.read_text()) + 1))


def test_threads_and_processes_wait_for_each_other(tmp_path: Path):
    path = tmp_path / "count"
    path.write_text("0")
    (tmp_path / "link").symlink_to("count")
    names = (path, tmp_path / "link")
    processes = [subprocess.Popen([sys.executable, "-c", COUNTING, str(name)]) for name in names]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(count, names))
    assert [process.wait() for process in processes] == [0, 0]
    assert path.read_text() == "120"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["count", "link"]


def test_whoever_waits_too_long_is_told_and_the_lock_of_a_killed_process_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(graphs.disk.locks, "PATIENCE", 0.1)
    path = tmp_path / "graph"
    command = [sys.executable, "-c", HOLDING, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    message = "graph is locked by another process that changes it: try again when that is done"
    with pytest.raises(GraphFileError, match=message), locked(path):
        raise AssertionError("both have it")
    with locked(tmp_path / "another"):
        pass
    process.kill()
    process.communicate()
    with locked(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_no_folder_none_is_made(tmp_path: Path):
    for path in (tmp_path / "none" / "graph", tmp_path / "a\0b"):
        with pytest.raises(GraphFileError, match="Cannot write"), locked(path):
            raise AssertionError("it is no place")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "goes_on"), [(errno.ENOLCK, True), (errno.EROFS, False)])
def test_a_mount_without_locks_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, goes_on: bool
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "not here")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    if goes_on:
        with locked(tmp_path / "graph"):
            (tmp_path / "graph").touch()
        assert [path.name for path in tmp_path.iterdir()] == ["graph"]
        return
    with pytest.raises(GraphFileError, match=r"Cannot write .*: not here\.$"), locked(tmp_path):
        raise AssertionError("it cannot be locked")
