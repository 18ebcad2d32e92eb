"""Outputs: where a command may write, checked before it begins.

No output may be an input, under any link, or replace a file whose content is of another kind.  A
folder that is written to has to be new, empty or of the same run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphs import GraphFileError, annotations_path
from graphs.core.annotations import ANNOTATIONS_SUFFIX
from graphs.disk.files import real_path, reason
from graphs.disk.leftovers import is_temporary
from headwater.arguments.usage import UsageError
from headwater.outputs.kinds import Kind, kind_of

# Suffixes by which kinds are known; a name may also have none.
NAMED = {Kind.GRAPH: (".safetensors",), Kind.PAGE: (".html", ".htm")}


@dataclass(frozen=True)
class Output:
    """A file that a command writes."""

    path: Path
    kind: Kind
    option: str = "--out"  # that names it


def output_to(path: Path | None, kind: Kind, option: str = "--out") -> tuple[Output, ...]:
    """The outputs of an option, none if it is not given; a graph has annotations beside it."""
    if path is None:
        return ()
    annotations = (Output(annotations_path(path), Kind.ANNOTATIONS, option),)
    return (Output(path, kind, option), *(annotations if kind == Kind.GRAPH else ()))


def graph_files(*graphs: Path) -> tuple[Path, ...]:
    """The files that reading graphs touches: the graphs and the annotations beside them."""
    return tuple(path for graph in graphs for path in (graph, annotations_path(graph)))


def require_outputs(outputs: Sequence[Output], *inputs: Path | str | None) -> None:
    """Raises UsageError or GraphFileError if outputs cannot be written or would overwrite files.

    Inputs are what a command reads: paths, and strings that are a path or a name on the Hub.
    """
    for number, output in enumerate(outputs):
        try:
            _require_place(output.path)
            _require_name(output)
            if any(_is_same(output.path, other.path) for other in outputs[:number]):
                raise UsageError(
                    f"Two outputs would go to {output.path}: give each a file of its own."
                )
            _require_other(output, inputs)
            _require_kind(output)
            _require_suffix(output)
        except (UsageError, GraphFileError):
            raise
        except (OSError, ValueError) as error:  # a name that is too long, a file that is not ours
            raise GraphFileError(f"Cannot write {output.path}: {reason(error).lower()}.") from error


def require_folder(folder: Path, mark: str, *inputs: Path | str | None) -> None:
    """Raises UsageError or GraphFileError unless a folder is new, empty or has the file `mark`.

    The mark identifies the folder of a run that can continue; no input may lie in it.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file: give --out a folder.")
        above = next((one for one in (folder, *folder.parents) if one.exists()), folder)
        if not above.is_dir():
            raise GraphFileError(f"Cannot write to the folder {folder}: {above} is a file.")
        if not os.access(above, os.W_OK):
            raise GraphFileError(f"{above} cannot be written to: choose another folder.")
        if (folder / mark).is_file():
            _require_apart(folder, _paths(inputs))
        elif folder.exists():
            for other in sorted(folder.iterdir()):
                if not is_temporary(other):
                    raise UsageError(
                        f"{folder} has other files in it, such as {other.name}: give --out a new "
                        "or empty folder."
                    )
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise GraphFileError(f"Cannot write to the folder {folder}: {reason(error)}.") from error


def _require_apart(folder: Path, inputs: Iterable[Path]) -> None:
    files = [file for file in folder.rglob("*") if file.is_file()]
    for read in inputs:
        if any(_is_same(read, file) for file in files):
            raise UsageError(f"{read} lies in {folder}: give --out a folder without it.")


def _require_place(path: Path) -> None:
    final = real_path(path)
    if final.is_dir():
        raise GraphFileError(f"{path} is a folder: give a file name.")
    if final.exists() and not final.is_file():
        raise GraphFileError(f"{path} exists and is not a file: give another name.")
    if not final.parent.is_dir():
        raise GraphFileError(f"There is no folder {final.parent}: create it first.")
    if not os.access(final.parent, os.W_OK):
        raise GraphFileError(f"{final.parent} cannot be written to: choose another folder.")


def _require_name(output: Output) -> None:
    """Raises UsageError for a name by which the file would be read as another kind."""
    path = output.path
    if output.kind != Kind.ANNOTATIONS and path.name.endswith(ANNOTATIONS_SUFFIX):
        raise UsageError(
            f"{path} would be read as annotations of a graph: give {output.option} another name."
        )


def _require_other(output: Output, inputs: Iterable[Path | str | None]) -> None:
    if output.kind == Kind.ANNOTATIONS:  # existing ones are kept or added to
        return
    if any(_is_same(output.path, read) for read in _paths(inputs)):
        raise UsageError(
            f"Writing {output.path} would overwrite the input: give {output.option} another name."
        )


def _require_kind(output: Output) -> None:
    existing = kind_of(output.path) if output.path.exists() else None
    if existing not in (None, output.kind):
        raise UsageError(
            f"Writing {output.path} would overwrite {existing}: give {output.option} another name."
        )


def _require_suffix(output: Output) -> None:
    """Raises UsageError for a name that promises something else."""
    path, expected = output.path, NAMED.get(output.kind)
    if expected is not None and path.suffix.lower() not in ("", *expected):
        raise UsageError(
            f"{path} is not the name of {output.kind}: name it "
            f"{path.with_suffix(expected[0]).name}."
        )


def _paths(inputs: Iterable[Path | str | None]) -> Iterable[Path]:
    return (Path(read) for read in inputs if read is not None)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, through links of any kind; it need not exist."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        here, there = (os.path.normcase(os.path.realpath(path)) for path in (one, other))
        return here == there
