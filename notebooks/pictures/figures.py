"""Draws the figures of this folder anew: `python notebooks/pictures/figures.py`.

dallas_column.svg        The capital of the state containing Dallas is Austin, as in a column
dallas_page.svg          the same over a page
dallas_without_texas.svg the same with all features of Texas set to zero, nothing frozen
eiffel_page.svg          neurons of Gemma 3 270M: The Eiffel Tower is in the city of Paris
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from typer.testing import CliRunner

import headwater as hw
from graphs.groups.overview import GROUPS
from headwater.cli.app import app

HERE = Path(__file__).parent
DALLAS = "The capital of the state containing Dallas is"
EIFFEL = "The Eiffel Tower is in the city of"


def run(*arguments: object) -> None:
    """A command of headwater, as a person types it."""
    CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        dallas = hw.trace(DALLAS).save(Path(folder) / "dallas.safetensors")
        eiffel = hw.trace(EIFFEL, model="gemma-3-270m").save(Path(folder) / "eiffel.safetensors")
        run("group", dallas, "--at-most", GROUPS, "--save")
        run("figure", dallas, "--out", HERE / "dallas_column.svg")
        run("figure", dallas, "--out", HERE / "dallas_page.svg", "--width", "page")
        run("figure", eiffel, "--out", HERE / "eiffel_page.svg", "--width", "page")
        run(
            *("intervene", dallas, "--scale", "group:Texas=0", "--regime", "free"),
            *("--figure", HERE / "dallas_without_texas.svg"),
        )
