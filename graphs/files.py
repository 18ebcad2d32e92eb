"""Files: written whole or not at all, and refused with one sentence.

A file is written under a temporary name in its own folder, flushed to the disk and then renamed:
whoever opens the final name sees the old file or the new one, never a part of either.
"""

from __future__ import annotations

import codecs
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from graphs.bounded import json_memory

LARGEST_JSON = 2**28  # bytes; Neuronpedia takes files of up to 100 MiB
MOST_MEMORY = 2**32  # bytes that reading a JSON may take
LEFTOVERS = ".headwater-*.tmp"  # what killed processes leave


class GraphFileError(ValueError):
    """A graph file cannot be read or written; the text is one sentence that says why."""


@contextmanager
def atomic_write(path: Path | str) -> Generator[Path]:
    """A temporary path that becomes `path` when the block ends, and vanishes if it fails.

    Permissions are those of the file that is replaced, or what the umask leaves of 0o666.
    Raises GraphFileError for every OSError (no such folder, no permission, no space) and for
    every ValueError of the block.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.json") as temporary:
    ...     _ = temporary.write_text("{}")
    >>> [file.name for file in folder.iterdir()]
    ['a.json']
    """
    final = Path(path)
    temporary = final.parent / f".headwater-{secrets.token_hex(8)}.tmp"
    mode = _reserve(final, temporary)
    try:
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files private
        _flush(temporary)
        temporary.replace(final)
        _flush(final.parent)
    except GraphFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: what is no JSON or no text
        raise GraphFileError(f"Cannot write {final}: {_reason(error)}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it.  Raises GraphFileError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraphFileError(f"Cannot write to the folder {path}: {_reason(error)}.") from error


def file_text(path: Path | str) -> bytes:
    """Everything in a file.  Raises GraphFileError if it is missing, a folder or unreadable."""
    try:
        return regular_file(path).read_bytes()
    except OSError as error:
        raise GraphFileError(f"Cannot read {path}: {_reason(error)}.") from error


def json_text(path: Path | str) -> bytes:
    """A JSON file, of a size at which reading it takes bounded time and memory.

    Raises GraphFileError if it is missing or unreadable, larger than LARGEST_JSON or likely to take
    more than MOST_MEMORY, since small values take many times their text.
    """
    size = regular_file(path).stat().st_size
    if size > LARGEST_JSON:
        raise GraphFileError(
            f"{path} has {size / 2**20:,.0f} MiB, JSON of up to {LARGEST_JSON // 2**20} MiB is "
            "read: prune the graph and export it again."
        )
    text = file_text(path).removeprefix(codecs.BOM_UTF8)
    if json_memory(text) > MOST_MEMORY:
        raise GraphFileError(
            f"{path} would take more than {MOST_MEMORY // 2**30} GiB of memory: prune the graph "
            "and export it again."
        )
    return text


def regular_file(path: Path | str) -> Path:
    """The path of a file that is there.  Raises GraphFileError for anything else."""
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise GraphFileError(f"Cannot read {path}: {_reason(error)}.") from error
    if not stat.S_ISREG(mode):
        raise GraphFileError(f"Cannot read {path}: it is not a file.")
    return file


def refuse_newer(path: Path | str, version: object, known: int) -> None:
    """Raise GraphFileError if only a later headwater can know the schema version of a file.

    `known` is the newest version that this one knows of files of that kind.
    """
    if isinstance(version, int) and known < version < 10**9:
        raise GraphFileError(
            f"{path} has schema {version}, this headwater reads up to {known}: upgrade headwater."
        )


def first_problem(error: ValidationError, inside: str = "") -> str:
    """The first of pydantic's complaints as `place: what is wrong`; `inside` begins the place.

    >>> from graphs.provenance import Target
    >>> try:
    ...     Target.model_validate({"text": "a", "probability": 2})
    ... except ValidationError as error:
    ...     first_problem(error)
    'probability: Input should be less than or equal to 1'
    """
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join([*([inside] if inside else []), *map(str, problem["loc"])])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _reserve(final: Path, temporary: Path) -> int:
    """Create the temporary file; the permissions that the final one shall have."""
    try:
        if final.exists() and not final.is_file():
            raise GraphFileError(f"Cannot write {final}: it is there and is not a file.")
        if not final.parent.is_dir():
            raise GraphFileError(f"Cannot write {final}: there is no folder {final.parent}.")
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        return stat.S_IMODE((final if final.exists() else temporary).stat().st_mode)
    except GraphFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise GraphFileError(f"Cannot write {final}: {_reason(error)}.") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError | ValueError) -> str:
    """What the error says in one line without a full stop."""
    if isinstance(error, ValidationError):
        return first_problem(error)
    return ((error.strerror if isinstance(error, OSError) else None) or str(error)).rstrip(".")
