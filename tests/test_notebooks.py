"""Notebooks lie in the repository as they were executed, and give the same when executed again."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

from tests.documents import assert_shown
from tests.test_documents import require_weights_of

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SAYS = {  # in its outputs
    "00_the_idea": "(20.249",
    "01_trace_a_prompt": "logit:9079@8",
    "02_compare_two_sizes": "50 of 50 go through the state",
    "03_test_it_in_the_model": "after='Sacramento'",
    "04_audit": "4 pairs of prompts",
    "05_attention": "head 4.5 at “ is” @8 gives “ capital” @2 0.98",
}
LARGEST = 100_000  # bytes of a notebook


def loaded(path: Path) -> Any:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


execute = loaded(FOLDER / "execute.py")


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == set(SAYS)


def said(notebook: Any) -> list[tuple[int, str]]:
    """What the code cells print, by their number."""
    return [
        (number, output.get("text") or output.get("data", {}).get("text/plain", ""))
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", ())
    ]


@pytest.mark.real_model
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_gives_what_it_shows(path: Path):
    stored = nbformat.read(path, as_version=4)
    require_weights_of("".join(cell.source for cell in stored.cells))
    shown, anew = said(stored), said(execute.executed(path))
    assert [number for number, _ in shown] == [number for number, _ in anew]
    for (number, text), (_, again) in zip(shown, anew, strict=True):
        assert_shown(text, again, f"cell {number}")
    assert SAYS[path.stem] in "".join(text for _, text in shown)


def test_what_a_cell_prints_in_pieces_is_one_output(tmp_path: Path):
    source = "import time\nprint('first', flush=True)\ntime.sleep(.5)\nprint('then')"
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source)])
    nbformat.write(notebook, tmp_path / "pieces.ipynb")
    assert said(execute.executed(tmp_path / "pieces.ipynb")) == [(0, "first\nthen\n")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_as_executed_and_small(path: Path):
    assert path.stat().st_size < LARGEST
    code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell.outputs) for cell in code) >= len(code) - 1
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type in ("stream", "execute_result", "display_data")
        assert output.get("name") != "stderr"
        assert "\x1b" not in str(output)
