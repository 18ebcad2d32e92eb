"""What is shown of a run, and its log: a line of JSON for every fiftieth step."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from circuits.training.settings import TrainingError
from graphs.disk.files import atomic_write, file_text, json_value, reason

LOG = "log.jsonl"


@dataclass(frozen=True)
class Logged:
    """What is shown of a step."""

    step: int
    loss: float
    l0: float  # active features per layer and token
    explained: float  # variance, mean over layers
    dead: float  # share of all features
    learning_rate: float


OnStep = Callable[[Logged], None]


def append(path: Path, lines: list[Logged]) -> None:
    """Append lines to the log, and clear the list."""
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(asdict(logged)) + "\n" for logged in lines)
    except OSError as error:
        raise TrainingError(f"Cannot write {path}: {reason(error)}.") from error
    lines.clear()


def truncate(path: Path, step: int) -> None:
    """Drop lines of steps that will be repeated, and damaged lines.

    Raises GraphFileError if the log cannot be read or written.
    """
    if not path.exists():
        return
    lines = file_text(path).decode("utf-8", "replace").splitlines()
    kept = [line for line in lines if 0 < _step_of(line) <= step]
    with atomic_write(path) as temporary:
        text = "".join(f"{line}\n" for line in kept)
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _step_of(line: str) -> int:
    """The step of a log line, 0 for a damaged one."""
    try:
        return int(json_value(line.encode())["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return 0
