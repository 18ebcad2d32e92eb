"""Fingerprints: digests of all files of a model or a dictionary.

    fingerprint = SHA-256 over (name, SHA-256 of the file), names relative to the folder, sorted

so that copies of a folder have the same fingerprint.  Large files are read once: digests are cached
by path, size and modification time, and large files in the Hub's cache are named by theirs.
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

CACHED_FROM = 2**24  # bytes; smaller files are read again faster than looked up
_BLOB = re.compile(r"[0-9a-f]{64}")  # a large file in the Hub's cache; small ones have SHA-1


def fingerprint(files: Mapping[str, Path]) -> str:
    """The fingerprint of files, by their names inside a folder.  Raises OSError."""
    digest = sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{content_digest(files[name])}\0".encode("utf-8", "surrogatepass"))
    return f"sha256:{digest.hexdigest()}"


def model_files(folder: Path) -> dict[str, Path]:
    """The files that determine what a model computes: its config and its weights."""
    weights = (path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    found = [folder / "config.json", *weights]
    return {path.name: path for path in found if path.is_file()}


def content_digest(path: Path) -> str:
    """SHA-256 of a whole file in hexadecimal.  Raises OSError if it cannot be read."""
    whole = path.resolve()
    if whole.parent.name == "blobs" and _BLOB.fullmatch(whole.name):
        return whole.name
    status = whole.stat()
    key = [str(whole), status.st_size, status.st_mtime_ns]
    cache_file = _cache_file(whole)
    if status.st_size >= CACHED_FROM and (known := _cached_digest(cache_file, key)) is not None:
        return known
    with whole.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if status.st_size >= CACHED_FROM:
        with suppress(GraphFileError):  # go on without a cache if it cannot be written
            make_folder(cache_file.parent)
            with atomic_write(cache_file) as temporary:
                temporary.write_text(json.dumps([*key, found]), encoding="utf-8")
    return found


def _cache_file(path: Path) -> Path:
    """Where the digest of a file is cached."""
    name = sha256(str(path).encode("utf-8", "surrogatepass")).hexdigest()
    return user_cache_path("headwater") / "fingerprints" / f"{name}.json"


def _cached_digest(cache_file: Path, key: list[object]) -> str | None:
    try:
        *known, found = json.loads(cache_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return None
    return found if known == key and isinstance(found, str) else None
