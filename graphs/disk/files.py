"""Files: written whole or not at all, and refused with one sentence.

A file is written under a temporary name in its own folder, flushed to the disk and then renamed:
whoever opens the final name sees the old file or the new one, never a part of either.  A symbolic
link stays, and what it leads to is replaced.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from graphs.disk.bounded import json_memory, unpacked
from graphs.disk.leftovers import remove_leftovers, temporary_path
from graphs.errors import HeadwaterError

LARGEST_JSON = 2**28  # bytes; Neuronpedia takes files of up to 100 MiB
MOST_MEMORY = 2**32  # bytes that reading a JSON may take
_GZIP = b"\x1f\x8b\x08"


class GraphFileError(HeadwaterError):
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
    final, temporary, mode = _reserve(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(mode)  # safetensors makes its files private
        temporary.replace(final)
        _flush_folder(final.parent)
    except GraphFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: what is no JSON or no text
        raise GraphFileError(f"Cannot write {path}: {reason(error)}.") from error
    finally:
        with suppress(OSError):  # it is the file by now
            temporary.unlink()


def make_folder(path: Path) -> None:
    """Make a folder and those above it.  Raises GraphFileError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraphFileError(f"Cannot write to the folder {path}: {reason(error)}.") from error


@contextmanager
def new_folder(path: Path) -> Generator[None]:
    """As `make_folder`; if the block fails, folders that were made for it go again."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    make_folder(path)
    try:
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):  # there is something in it
                folder.rmdir()
        raise


def real_path(path: Path | str) -> Path:
    """The file behind symbolic links, which need not be there.

    Raises OSError or ValueError for a name that cannot be one, and for links in a circle.
    """
    final = Path(os.path.realpath(path))
    if final.is_symlink():
        raise OSError("it is a link that leads to itself")
    return final


def file_text(path: Path | str) -> bytes:
    """Everything in a file.  Raises GraphFileError if it is missing, a folder or unreadable."""
    try:
        return regular_file(path).read_bytes()
    except OSError as error:
        raise GraphFileError(f"Cannot read {path}: {reason(error)}.") from error


def is_packed(start: bytes) -> bool:
    """Whether a file that begins with these 9 bytes or more is packed with gzip.

    A safetensors file may begin with the same 8, the length of its header, but then comes `{`.
    """
    return start.startswith(_GZIP) and start[8:9] != b"{"


def json_text(path: Path | str) -> bytes:
    """A JSON file, as it is or in gzip, of a size that is read in bounded time and memory.

    Raises GraphFileError if it is missing or unreadable, larger than LARGEST_JSON or likely to take
    more than MOST_MEMORY, since small values take many times their text.
    """
    size = regular_file(path).stat().st_size
    if size > LARGEST_JSON:
        raise GraphFileError(
            f"{path} has {size / 2**20:,.0f} MiB, JSON of up to {LARGEST_JSON // 2**20} MiB is "
            "read: prune the graph and export it again."
        )
    text = file_text(path)
    if is_packed(text):
        try:
            text = unpacked(text, LARGEST_JSON)
        except ValueError as error:
            raise GraphFileError(f"Cannot read {path}: {error}.") from error
    text = text.removeprefix(codecs.BOM_UTF8)
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
        raise GraphFileError(f"Cannot read {path}: {reason(error)}.") from error
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

    >>> from graphs.core.provenance import Target
    >>> try:
    ...     Target.model_validate({"text": "a", "probability": 2})
    ... except ValidationError as error:
    ...     first_problem(error)
    'probability: Input should be less than or equal to 1'
    """
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join([*([inside] if inside else []), *map(str, problem["loc"])])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def reason(error: OSError | ValueError) -> str:
    """What the error says in one line without a full stop."""
    if isinstance(error, ValidationError):
        return first_problem(error)
    return ((error.strerror if isinstance(error, OSError) else None) or str(error)).rstrip(".")


def _reserve(path: Path | str) -> tuple[Path, Path, int]:
    """Where to write, a temporary file there, and the permissions that the final one shall have."""
    try:
        final = real_path(path)
        if final.exists() and not final.is_file():
            raise GraphFileError(f"Cannot write {path}: it is there and is not a file.")
        if not final.parent.is_dir():
            raise GraphFileError(f"Cannot write {path}: there is no folder {final.parent}.")
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
    descriptor = os.open(path, os.O_RDWR)  # Windows flushes nothing that was opened for reading
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    """Make a new name last, where folders can be flushed: not on Windows and some mounts."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
