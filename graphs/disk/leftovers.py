"""Temporary names that identify their process, so that leftovers of killed processes are removed.

    .headwater-MACHINE-PROCESS-RANDOM.tmp

MACHINE is a digest of the machine's name and, since containers may share that, of the PID
namespace.  Files of a process of this machine that no longer runs are removed by the next write
into the folder; files that another process is writing, or may be writing, are left alone.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

import psutil

_NAME = re.compile(r"\.headwater-(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]{1,10})-[0-9a-f]+\.tmp")


def temporary_path(folder: Path) -> Path:
    """An unused name in a folder, for this process."""
    return folder / f".headwater-{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.tmp"


@contextmanager
def temporary_folder(folder: Path) -> Generator[Path]:
    """A temporary folder inside a folder, removed at the end.  Raises OSError if that fails."""
    remove_leftovers(folder)
    temporary = temporary_path(folder)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # Windows cannot remove mapped files


def is_temporary(path: Path) -> bool:
    """Whether a name is that of a temporary file or a lock of headwater."""
    return path.name.startswith(".headwater-")


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files in a folder whose process, of this machine, no longer runs."""
    try:
        paths = list(folder.iterdir())
    except OSError:  # the write that follows reports it
        return
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match and match["machine"] == _machine() and not _runs(int(match["process"])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


@cache
def _machine() -> str:
    try:
        processes = Path("/proc/self/ns/pid").stat().st_ino  # differs between containers
    except OSError:
        processes = 0
    return sha256(f"{platform.node()} {processes}".encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    """Whether a process runs; True where that cannot be determined."""
    try:
        if os.name == "posix":
            os.kill(process, 0)  # sees other users' processes, which /proc may hide
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, OverflowError, psutil.NoSuchProcess):
        return False
    except (PermissionError, psutil.Error):
        return True
