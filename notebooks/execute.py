"""Execute the notebooks, and keep their outputs: `python notebooks/execute.py [NAME …]`.

Outputs that are large, such as pages, are left out, and the notebook says so.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
LARGEST = 60_000  # characters of an output


def executed(path: Path) -> Any:
    """A notebook with the outputs of its cells.  Raises CellExecutionError if one fails."""
    notebook = nbformat.read(path, as_version=4)
    # What is printed in two pieces may arrive as one output or as two.
    NotebookClient(notebook, timeout=600, kernel_name="python3", coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            cell.outputs = [_small(output) for output in cell.outputs if not _is_progress(output)]
    return notebook


def _is_progress(output: Any) -> bool:
    return output.output_type == "stream" and output.name == "stderr"


def _small(output: Any) -> Any:
    size = len(str(output))
    if size <= LARGEST:
        return output
    text = f"[{size / 1e6:.1f} MB: run the cell to see it]\n"
    return nbformat.v4.new_output("stream", name="stdout", text=text)


if __name__ == "__main__":
    for path in [HERE / name for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        nbformat.write(executed(path), path)
