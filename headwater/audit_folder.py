"""Audit folder: what an audit has found so far, pair by pair.

audit.json          what was audited and how: all pairs of a folder are of one model
NAME/pair.json      what was found of a pair; written last, so a pair is there whole or not
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
from graphs.disk.bounded import json_value
from graphs.disk.files import atomic_write, json_text, make_folder, new_folder
from headwater.cli.usage import UsageError

HEADER, FOUND, PAGE, INDEX = "audit.json", "pair.json", "page.html", "index.html"
SIDES = ("first", "second")


@dataclass(frozen=True)
class AuditFolder:
    """A folder for one audit."""

    path: Path

    def begun(self) -> dict[str, object] | None:
        """What was audited and how, if it was begun.  Raises UsageError for a damaged header."""
        header = self.path / HEADER
        if not header.exists():
            return None
        try:
            known = json_value(json_text(header))
        except ValueError:
            known = None
        if not isinstance(known, dict):
            raise UsageError(f"{header} is damaged: give --out another folder.")
        return known

    def begin(self, settings: dict[str, object], unsaid: dict[str, object]) -> None:
        """Say what is audited and how.  Raises UsageError if it was begun otherwise.

        `unsaid` are settings that former headers do not have, as they were then.
        """
        known = self.begun()
        if known is None:
            with new_folder(self.path):
                _write(self.path / HEADER, json.dumps(settings, indent=1))
            return
        known = unsaid | known
        asked = json.loads(json.dumps(settings))  # as the file would have it
        differ = [name for name in asked if not _same(known.get(name), asked[name])]
        if differ:
            raise UsageError(
                f"{self.path} holds an audit with another {', '.join(differ)}: give --out another "
                "folder."
            )

    def done(self, pair: graphs.PromptPair) -> graphs.Audited | None:
        """What was found of a pair earlier; None if it is new, damaged or now of other prompts."""
        folder = self.folder(pair)
        files = (*(f"{side}.safetensors" for side in SIDES), PAGE, FOUND)
        if not all((folder / name).is_file() for name in files):
            return None
        try:
            found = graphs.Audited.model_validate_json(json_text(folder / FOUND))
        except (ValidationError, graphs.GraphFileError):
            return None
        same = found.pair.model_copy(update={"kind": pair.kind}) == pair
        return found.model_copy(update={"pair": pair}) if same else None

    def keep(
        self,
        found: graphs.Audited,
        traced: tuple[graphs.AttributionGraph, graphs.AttributionGraph],
    ) -> None:
        """Write all of a pair, and that it is done last."""
        folder = self.folder(found.pair)
        make_folder(folder)
        with suppress(OSError):  # what cannot be removed cannot be written either
            (folder / FOUND).unlink(missing_ok=True)  # of other prompts
        for graph, side in zip(traced, SIDES, strict=True):
            graphs.write_graph(graph, folder / f"{side}.safetensors")
        viz.write_pages([(graph, graphs.NO_ANNOTATIONS) for graph in traced], self.page(found))
        _write(folder / FOUND, found.model_dump_json(indent=1))

    def folder(self, pair: graphs.PromptPair) -> Path:
        """Where all of a pair is."""
        return self.path / graphs.portable(pair.called)  # no other pair's name starts with a _

    def page(self, found: graphs.Audited) -> Path:
        """Where the page of a pair is."""
        return self.folder(found.pair) / PAGE

    def index(self, found: list[graphs.Audited], problems: list[str]) -> Path:
        """Write the page of all pairs."""
        index = self.path / INDEX
        pages = [self.page(one).relative_to(self.path).as_posix() for one in found]
        viz.write_audit(found, pages, problems, index)
        return index


def _same(known: object, asked: object) -> bool:
    """Whether two settings are one; of models the contents count, where they are known."""
    try:
        one, other = map(graphs.ModelIdentity.model_validate, (known, asked))
    except ValidationError:
        return known == asked
    return graphs.one_source(one, other)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
