"""Where a dictionary's files lie: a folder here, or one of a repository on the Hugging Face Hub.

A reference is a path, or `owner/name[/folder…][@revision]`, or `hf://owner/name/folder…`
(`?revision=…`).  Published sets often keep one folder per layer,

    transcoder_all/layer_3_width_16k_l0_small/params.safetensors        Gemma Scope 2
    layer_3/width_16k/average_l0_54/params.npz                          Gemma Scope 1

and are named as a whole without the layer: `transcoder_all/width_16k_l0_small` and
`width_16k/average_l0_60`, where every layer gives the folder whose L0 is nearest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qs, unquote, urlsplit

from circuits.model.hub import Repository, open_repository
from graphs.disk.files import reason
from graphs.errors import HeadwaterError

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(/[^@]+)?(@[^@]+)?")
MOST_FILES = 100_000  # and folders; the largest repository of dictionaries has some thousands
NAMED = 8  # folders that a refusal names at most
CONFIGS = ("config.json", "cfg.json")  # beside weights
# sparsify's training run, above the folders of its layers, and what these hold
RUN, ABOVE, RUN_WEIGHTS = "config.json", "../", "sae.safetensors"


class PlaceError(HeadwaterError):
    """A reference leads to no files."""


@runtime_checkable
class Place(Protocol):
    """Some files under one name; they may be far away until `path` is asked for."""

    @property
    def name(self) -> str:
        """As people refer to it, without its revision."""
        ...

    @property
    def revision(self) -> str | None:
        """The commit on the Hub; None for a folder here."""
        ...

    @property
    def listed(self) -> bool:
        """Whether it is known that there are no more files."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Names inside the place, sorted."""
        ...

    def path(self, file: str) -> Path:
        """The file here, fetched if need be.  Raises HubError if it cannot be had."""
        ...


@dataclass(frozen=True)
class Folder:
    """Files of a folder here: name inside the place → path."""

    name: str
    found: Mapping[str, Path]
    revision: None = None
    listed: bool = True

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(sorted(self.found))

    def path(self, file: str) -> Path:
        return self.found[file]


@dataclass(frozen=True)
class HubFolder:
    """Files of a repository: name inside the place → name in the repository."""

    name: str
    found: Mapping[str, str]
    repository: Repository

    @property
    def revision(self) -> str | None:
        return self.repository.commit

    @property
    def listed(self) -> bool:
        return self.repository.listed

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(sorted(self.found))

    def path(self, file: str) -> Path:
        return self.repository.fetch(self.found[file])


@dataclass(frozen=True)
class Reference:
    """A name on the Hub, taken apart."""

    repository: str
    folder: str = ""
    revision: str | None = None


def find_place(reference: str | Path, revision: str | None = None) -> Place:
    """The files behind a reference.

    Raises PlaceError for a path or folder that is not there, HubError if the Hub does not give it.
    """
    text = str(reference)
    hub = parse_reference(text)
    here = None if text.startswith("hf://") else _here(Path(text), known=hub is None)
    if here is not None:
        return here
    if hub is None:
        raise PlaceError(
            f"There is no {text!r}: give a folder, or a name on the Hugging Face Hub "
            "(owner/name/folder)."
        )
    repository = open_repository(hub.repository, hub.revision or revision)
    found = chosen(repository.files, hub.folder)
    if not found:
        raise PlaceError(_nothing(f"{hub.repository!r} on the Hub", repository.files, hub.folder))
    name = f"{hub.repository}/{hub.folder}".rstrip("/")
    return HubFolder(name, found, repository)


def parse_reference(text: str) -> Reference | None:
    """A name on the Hub, if the text can be one.

    >>> parse_reference("google/scope/clt/width_262k_l0_big@main")
    Reference(repository='google/scope', folder='clt/width_262k_l0_big', revision='main')
    >>> parse_reference("hf://a/b/c/params.npz?revision=v1")
    Reference(repository='a/b', folder='c/params.npz', revision='v1')
    """
    revision = None
    if text.startswith("hf://"):
        try:
            split = urlsplit(text)
        except ValueError:  # an open bracket, where an address would be
            return None
        revision = parse_qs(split.query).get("revision", [None])[0]
        text = unquote(f"{split.netloc}{split.path}")
    if text.startswith((".", "/", "~")) or not HUB_NAME.fullmatch(text):
        return None
    text, _, at = text.partition("@")
    owner, name, *folder = text.rstrip("/").split("/")
    return Reference(f"{owner}/{name}", "/".join(part for part in folder if part), at or revision)


def chosen(files: tuple[str, ...], folder: str) -> dict[str, str]:
    """Names inside a folder, or inside the folders per layer that it stands for → their own."""
    if not folder:
        return {file: file for file in files}
    parent, _, last = folder.rpartition("/")
    if folder in files:  # and what says what it is
        told = {name: f"{parent}/{name}".lstrip("/") for name in CONFIGS}
        return {last: folder} | {name: file for name, file in told.items() if file in files}
    inside = {
        file.removeprefix(f"{folder}/"): file for file in files if file.startswith(f"{folder}/")
    }
    if inside:
        run = f"{parent}/{RUN}".lstrip("/")
        return inside | ({f"{ABOVE}{RUN}": run} if run in files and _is_one_layer(inside) else {})
    return _one_per_layer(files, folder) or _nearest_l0(files, folder)


def _one_per_layer(files: tuple[str, ...], folder: str) -> dict[str, str]:
    parent, _, tail = folder.rpartition("/")
    prefix = f"{parent}/" if parent else ""
    pattern = re.compile(rf"{re.escape(prefix)}(layer_\d+)_{re.escape(tail)}/(.+)")
    matches = ((pattern.fullmatch(file), file) for file in files)
    return {f"{match[1]}/{match[2]}": file for match, file in matches if match}


def _nearest_l0(files: tuple[str, ...], folder: str) -> dict[str, str]:
    asked = re.fullmatch(r"(?:(.+)/)?([^/]+)/average_l0_(\d+)", folder)
    if asked is None:
        return {}
    prefix = f"{asked[1]}/" if asked[1] else ""
    pattern = re.compile(
        rf"{re.escape(prefix)}(layer_\d+)/{re.escape(asked[2])}/average_l0_(\d+)/(.+)"
    )
    nearest: dict[str, tuple[int, str]] = {}
    for file in files:
        match = pattern.fullmatch(file)
        if match:
            key, distance = f"{match[1]}/{match[3]}", abs(int(match[2]) - int(asked[3]))
            nearest[key] = min(nearest.get(key, (distance, file)), (distance, file))
    return {key: file for key, (_, file) in nearest.items()}


def _here(path: Path, *, known: bool) -> Folder | None:
    """A folder on this machine, or those per layer that a path stands for.

    `known` says that the path can be nothing else.
    """
    if _is_folder(path):
        files, run = _listed(path), path.resolve().parent / RUN
        above = {f"{ABOVE}{RUN}": run} if run.is_file() and _is_one_layer(files) else {}
        return Folder(path.resolve().name, files | above)
    if path.is_file():
        told = {name: path.parent / name for name in CONFIGS}
        beside = {name: file for name, file in told.items() if file.is_file()}
        return Folder(path.name, {path.name: path} | beside)
    for above in path.parents:
        # Only where there are folders per layer: a search of anything else could take long.
        if _is_folder(above) and any(child.is_dir() for child in above.glob("layer_*")):
            files = tuple(_listed(above))
            inside = path.relative_to(above).as_posix()
            found = chosen(files, inside)
            if found:
                return Folder(path.name, {name: above / file for name, file in found.items()})
            if known:
                raise PlaceError(_nothing(repr(str(above)), files, inside))
    return None


def _is_one_layer(files: Mapping[str, object]) -> bool:
    """Whether these are of one layer of a run whose config lies above: sparsify's."""
    return RUN_WEIGHTS in files


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise PlaceError(f"Cannot read {path}: {reason(error)}.") from error


def _listed(folder: Path) -> dict[str, Path]:
    found = list(islice(folder.rglob("*"), MOST_FILES + 1))
    if len(found) > MOST_FILES:
        raise PlaceError(
            f"{folder} holds more than {MOST_FILES:,} files: name the folder of the dictionary."
        )
    files = (file for file in sorted(found) if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in files}


def _nothing(where: str, files: tuple[str, ...], folder: str) -> str:
    """The sentence that names the folders there are."""
    folders = sorted({_without_layer(file.rpartition("/")[0]) for file in files} - {""})
    near = get_close_matches(folder, folders, NAMED, 0.3) or folders[:NAMED]
    some = ", ".join(near) or "no folder at all"
    more = f" and {len(folders) - len(near)} more" if len(folders) > len(near) else ""
    return f"There is no {folder!r} in {where}: it has {some}{more}."


def _without_layer(folder: str) -> str:
    """The name of the whole set that a folder of one layer belongs to."""
    return re.sub(r"(^|/)layer_\d+[_/]", r"\1", folder)
