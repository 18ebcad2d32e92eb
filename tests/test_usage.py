from __future__ import annotations

from pathlib import Path

import pytest

from circuits.cli.usage import UsageError, require_consistent, require_places
from graphs import GraphFileError


def test_two_outputs_need_two_files(tmp_path: Path):
    require_places(tmp_path / "a.json", None, tmp_path / "b.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="Two outputs would go to"):
        require_places(tmp_path / "a.json", tmp_path / "folder" / ".." / "a.json")


def test_an_output_needs_a_folder_that_is_there(tmp_path: Path):
    with pytest.raises(GraphFileError, match="is a folder: give the name of a file"):
        require_places(tmp_path)
    with pytest.raises(GraphFileError, match="There is no folder"):
        require_places(tmp_path / "none" / "a.json")
    with pytest.raises(GraphFileError, match="file name too long"):
        require_places(tmp_path / ("a" * 300))


def test_options_that_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other"):
        require_consistent(transcoders="folder", features="neurons", targets=[], against=None)
    with pytest.raises(UsageError, match="--against needs --target"):
        require_consistent(transcoders=None, features=None, targets=[], against="a")
