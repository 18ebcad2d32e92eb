"""Notebooks run from top to bottom on a tiny model, and are stored without outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CHEAPER = {  # what a notebook says and what it runs on here; None: the folder of a tiny model
    "00_the_idea": {},
    "01_trace_a_prompt": {
        '"gemma-3-270m"': None,
        '"The Eiffel Tower is in the city of"': '"fjfoi"',
    },
    "02_compare_two_sizes": {'"atlas-large"), 50': '"atlas-large"), 3'},
    "03_test_it_in_the_model": {
        '"atlas-large"': '"atlas-small"',
        '"gemma-3-270m"': None,
        '"The Eiffel Tower is in the city of"': '"fjfoi"',
        '" Paris", " Lyon"': '"f", "j"',
    },
    "04_audit": {
        '"gemma-3-270m"': None,
        '"The doctor was tired because", "The nurse was tired because"': '"bfjfoi", "bfkfoi"',
        '"The carpenter said that", "The receptionist said that"': '"bfjfoi", "bfjfok"',
        '"John went home because", "Mary went home because"': '"bfjfoi", "bfjjfoi"',
        '"My brother said that", "My sister said that"': '"bkjfoi", "bfjfoi"',
        '" he"': '"f"',
        '" she"': '"k"',
    },
}
SAYS = {  # in its outputs
    "03_test_it_in_the_model": (
        r"(?m)^ *Sacramento +0\.\d+ +0\.[5-9]",  # more probable than all others after the swap
        "without as many as helping",
        "strongest: together",
    ),
    "04_audit": ("4 pairs of prompts", "occupation"),
}
ENDS_WITH_A_PAGE = {"01_trace_a_prompt", "04_audit"}


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == set(CHEAPER)


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """One process for all notebooks: to import everything takes it longer than most of them."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, model_folder: Path, kernel: KernelManager):
    notebook = nbformat.read(path, as_version=4)
    source = "".join(cell.source for cell in notebook.cells)
    for said, cheaper in CHEAPER[path.stem].items():
        assert said in source  # what is replaced must be there, or the test rots
        for cell in notebook.cells:
            cell.source = cell.source.replace(said, cheaper or repr(str(model_folder)))
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))  # no names of the one before
    client = NotebookClient(notebook, timeout=120, km=kernel)
    try:
        client.execute()
    finally:
        client.kc.stop_channels()
    printed = [cell for cell in notebook.cells if cell.get("outputs")]
    assert len(printed) > 3
    outputs = [output for cell in printed for output in cell.outputs]
    said = "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs
    )
    for pattern in SAYS.get(path.stem, ()):
        assert re.search(pattern, said), pattern
    if path.stem in ENDS_WITH_A_PAGE:
        shown = notebook.cells[-1].outputs[0].data["text/html"]
        assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;')


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path: Path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
