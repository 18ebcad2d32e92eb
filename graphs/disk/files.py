"""Files: atomic writes, checked reads, and errors of one sentence.

A file is written under a temporary name in its own folder, flushed to disk and then renamed:
whoever opens the final name sees the old file or the new one, never a partial one.  A symbolic link
stays; the file that it points to is replaced.
"""

from __future__ import annotations

import codecs
import os
import stat
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from graphs.disk.leftovers import remove_leftovers, temporary_path
from graphs.errors import HeadwaterError

LARGEST_JSON = 2**28  # bytes; Neuronpedia takes files of up to 100 MiB
MOST_MEMORY = 2**32  # bytes that reading a JSON may take
_GZIP = b"\x1f\x8b\x08"


class GraphFileError(HeadwaterError):
    """A graph file cannot be read or written; the message is one sentence that says why."""


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
    final, temporary, mode = _reserve(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(mode)  # safetensors makes its files private
        temporary.replace(final)
        _flush_folder(final.parent)
    except GraphFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: content that cannot be encoded
        raise GraphFileError(f"Cannot write {path}: {reason(error)}.") from error
    finally:
        with suppress(OSError):  # already renamed
            temporary.unlink()


def make_folder(path: Path) -> None:
    """Make a folder and its parents.  Raises GraphFileError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraphFileError(f"Cannot write to the folder {path}: {reason(error)}.") from error


@contextmanager
def new_folder(path: Path) -> Generator[None]:
    """As `make_folder`; if the block fails, the new folders are removed if they are empty."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    make_folder(path)
    try:
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):  # not empty
                folder.rmdir()
        raise


def real_path(path: Path | str) -> Path:
    """The path with symbolic links resolved; it need not exist.

    Raises OSError or ValueError for an invalid name and for a cycle of links.
    """
    final = Path(os.path.realpath(path))
    if final.is_symlink():
        raise OSError("it is a symbolic link to itself")
    return final


def file_text(path: Path | str) -> bytes:
    """The bytes of a file.  Raises GraphFileError if it is missing, a folder or unreadable."""
    try:
        return regular_file(path).read_bytes()
    except OSError as error:
        raise GraphFileError(f"Cannot read {path}: {reason(error)}.") from error


def is_packed(start: bytes) -> bool:
    """Whether a file that begins with these bytes, 9 or more, is compressed with gzip.

    A safetensors file may begin with the same 8 bytes, the length of its header, but then has `{`.
    """
    return start.startswith(_GZIP) and start[8:9] != b"{"


def json_text(path: Path | str) -> bytes:
    """The bytes of a JSON file, plain or gzipped.

    Raises GraphFileError if it is missing or unreadable, larger than LARGEST_JSON, or likely to
    take more than MOST_MEMORY: small values take many times the size of their text.
    """
    size = regular_file(path).stat().st_size
    if size > LARGEST_JSON:
        raise GraphFileError(
            f"{path} has {size / 2**20:,.0f} MiB, and the limit for JSON is "
            f"{LARGEST_JSON // 2**20} MiB: prune the graph and export it again."
        )
    text = file_text(path)
    if is_packed(text):
        try:
            text = unpacked(text, LARGEST_JSON)
        except ValueError as error:
            raise GraphFileError(f"{path} cannot be read: {error}.") from error
    text = text.removeprefix(codecs.BOM_UTF8)
    if json_memory(text) > MOST_MEMORY:
        raise GraphFileError(
            f"{path} would take more than {MOST_MEMORY // 2**30} GiB of memory: prune the graph "
            "and export it again."
        )
    return text


def regular_file(path: Path | str) -> Path:
    """The path of an existing file.  Raises GraphFileError for anything else."""
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise GraphFileError(f"Cannot read {path}: {reason(error)}.") from error
    if not stat.S_ISREG(mode):
        raise GraphFileError(f"Cannot read {path}: it is not a regular file.")
    return file


def refuse_newer(path: Path | str, version: object, known: int) -> None:
    """Raise GraphFileError for a schema version above `known`, the newest supported."""
    if isinstance(version, int) and known < version < 10**9:
        raise GraphFileError(
            f"{path} has schema {version}, but this version of headwater reads up to {known}: "
            "upgrade headwater."
        )


def first_problem(error: ValidationError, inside: str = "") -> str:
    """The first validation error as `place: what is wrong`; `inside` is prepended to the place.

    >>> from graphs.core.provenance import Target
    >>> try:
    ...     Target.model_validate({"text": "a", "probability": 2})
    ... except ValidationError as error:
    ...     first_problem(error)
    'probability: Input should be less than or equal to 1'
    """
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join([*([inside] if inside else []), *map(str, problem["loc"])])
    stated = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {stated}" if place else stated


def reason(error: OSError | ValueError) -> str:
    """The error's message in one line, without a full stop."""
    if isinstance(error, ValidationError):
        return first_problem(error)
    return ((error.strerror if isinstance(error, OSError) else None) or str(error)).rstrip(".")


def _reserve(path: Path | str) -> tuple[Path, Path, int]:
    """The final path, a temporary file beside it, and the permissions for the final file."""
    try:
        final = real_path(path)
        if final.exists() and not final.is_file():
            raise GraphFileError(f"Cannot write {path}: it exists and is not a regular file.")
        if not final.parent.is_dir():
            raise GraphFileError(f"Cannot write {path}: the folder {final.parent} does not exist.")
        remove_leftovers(final.parent)
        temporary = temporary_path(final.parent)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = stat.S_IMODE((final if final.exists() else temporary).stat().st_mode)
    except GraphFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise GraphFileError(f"Cannot write {path}: {reason(error)}.") from error
    return final, temporary, mode


def _flush(path: Path) -> None:
    # Windows does not flush files that are open for reading only.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    """Make the rename durable where folders can be flushed: not on Windows and some mounts."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_PER_VALUE, _PER_CONTAINER = 64, 300  # bytes of memory, measured with pydantic 2.14


def unpacked(packed: bytes, largest: int) -> bytes:
    """Decompress gzip or zlib data, never to more than `largest` bytes.

    Raises ValueError if it is damaged, in several parts or larger.

    >>> import gzip
    >>> unpacked(gzip.compress(b"abc"), 3)
    b'abc'
    >>> unpacked(gzip.compress(b"abcd"), 3)
    Traceback (most recent call last):
    ...
    ValueError: it decompresses to more than 3 bytes, the limit
    """
    unpacker = zlib.decompressobj(wbits=47)  # detects gzip or zlib by the first bytes
    try:
        content = unpacker.decompress(packed, largest + 1)
    except zlib.error as error:
        raise ValueError("its compressed data is damaged") from error
    if len(content) > largest:
        raise ValueError(f"it decompresses to more than {largest:,} bytes, the limit")
    if not unpacker.eof:
        raise ValueError("its compressed data is truncated")
    if unpacker.unused_data.strip(b"\0"):  # some programs pad with zeros
        raise ValueError("it has extra bytes after its compressed data")
    return content


def json_memory(text: bytes) -> int:
    """Upper estimate of the memory, in bytes, that the values of a JSON text take."""
    values, containers = (sum(map(text.count, signs)) for signs in ((b",", b":"), (b"{", b"[")))
    return _PER_VALUE * values + _PER_CONTAINER * containers


def json_value(text: bytes, most: int = 2**30) -> Any:
    """The value of a JSON text.

    Raises ValueError if it is not JSON, is nested too deeply, or may take more than `most` bytes of
    memory.
    """
    if json_memory(text) > most:
        raise ValueError(f"it would take more than {most:,} bytes of memory")
    return from_json(text)
