"""What Windows refuses, refused here: for tests of whatever reads and writes files."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import pytest

# Source: learn.microsoft.com/windows/win32/fileio/naming-a-file; endings do not matter.
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{p}{n}" for p in ("COM", "LPT") for n in range(1, 10))}


def held(path: object) -> bool:
    """Whether this process has a file open or mapped."""
    real = os.path.realpath(path)  # type: ignore[arg-type]
    opened = {os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()}
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    return real in opened or any(line.endswith(f" {real}") for line in mapped)


def refuse_held(*paths: object) -> None:
    for path in paths:
        if held(path):
            raise PermissionError(errno.EACCES, "Access is denied", str(path))


def refuse_reserved(path: object) -> None:
    if PurePath(os.fspath(path)).name.partition(".")[0].upper() in RESERVED:  # type: ignore[arg-type]
        raise FileNotFoundError(errno.ENOENT, "The system cannot find the file", str(path))


def impose(patch: pytest.MonkeyPatch) -> None:
    """Folders are not opened; what is open is not replaced, moved or removed; what is opened for
    reading is not flushed; devices' names are no files; parts of paths are joined by backslashes;
    lines end in two characters unless a program says otherwise.
    """
    real = {name: getattr(os, name) for name in ("open", "replace", "rename", "mkdir", "fsync")}
    unlink, relative_to, write_text, opened = (
        os.unlink,
        Path.relative_to,
        Path.write_text,
        Path.open,
    )

    def open_file(path: Any, *more: Any, **options: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        refuse_reserved(path)
        return real["open"](path, *more, **options)

    def replace(source: Any, target: Any, **options: Any) -> None:
        refuse_reserved(target)
        refuse_held(source, target)
        real["replace"](source, target, **options)

    def rename(source: Any, target: Any, **options: Any) -> None:
        refuse_reserved(target)
        inside = [source, *Path(source).rglob("*")]
        refuse_held(*inside)
        if Path(target).exists():
            raise FileExistsError(errno.EEXIST, "The file is there", str(target))
        real["rename"](source, target, **options)

    def mkdir(path: Any, *more: Any, **options: Any) -> None:
        refuse_reserved(path)
        real["mkdir"](path, *more, **options)

    def remove(path: Any, **options: Any) -> None:
        if not str(path).endswith(".lock"):  # filelock has its own way there
            refuse_held(path)
        unlink(path, **options)

    def fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real["fsync"](descriptor)

    def relative(path: Path, *others: Any, **options: Any) -> PureWindowsPath:
        return PureWindowsPath(*relative_to(path, *others, **options).parts)

    def write(path: Path, data: str, *more: Any, newline: str | None = None, **options: Any) -> int:
        return write_text(path, data, *more, newline=newline or "\r\n", **options)

    def open_text(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if "b" not in mode and "r" not in mode:
            options["newline"] = options.get("newline") or "\r\n"
        return opened(path, mode, *more, **options)

    for name, refusing in (
        ("open", open_file),
        ("replace", replace),
        ("rename", rename),
        ("mkdir", mkdir),
        ("fsync", fsync),
        ("unlink", remove),
    ):
        patch.setattr(os, name, refusing)
    patch.setattr(shutil, "_use_fd_functions", False)  # Windows removes a folder by its path
    patch.setattr(Path, "relative_to", relative)
    patch.setattr(Path, "write_text", write)
    patch.setattr(Path, "open", open_text)
