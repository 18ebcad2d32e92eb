"""Usage that cannot work, refused before any work starts."""

from __future__ import annotations

import os
from pathlib import Path

from graphs import GraphFileError


class UsageError(ValueError):
    """Options that do not go together."""


def require_consistent(
    *, transcoders: str | None, features: str | None, targets: list[str], against: str | None
) -> None:
    """Raises UsageError for options that do not go together."""
    if transcoders is not None and features is not None:
        raise UsageError("--transcoders and --features exclude each other: give one of them.")
    if against is not None and not targets:
        raise UsageError("--against needs --target: say which token wins over it.")


def require_places(*paths: Path | None) -> None:
    """Raises now if a file could not be written later: UsageError or GraphFileError."""
    given = [path for path in paths if path is not None]
    for path in given:
        try:
            _require_place(path)
        except OSError as error:  # a name that is too long, a folder that may not be entered
            reason = error.strerror or "it cannot be reached"
            raise GraphFileError(f"Cannot write {path}: {reason.lower()}.") from error
    if len(set(map(os.path.realpath, given))) < len(given):
        raise UsageError(f"Two outputs would go to {given[0]}: give each a file of its own.")


def require_graph_place(path: Path | None, *inputs: Path) -> None:
    """Raises UsageError if our graph file would not be read from there, or replaces an input."""
    if path is None:
        return
    if path.suffix in (".json", ".pt"):
        raise UsageError(
            f"{path} would be taken for a file of another program: name it "
            f"{path.with_suffix('.safetensors').name}."
        )
    require_other(path, *inputs)


def require_other(path: Path, *inputs: Path, option: str = "--out") -> None:
    """Raises UsageError if an output would replace what it is made of."""
    if os.path.realpath(path) in set(map(os.path.realpath, inputs)):
        raise UsageError(f"{path} is what is read, and would be lost: give {option} another name.")


def _require_place(path: Path) -> None:
    if path.is_dir():
        raise GraphFileError(f"{path} is a folder: give the name of a file.")
    if not path.parent.is_dir():
        raise GraphFileError(f"There is no folder {path.parent}: make it first.")
    if not os.access(path.parent, os.W_OK):
        raise GraphFileError(f"{path.parent} cannot be written to: choose another folder.")
