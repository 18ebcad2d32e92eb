"""Repositories on the Hugging Face Hub: what one holds at a commit, and one file at a time.

Downloads, their cache, resuming and tokens are huggingface_hub's; here every way to fail becomes
one sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
from safetensors import SafetensorError


class HubError(ValueError):
    """The Hub does not give what was asked of it."""


REASONS: tuple[tuple[type[BaseException], str], ...] = (  # subclasses first
    (GatedRepoError, "its repository is gated, ask for access there and run `hf auth login`"),
    (RevisionNotFoundError, "its repository has no such revision"),
    (RepositoryNotFoundError, "the Hugging Face Hub has no such repository, or it is private"),
    (HFValidationError, "it is neither a folder here nor a possible name on the Hub"),
    (LocalEntryNotFoundError, "the Hub cannot be reached and the local cache has no copy"),
    (EntryNotFoundError, "its repository has no such file"),
    (OfflineModeIsEnabled, "the Hub is switched off and the local cache has no copy"),
    (SafetensorError, "its weights are damaged or incomplete, delete them and fetch them again"),
)


@dataclass(frozen=True)
class Repository:
    """One repository at one commit."""

    name: str
    commit: str
    files: tuple[str, ...]

    def fetch(self, file: str) -> Path:
        """A file in the local cache, downloaded if it is not there.  Raises HubError."""
        try:
            return Path(hf_hub_download(self.name, file, revision=self.commit))
        except Exception as error:  # the client's own, and those of whatever carries it
            raise HubError(f"{file} of {self.name!r} cannot be had: {reason(error)}.") from error


def open_repository(name: str, revision: str | None = None) -> Repository:
    """What a repository holds; without the Hub, what the local cache has of it.

    Raises HubError if neither knows it.
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
        return _cached(name, revision, error)
    files = tuple(sorted(file.rfilename for file in info.siblings or ()))
    return Repository(name, str(info.sha), files)


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
    return Repository(name, folder.name, tuple(str(file.relative_to(folder)) for file in files))


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
