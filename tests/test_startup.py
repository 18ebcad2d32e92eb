"""Commands import only what they need: torch and transformers take seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from graphs import write_graph
from headwater.cli.app import command
from headwater.cli.commands import PANELS
from tests.test_viewer_numbers import layered

# What takes longest to import, and the number of modules that a command without them has.
HEAVY = ("torch", "transformers", "huggingface_hub", "networkx", "scipy.stats", "scipy.optimize")
MOST_MODULES = 1100
RUN = """
import json, sys
from typer.testing import CliRunner
from headwater.cli.app import app

done = CliRunner().invoke(app, sys.argv[2:])
heavy = [name for name in sys.argv[1].split() if name in sys.modules]
print(json.dumps([done.exit_code, done.output, heavy, len(sys.modules)]))
"""


def assert_light(*arguments: str, code: int = 0) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, " ".join(HEAVY), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    found, output, heavy, count = json.loads(done.stdout)
    assert found == code, output
    assert heavy == []
    assert count <= MOST_MODULES


@pytest.mark.parametrize("name", [name for commands in PANELS.values() for name in commands])
def test_help_needs_no_torch(name: str):
    assert_light(name, "--help")


def test_the_list_of_commands_needs_none():
    assert_light("--help")
    assert_light("--version")
    assert_light("shwo", code=2)
    assert_light("trace", "--shwo", code=2)


def test_reading_graphs_needs_none(tmp_path: Path):
    graph, pruned, exported = (str(tmp_path / name) for name in ("g", "p", "e.json"))
    write_graph(layered(0), Path(graph))
    assert_light("show", graph)
    assert_light("prune", graph, "--out", pruned)
    assert_light("paths", graph)
    assert_light("group", graph)
    assert_light("compare", graph, pruned)
    assert_light("hops", graph, graph)
    assert_light("view", graph)
    assert_light("export", graph, "--out", exported)
    assert_light("import", exported, "--out", str(tmp_path / "i.safetensors"))
    assert_light("dictionaries")
    assert_light("words")


@pytest.mark.parametrize(
    ("name", "summary"),
    [(name, one.summary) for panel in PANELS.values() for name, one in panel.items()],
)
def test_the_list_says_what_the_command_says(name: str, summary: str):
    assert " ".join(command(name).help.split("\n\n")[0].split()) == summary
