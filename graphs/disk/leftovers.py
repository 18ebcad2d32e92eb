"""Temporary names that say whose they are, so that what a killed process left is removed later.

    .headwater-MACHINE-PROCESS-RANDOM.tmp

MACHINE is a digest of the machine's name and, of containers that share it, of the one in which
processes are counted.  What a process of this machine left that no longer runs is removed by the
next write into the folder; what anybody else is writing, or may be, is left alone.
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
    """A free name in a folder, of this process."""
    return folder / f".headwater-{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.tmp"


@contextmanager
def temporary_folder(folder: Path) -> Generator[Path]:
    """A folder in a folder while the block lasts.  Raises OSError if it cannot be made."""
    remove_leftovers(folder)
    temporary = temporary_path(folder)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # Windows keeps what is still mapped


def is_temporary(path: Path) -> bool:
    """Whether a name is one of ours for a short while, of a file or of a lock."""
    return path.name.startswith(".headwater-")


def remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine left in a folder that no longer run."""
    try:
        paths = list(folder.iterdir())
    except OSError:  # whoever writes there will say so
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
        processes = Path("/proc/self/ns/pid").stat().st_ino  # a number for each container
    except OSError:
        processes = 0
    return sha256(f"{platform.node()} {processes}".encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    """Whether a process runs; where that cannot be known, it may."""
    try:
        if os.name == "posix":
            os.kill(process, 0)  # knows of other users' processes, which /proc may hide
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, OverflowError, psutil.NoSuchProcess):
        return False
    except (PermissionError, psutil.Error):
        return True
