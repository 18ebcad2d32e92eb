"""Naming: files of traced graphs, after the prompt and after what tells two of them apart.

A name that is asked for can only be that of a file in the folder.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from graphs.disk.portable import portable
from graphs.errors import HeadwaterError

SUFFIX, VECTOR = ".safetensors", ".npy"
_WORDS, _LETTERS = 8, 60  # of a name, from the end of the prompt
_OTHER_WORDS = 3  # that tell two prompts apart
_NAME = re.compile(r"[\w-][\w.-]{0,199}")


class MissingFile(HeadwaterError):
    """A name of no file in the folder."""


class MissingGraph(MissingFile):
    """A name of no graph in the folder."""


def path_of(folder: Path, name: str) -> Path:
    """The file of a graph in the folder.  Raises MissingGraph."""
    path = folder / f"{name}{SUFFIX}"
    if not _NAME.fullmatch(name) or not is_inside(path, folder):
        raise MissingGraph(f"There is no graph {name!r} in this folder.")
    return path


def vector_of(folder: Path, name: str) -> Path:
    """The file of a vector in the folder.  Raises MissingFile."""
    path = folder / name
    if not name.endswith(VECTOR) or not _NAME.fullmatch(name) or not is_inside(path, folder):
        raise MissingFile(
            f"There is no vector {name!r} in this folder: give a {VECTOR} file of it."
        )
    return path


def is_inside(path: Path, folder: Path) -> bool:
    """Whether this is a file in the folder, not a link that leads out of it."""
    return path.is_file() and path.resolve().parent == folder.resolve()


@dataclass(frozen=True)
class Traced:
    """What tells graphs of one prompt apart; what is empty or 0 is not compared."""

    model: str = ""
    dictionary: str = ""
    target: str = ""  # text of the first
    max_features: int = 0


def free_path(folder: Path, prompt: str, traced: Traced = Traced()) -> Path:
    """A new file for a graph, after the last words of the prompt.

    If a graph has that name, what differs is added: words of the prompt, the model, the dictionary,
    the target, the number of features, or else the time.
    """
    words = _words(prompt)
    name = "-".join(words[-_WORDS:])[:_LETTERS].strip("-") or "graph"
    path = _path(folder, name)
    if not path.exists():
        return path
    other = _difference(path, words, traced)
    now = f"{datetime.now():%Y-%m-%d-%H%M%S}"
    kept = name[: max(1, _LETTERS - len(other))].strip("-")
    named = [f"{kept}-{other}"] * bool(other)
    candidates = [*named, f"{name}-{now}", *(f"{name}-{now}-{number}" for number in range(2, 1000))]
    return next(path for one in candidates if not (path := _path(folder, one)).exists())


def _path(folder: Path, name: str) -> Path:
    return folder / f"{portable(name)}{SUFFIX}"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _difference(path: Path, words: list[str], traced: Traced) -> str:
    """What a graph has that the graph in a file has not; empty if they are of one kind."""
    there = _provenance(path)
    if not there:
        return ""
    known = set(_words(str(there.get("prompt", ""))))
    new = [word for word in dict.fromkeys(words) if word not in known][:_OTHER_WORDS]
    if new:
        return "-".join(new)
    for part, name in (("model", traced.model), ("dictionary", traced.dictionary)):
        if name and there.get(part, {}).get("name") not in (None, name):
            return "-".join(_words(name.rpartition("/")[2]))
    targets = there.get("targets") or [{}]
    if traced.target and targets[0].get("text") not in (None, traced.target):
        return "-".join(_words(traced.target)) or "target"
    most = there.get("settings", {}).get("max_features")
    return f"{traced.max_features}-features" if traced.max_features not in (0, most) else ""


def _provenance(path: Path) -> dict[str, Any]:
    """Provenance in a graph file's header; empty for a file that has none."""
    try:
        with safe_open(path, "np") as file:
            return json.loads((file.metadata() or {})["headwater"])["provenance"]
    except (OSError, SafetensorError, KeyError, ValueError):
        return {}
