"""Options that contradict each other are refused, and those of former names still work."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphs.formats.storage import write_graph
from headwater.arguments.usage import UsageError, require_consistent
from headwater.terminal.ending import RENAMED
from tests.graph_oracles import make_graph
from tests.test_cli import assert_refused, run


def test_options_that_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other"):
        require_consistent(transcoders="folder", features="neurons", targets=[], against=None)
    with pytest.raises(UsageError, match="--against needs --target"):
        require_consistent(transcoders=None, features=None, targets=[], against="a")


@pytest.mark.parametrize("former", RENAMED)
@pytest.mark.parametrize("joined", [False, True])
def test_former_options_are_read_by_their_new_names(tmp_path: Path, former: str, joined: bool):
    graph = tmp_path / "graph.safetensors"
    write_graph(make_graph(["token:1@0", "logit:1@0"], {}), graph)
    command, value, message = {
        "--push": (("intervene", graph), "x", "--steer expects LAYER@POS:FILE.npy=NUMBER"),
        "--context-only": (("trace", "a"), "-1", "Invalid value for '--prefix'"),
        "--carriers": (("audit", "none", "--out", "none"), "0", "Invalid value for '--mediators'"),
    }[former]
    given = (f"{former}={value}",) if joined else (former, value)
    assert_refused(run(*command, *given), message)


def test_a_former_option_does_what_the_new_one_does(model_folder: Path):
    trace = ("trace", "fjfoi", "--model", model_folder, "--json")
    found = run(*trace, "--context-only", 3)
    assert found.exit_code == 0, found.output
    assert found.stdout == run(*trace, "--prefix", 3).stdout
    assert found.stdout != run(*trace).stdout


@pytest.mark.parametrize(
    ("command", "former"),
    [("intervene", "--push"), ("trace", "--context-only"), ("audit", "--carriers")],
)
def test_help_names_the_new_option_only(command: str, former: str):
    text = run(command, "--help").stdout
    assert RENAMED[former] in text
    assert former not in text


@pytest.mark.parametrize("former", RENAMED)
def test_arguments_behind_two_dashes_are_not_renamed(former: str):
    assert_refused(run("show", "--", former), f"{former}: No such file")


def test_prefix_positions_and_matryoshka_shares_of_a_training_run_are_two_options(tmp_path: Path):
    train = ("train", tmp_path / "none.txt", "--out", tmp_path / "out")
    assert_refused(run(*train, "--prefix", 256), "--prefix 256 leaves no tokens")
    assert_refused(run(*train, "--matryoshka", 2), "Matryoshka prefixes must be shares")
