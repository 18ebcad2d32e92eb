"""Repositories on the Hugging Face Hub: what one holds at a commit, and one file at a time.

Downloads, their cache, resuming and tokens are huggingface_hub's; here every way to fail becomes
one sentence.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from platformdirs import user_cache_path
from safetensors import SafetensorError

from graphs import GraphFileError
from graphs.disk.bounded import json_value
from graphs.disk.files import atomic_write, make_folder
from graphs.errors import HeadwaterError


class HubError(HeadwaterError):
    """The Hub does not give what was asked of it."""


NO_SUCH_FILE = "its repository has no such file"
REASONS: tuple[tuple[type[BaseException], str], ...] = (  # subclasses first
    (GatedRepoError, "its repository is gated, ask for access there and run `hf auth login`"),
    (RevisionNotFoundError, "its repository has no such revision"),
    (RepositoryNotFoundError, "the Hugging Face Hub has no such repository, or it is private"),
    (HFValidationError, "it is neither a folder here nor a possible name on the Hub"),
    (LocalEntryNotFoundError, "the Hub cannot be reached and the local cache has no copy"),
    (EntryNotFoundError, NO_SUCH_FILE),
    (OfflineModeIsEnabled, "the Hub is switched off and the local cache has no copy"),
    (SafetensorError, "its weights are damaged or incomplete, delete them and fetch them again"),
)


@dataclass(frozen=True)
class Repository:
    """One repository at one commit."""

    name: str
    commit: str
    files: tuple[str, ...]
    listed: bool = True  # whether these are all files that it has

    def fetch(self, file: str) -> Path:
        """A file in the local cache, downloaded if it is not there.  Raises HubError."""
        try:
            return Path(hf_hub_download(self.name, file, revision=self.commit))
        except Exception as error:  # the client's own, and those of whatever carries it
            raise HubError(f"{file} of {self.name!r} cannot be had: {reason(error)}.") from error


def open_repository(name: str, revision: str | None = None) -> Repository:
    """What a repository holds; without the Hub, what it held when it was last opened.

    Without that either it is what the local cache has, which may not be all.  Raises HubError if
    nothing is known of it.
    """
    try:
        info = HfApi().model_info(name, revision=revision)
    except (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        HFValidationError,
    ) as error:
        raise HubError(f"{name!r} cannot be had: {reason(error)}.") from error
    except Exception as error:  # no network, in any of its ways
        return _remembered(name, revision) or _cached(name, revision, error)
    files = tuple(sorted(file.rfilename for file in info.siblings or ()))
    repository = Repository(name, str(info.sha), files)
    _remember(repository, revision)
    return repository


def _listing(name: str, revision: str | None) -> Path:
    """Where the list of a repository's files is kept for when the Hub cannot be reached."""
    file = f"{quote(name, safe='')}@{quote(revision or '', safe='')}.json"
    return user_cache_path("headwater") / "hub" / file


def _remember(repository: Repository, revision: str | None) -> None:
    text = json.dumps({"commit": repository.commit, "files": repository.files})
    with suppress(GraphFileError):  # a cache that cannot be written to is no cache
        for asked in {revision, repository.commit}:
            path = _listing(repository.name, asked)
            make_folder(path.parent)
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")


def _remembered(name: str, revision: str | None) -> Repository | None:
    try:
        told = json_value(_listing(name, revision).read_bytes())
        return Repository(name, told["commit"], tuple(told["files"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _cached(name: str, revision: str | None, cause: Exception) -> Repository:
    """The copy of a revision, or without one the copy that was fetched last."""
    snapshots = Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}", "snapshots")
    copies = sorted(snapshots.glob("*"), key=lambda folder: folder.stat().st_mtime)
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception as error:
        if revision is not None or not copies:
            raise HubError(
                f"{name!r} cannot be had: the Hub cannot be reached and the local cache has no "
                f"copy ({reason(cause)})."
            ) from error
        folder = copies[-1]
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return Repository(name, folder.name, names, listed=False)


def reason(error: BaseException) -> str:
    """Why, in a few words."""
    return known_reason(error) or (
        (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    )


def known_reason(error: BaseException) -> str | None:
    """What the first known error among an error and its causes means, if there is any."""
    cause: BaseException | None = error
    while cause is not None:
        for kind, known in REASONS:
            if isinstance(cause, kind):
                return known
        cause = cause.__cause__ or cause.__context__
    return None
