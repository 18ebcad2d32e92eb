"""docs/contributing.md names every folder, and no file that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
PACKAGES = ("headwater", "circuits", "graphs", "viz")


def test_every_folder_has_its_paragraph():
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".js") and len(path.relative_to(ROOT).parts) > 2
    }
    assert {"circuits/model", "viz/viewer", "graphs/formats/neuronpedia"} <= folders
    told = set(re.findall(r"\*\*((?:headwater|circuits|graphs|viz)/[\w/]+)\*\*", PAGE))
    assert told == folders


def test_every_file_that_it_names_is_there():
    named = set(re.findall(r"`((?:headwater|circuits|graphs|viz|tests)/[\w./]+)`", PAGE))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
