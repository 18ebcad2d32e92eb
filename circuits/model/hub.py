"""Repositories on the Hugging Face Hub: the files of one commit, downloaded one at a time.

huggingface_hub does downloads, caching, resuming and authentication; here every failure becomes
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
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from platformdirs import user_cache_path
from safetensors import SafetensorError

from graphs import GraphFileError
from graphs.disk.files import atomic_write, json_value, make_folder
from graphs.errors import HeadwaterError


class HubError(HeadwaterError):
    """A repository or file on the Hub is not available."""


NO_SUCH_FILE = "its repository has no such file"
REASONS: tuple[tuple[type[BaseException], str], ...] = (  # subclasses first
    (GatedRepoError, "its repository is gated, request access there and run `hf auth login`"),
    (RevisionNotFoundError, "its repository has no such revision"),
    (RepositoryNotFoundError, "the Hugging Face Hub has no such repository, or it is private"),
    (HFValidationError, "it is neither a local folder nor a valid name on the Hub"),
    (LocalEntryNotFoundError, "the Hub cannot be reached and the local cache has no copy"),
    (EntryNotFoundError, NO_SUCH_FILE),
    (OfflineModeIsEnabled, "offline mode is on and the local cache has no copy"),
    (SafetensorError, "its weights are damaged or incomplete, delete them and download them again"),
)


@dataclass(frozen=True)
class Repository:
    """One repository at one commit."""

    name: str
    commit: str
    files: tuple[str, ...]
    listed: bool = True  # whether `files` is known to be complete

    def fetch(self, file: str) -> Path:
        """A file in the local cache, downloaded if necessary.  Raises HubError."""
        try:
            return Path(hf_hub_download(self.name, file, revision=self.commit))
        except Exception as error:  # the client's own errors and those of its transport
            raise HubError(
                f"{file} of {self.name!r} could not be downloaded: {reason(error)}."
            ) from error


def open_repository(name: str, revision: str | None = None) -> Repository:
    """The files of a repository; offline, those that it had when it was last opened.

    If it was never opened, those in the local cache, which may be incomplete.  Raises HubError if
    there are none.
    """
    try:
        info = HfApi().model_info(name, revision=revision)
    except (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        HFValidationError,
    ) as error:
        raise HubError(f"{name!r} could not be opened: {reason(error)}.") from error
    except Exception as error:  # no network, which raises many classes
        return _cached_listing(name, revision) or _cached_copy(name, revision, error)
    files = tuple(sorted(file.rfilename for file in info.siblings or ()))
    repository = Repository(name, str(info.sha), files)
    _cache_listing(repository, revision)
    return repository


def is_unreachable(name: str, revision: str | None = None) -> bool:
    """Whether the Hub gives no answer about a repository, not even that there is none.

    huggingface_hub tries six times for every file, half a minute for each.
    """
    if constants.is_offline_mode():
        return False  # nothing is asked, and its own error says so
    try:
        HfApi().model_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (HfHubHTTPError, HFValidationError):
        return False
    except Exception:  # no network, which raises many classes
        return True
    return False


def _listing(name: str, revision: str | None) -> Path:
    """Where the list of a repository's files is cached for offline use."""
    file = f"{quote(name, safe='')}@{quote(revision or '', safe='')}.json"
    return user_cache_path("headwater") / "hub" / file


def _cache_listing(repository: Repository, revision: str | None) -> None:
    text = json.dumps({"commit": repository.commit, "files": repository.files})
    with suppress(GraphFileError):  # go on without a cache if it cannot be written
        for key in {revision, repository.commit}:
            path = _listing(repository.name, key)
            make_folder(path.parent)
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")


def _cached_listing(name: str, revision: str | None) -> Repository | None:
    try:
        listing = json_value(_listing(name, revision).read_bytes())
        return Repository(name, listing["commit"], tuple(listing["files"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _cached_copy(name: str, revision: str | None, cause: Exception) -> Repository:
    """The cached copy of a revision; without a revision, the copy that was downloaded last."""
    snapshots = Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}", "snapshots")
    copies = sorted(snapshots.glob("*"), key=lambda folder: folder.stat().st_mtime)
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception as error:
        if revision is not None or not copies:
            raise HubError(
                f"{name!r} could not be opened: the Hub cannot be reached and the local cache has "
                f"no copy ({reason(cause)})."
            ) from error
        folder = copies[-1]
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return Repository(name, folder.name, names, listed=False)


def reason(error: BaseException) -> str:
    """The reason of an error, in a few words."""
    return known_reason(error) or (
        (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    )


def known_reason(error: BaseException) -> str | None:
    """The reason of the first known class among an error and its causes, None if none is known."""
    cause: BaseException | None = error
    while cause is not None:
        for kind, known in REASONS:
            if isinstance(cause, kind):
                return known
        cause = cause.__cause__ or cause.__context__
    return None
