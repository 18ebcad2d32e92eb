"""Where a dictionary's files are: a local folder, or one of a repository on the Hugging Face Hub.

A reference is a path, or `owner/name[/folder…][@revision]`, or `hf://owner/name/folder…`
(`?revision=…`).  Published sets often have one folder per layer,

    transcoder_all/layer_3_width_16k_l0_small/params.safetensors        Gemma Scope 2
    layer_3/width_16k/average_l0_54/params.npz                          Gemma Scope 1

and are referred to as a whole without the layer: `transcoder_all/width_16k_l0_small` and
`width_16k/average_l0_60`, for which each layer's folder with the nearest L0 is used.
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
SUGGESTED = 8  # folders that an error lists at most
CONFIGS = ("config.json", "cfg.json")  # beside weights
# Config of sparsify's training run, above the folders of its layers, and the weights in these.
RUN, ABOVE, RUN_WEIGHTS = "config.json", "../", "sae.safetensors"


class LocationError(HeadwaterError):
    """A reference does not lead to any files."""


@runtime_checkable
class Location(Protocol):
    """Files under one name; remote ones are downloaded by `path`."""

    @property
    def name(self) -> str:
        """The name that people use, without the revision."""
        ...

    @property
    def revision(self) -> str | None:
        """The commit on the Hub; None for a local folder."""
        ...

    @property
    def listed(self) -> bool:
        """Whether `files` is known to be complete."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Names inside the location, sorted."""
        ...

    def path(self, file: str) -> Path:
        """The local file, downloaded if necessary.  Raises HubError if that fails."""
        ...


@dataclass(frozen=True)
class Folder:
    """Files of a local folder: name inside the location → path."""

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
    """Files of a repository: name inside the location → name in the repository."""

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
    """A name on the Hub, parsed."""

    repository: str
    folder: str = ""
    revision: str | None = None


def find_location(reference: str | Path, revision: str | None = None) -> Location:
    """The files behind a reference.

    Raises LocationError for a path or folder that does not exist, HubError if the repository is
    not available.
    """
    text = str(reference)
    hub = parse_reference(text)
    local = None if text.startswith("hf://") else _local(Path(text), must_exist=hub is None)
    if local is not None:
        return local
    if hub is None:
        raise LocationError(
            f"There is no {text!r}: give a folder, or a name on the Hugging Face Hub "
            "(owner/name/folder)."
        )
    repository = open_repository(hub.repository, hub.revision or revision)
    found = chosen(repository.files, hub.folder)
    if not found:
        raise LocationError(
            _not_found(f"{hub.repository!r} on the Hub", repository.files, hub.folder)
        )
    name = f"{hub.repository}/{hub.folder}".rstrip("/")
    return HubFolder(name, found, repository)


def parse_reference(text: str) -> Reference | None:
    """The name on the Hub, if the text can be one.

    >>> parse_reference("google/scope/clt/width_262k_l0_big@main")
    Reference(repository='google/scope', folder='clt/width_262k_l0_big', revision='main')
    >>> parse_reference("hf://a/b/c/params.npz?revision=v1")
    Reference(repository='a/b', folder='c/params.npz', revision='v1')
    """
    revision = None
    if text.startswith("hf://"):
        try:
            split = urlsplit(text)
        except ValueError:  # an unclosed bracket, as of an IPv6 address
            return None
        revision = parse_qs(split.query).get("revision", [None])[0]
        text = unquote(f"{split.netloc}{split.path}")
    if text.startswith((".", "/", "~")) or not HUB_NAME.fullmatch(text):
        return None
    text, _, at = text.partition("@")
    owner, name, *folder = text.rstrip("/").split("/")
    return Reference(f"{owner}/{name}", "/".join(part for part in folder if part), at or revision)


def chosen(files: tuple[str, ...], folder: str) -> dict[str, str]:
    """Files of a folder or of the per-layer folders that it stands for, by name inside → name."""
    if not folder:
        return {file: file for file in files}
    parent, _, last = folder.rpartition("/")
    if folder in files:  # one file, with its config
        configs = {name: f"{parent}/{name}".lstrip("/") for name in CONFIGS}
        return {last: folder} | {name: file for name, file in configs.items() if file in files}
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
    wanted = re.fullmatch(r"(?:(.+)/)?([^/]+)/average_l0_(\d+)", folder)
    if wanted is None:
        return {}
    prefix = f"{wanted[1]}/" if wanted[1] else ""
    pattern = re.compile(
        rf"{re.escape(prefix)}(layer_\d+)/{re.escape(wanted[2])}/average_l0_(\d+)/(.+)"
    )
    nearest: dict[str, tuple[int, str]] = {}
    for file in files:
        match = pattern.fullmatch(file)
        if match:
            key, distance = f"{match[1]}/{match[3]}", abs(int(match[2]) - int(wanted[3]))
            nearest[key] = min(nearest.get(key, (distance, file)), (distance, file))
    return {key: file for key, (_, file) in nearest.items()}


def _local(path: Path, *, must_exist: bool) -> Folder | None:
    """A local folder or file, or the per-layer folders that a path stands for.

    With `must_exist`, a folder that is missing beside per-layer ones raises LocationError.
    """
    if _is_folder(path):
        files, run = _listed(path), path.resolve().parent / RUN
        above = {f"{ABOVE}{RUN}": run} if run.is_file() and _is_one_layer(files) else {}
        return Folder(path.resolve().name, files | above)
    if path.is_file():
        configs = {name: path.parent / name for name in CONFIGS}
        beside = {name: file for name, file in configs.items() if file.is_file()}
        return Folder(path.name, {path.name: path} | beside)
    for above in path.parents:
        # Only where there are per-layer folders: searching anything else could take long.
        if _is_folder(above) and any(child.is_dir() for child in above.glob("layer_*")):
            files = tuple(_listed(above))
            inside = path.relative_to(above).as_posix()
            found = chosen(files, inside)
            if found:
                return Folder(path.name, {name: above / file for name, file in found.items()})
            if must_exist:
                raise LocationError(_not_found(repr(str(above)), files, inside))
    return None


def _is_one_layer(files: Mapping[str, object]) -> bool:
    """Whether these are of one layer of a sparsify run, whose config is in the folder above."""
    return RUN_WEIGHTS in files


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise LocationError(f"Cannot read {path}: {reason(error)}.") from error


def _listed(folder: Path) -> dict[str, Path]:
    found = list(islice(folder.rglob("*"), MOST_FILES + 1))
    if len(found) > MOST_FILES:
        raise LocationError(
            f"{folder} has more than {MOST_FILES:,} files: give the folder of the dictionary."
        )
    files = (file for file in sorted(found) if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in files}


def _not_found(where: str, files: tuple[str, ...], folder: str) -> str:
    """The error for a missing folder, with the folders that exist."""
    folders = sorted({_without_layer(file.rpartition("/")[0]) for file in files} - {""})
    near = get_close_matches(folder, folders, SUGGESTED, 0.3) or folders[:SUGGESTED]
    some = ", ".join(near) or "no folder at all"
    more = f" and {len(folders) - len(near)} more" if len(folders) > len(near) else ""
    return f"There is no {folder!r} in {where}: it has {some}{more}."


def _without_layer(folder: str) -> str:
    """The name of the whole set that a folder of one layer belongs to."""
    return re.sub(r"(^|/)layer_\d+[_/]", r"\1", folder)
