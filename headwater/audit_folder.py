"""Audit folder: the results of an audit so far, pair by pair.

audit.json          settings of the audit: all pairs of a folder share them
NAME/pair.json      result of a pair; written last, so that it marks a complete pair
NAME/first.safetensors, NAME/second.safetensors, NAME/page.html
index.html          all pairs, and the features that recur
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

import graphs
import viz
from graphs.core.identity import same_source
from graphs.disk.files import atomic_write, json_text, json_value, make_folder, new_folder
from graphs.disk.portable import portable
from headwater.arguments.usage import UsageError

HEADER, RESULT, PAGE, INDEX = "audit.json", "pair.json", "page.html", "index.html"
SIDES = ("first", "second")
# Options whose settings are stored under another key; every other key is its option's name.
OPTIONS = {
    "carriers": "--mediators",
    "context-only": "--prefix",
    "opening": "--bos",
    "points": "--read-at, --write-at or --fill",
}


@dataclass(frozen=True)
class AuditFolder:
    """A folder for one audit."""

    path: Path

    def settings(self) -> dict[str, object] | None:
        """The settings, None for a new folder.  Raises UsageError for a damaged header."""
        header = self.path / HEADER
        if not header.exists():
            return None
        try:
            stored = json_value(json_text(header))
        except ValueError:
            stored = None
        if not isinstance(stored, dict):
            raise UsageError(f"{header} is damaged: give --out another folder.")
        return stored

    def begin(self, settings: dict[str, object], unspecified: dict[str, object]) -> None:
        """Store the settings.  Raises UsageError for an audit that was begun with other settings.

        `unspecified` has the values of settings that headers of earlier versions lack.
        """
        stored = self.settings()
        if stored is None:
            with new_folder(self.path):
                _write(self.path / HEADER, json.dumps(settings, indent=1))
            return
        stored = unspecified | stored
        given = json.loads(json.dumps(settings))  # as the file would have it
        changed = [key for key in given if not _same(stored.get(key), given[key])]
        if changed:
            options = ", ".join(OPTIONS.get(key, f"--{key}") for key in changed)
            raise UsageError(
                f"The audit in {self.path} was begun with a different {options}: give --out "
                "another folder."
            )

    def done(self, pair: graphs.PromptPair) -> graphs.Audited | None:
        """The stored result of a pair; None if it is new, damaged or of other prompts."""
        folder = self.folder(pair)
        files = (*(f"{side}.safetensors" for side in SIDES), PAGE, RESULT)
        if not all((folder / name).is_file() for name in files):
            return None
        try:
            found = graphs.Audited.model_validate_json(json_text(folder / RESULT))
        except (ValidationError, graphs.GraphFileError):
            return None
        same = found.pair.model_copy(update={"kind": pair.kind}) == pair
        return found.model_copy(update={"pair": pair}) if same else None

    def keep(
        self,
        found: graphs.Audited,
        traced: tuple[graphs.AttributionGraph, graphs.AttributionGraph],
    ) -> None:
        """Write the files of a pair, the result last."""
        folder = self.folder(found.pair)
        make_folder(folder)
        with suppress(OSError):  # what cannot be removed cannot be written either
            (folder / RESULT).unlink(missing_ok=True)  # of other prompts
        files = [folder / f"{side}.safetensors" for side in SIDES]
        for graph, file in zip(traced, files, strict=True):
            graphs.write_graph(graph, file)
        unnoted = [(graph, graphs.NO_ANNOTATIONS) for graph in traced]
        viz.write_pages(unnoted, self.page(found), files=files)
        _write(folder / RESULT, found.model_dump_json(indent=1))

    def folder(self, pair: graphs.PromptPair) -> Path:
        """The folder of a pair."""
        return self.path / portable(pair.identifier)  # no other pair's name starts with a _

    def page(self, found: graphs.Audited) -> Path:
        """The page of a pair."""
        return self.folder(found.pair) / PAGE

    def index(self, found: list[graphs.Audited], problems: list[str]) -> Path:
        """Write the page that lists all pairs."""
        index = self.path / INDEX
        pages = [self.page(one).relative_to(self.path).as_posix() for one in found]
        viz.write_audit(found, pages, problems, index)
        return index


def _same(stored: object, given: object) -> bool:
    """Whether two settings are equal; models are compared by contents where these are known."""
    try:
        one, other = map(graphs.ModelIdentity.model_validate, (stored, given))
    except ValidationError:
        return stored == given
    return same_source(one, other)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
