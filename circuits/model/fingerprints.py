"""Fingerprints: contents of a model or a dictionary, named by a digest of whole files.

    fingerprint = SHA-256 over (name, SHA-256 of the file), names inside the place and sorted

so that a folder has the same one wherever it lies.  Files of gigabytes are read once: a digest is
remembered under path, size and time of change, and files that the Hub keeps by their digest
already have it for a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path

from platformdirs import user_cache_path

from graphs import GraphFileError
from graphs.disk.files import atomic_write, make_folder

REMEMBERED = 2**24  # bytes; smaller files are read again sooner than looked up
_BLOB = re.compile(r"[0-9a-f]{64}")  # a large file in the Hub's cache; small ones have SHA-1


def fingerprint(files: Mapping[str, Path]) -> str:
    """Names the contents of files, by their names inside a place.  Raises OSError."""
    digest = sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{content_digest(files[name])}\0".encode("utf-8", "surrogatepass"))
    return f"sha256:{digest.hexdigest()}"


def model_files(folder: Path) -> dict[str, Path]:
    """What decides what a model computes: its config and its weights."""
    weights = (path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    found = [folder / "config.json", *weights]
    return {path.name: path for path in found if path.is_file()}


def content_digest(path: Path) -> str:
    """SHA-256 of a whole file in hexadecimal.  Raises OSError if it cannot be read."""
    whole = path.resolve()
    if whole.parent.name == "blobs" and _BLOB.fullmatch(whole.name):
        return whole.name
    seen = whole.stat()
    key = [str(whole), seen.st_size, seen.st_mtime_ns]
    note = _note(whole)
    if seen.st_size >= REMEMBERED and (known := _remembered(note, key)) is not None:
        return known
    with whole.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if seen.st_size >= REMEMBERED:
        with suppress(GraphFileError):  # a cache that cannot be written to is no cache
            make_folder(note.parent)
            with atomic_write(note) as temporary:
                temporary.write_text(json.dumps([*key, found]), encoding="utf-8")
    return found


def _note(path: Path) -> Path:
    """Where the digest of a file is remembered."""
    name = sha256(str(path).encode("utf-8", "surrogatepass")).hexdigest()
    return user_cache_path("headwater") / "fingerprints" / f"{name}.json"


def _remembered(note: Path, key: list[object]) -> str | None:
    try:
        *known, found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return None
    return found if known == key and isinstance(found, str) else None
