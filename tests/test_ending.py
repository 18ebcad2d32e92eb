"""However a command ends, its exit code says how and no traceback is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import headwater.cli.show
from graphs.formats.storage import write_graph
from headwater.__main__ import main
from headwater.terminal.ending import INTERRUPTED, TRACEBACK
from tests.graph_oracles import make_graph
from tests.test_cli import assert_refused, run

# Every ending in a process of its own, forked from one that has imported everything.
ENDINGS = """
import gc, json, os, sys
from headwater.__main__ import main

gc.freeze()  # what is imported is not searched again by each

def ends(prepare, *arguments, flags=()):
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        said = os.fdopen(reader, "rb").read().decode()
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said
    os.dup2(writer, 2)
    sys.argv = ["headwater", *arguments]
    prepare()
    main()  # and then all that Python does when it ends

def full(stream, number):
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)

def read_enough():
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(reader)

def closed():
    os.close(1)
    sys.stdout = None

def ascii_alone():
    full(None, 1)
    sys.stdout = open(os.devnull, "w", encoding="ascii")

def closed_error():
    os.close(2)
    sys.stderr = None

graph = sys.argv[1]
found = {
    "full": ends(lambda: full(sys.stdout, 1), "show", graph),
    "full, JSON": ends(lambda: full(sys.stdout, 1), "show", graph, "--json"),
    "read enough": ends(read_enough, "show", graph),
    "read enough, JSON": ends(read_enough, "show", graph, "--json"),
    "read enough, help": ends(read_enough, "show", "--help"),
    "closed": ends(closed, "show", graph),
    "ascii": ends(ascii_alone, "show", graph),
    "full error": ends(lambda: full(sys.stderr, 2), "show", "nowhere"),
    "closed error": ends(closed_error, "show", "nowhere"),
}
print(json.dumps(found))
"""
FULL = "headwater: Cannot write to standard output: No space left on device.\n"
EXPECTED = {
    "full": (2, FULL),
    "full, JSON": (2, FULL),
    "read enough": (141, ""),
    "read enough, JSON": (141, ""),
    "read enough, help": (141, ""),
    "closed": (
        2,
        "headwater: Standard output is closed: redirect it to /dev/null if it is not needed.\n",
    ),
    "ascii": (0, ""),
    "full error": (2, ""),
    "closed error": (2, ""),
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "graph.safetensors"
    write_graph(make_graph(["token:1@0", "logit:3@0"], {("token:1@0", "logit:3@0"): 1.0}), path)
    return path


@pytest.fixture(scope="module")
def endings(graph: Path) -> dict[str, list[object]]:
    command = [sys.executable, "-c", ENDINGS, str(graph)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("ending", sorted(EXPECTED))
def test_a_stream_that_takes_nothing_ends_a_command_quietly(
    endings: dict[str, list[object]], ending: str
):
    assert tuple(endings[ending]) == EXPECTED[ending]


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ZeroDivisionError("division by zero"), 70, "(ZeroDivisionError: division by zero)"),
        (
            RecursionError("maximum depth"),
            70,
            "please report it, with the output of the same command",
        ),
        (EOFError(), 70, "(EOFError)"),
        (MemoryError(), 2, "There is not enough memory: free some"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "memory"),
        (OSError(28, "No space left on device", "a"), 2, "Cannot use a: No space left on device."),
        (KeyboardInterrupt(), 130, "headwater: Interrupted."),
    ],
)
def test_what_nobody_expected_is_no_failed_check(
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    sentence: str,
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(headwater.cli.show, "open_graph", fail)
    result = run("show", graph)
    assert result.exit_code == code
    assert sentence in result.stderr
    assert "\n" not in result.stderr.strip()
    monkeypatch.setenv(TRACEBACK, "1")
    if code != INTERRUPTED:
        assert "Traceback" in run("show", graph).stderr


class Interrupted(ModuleType):
    """A module while whose import Ctrl-C was pressed."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt


def test_an_interrupted_import_ends_as_an_interrupted_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "headwater.cli.app", Interrupted("headwater.cli.app"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err == "headwater: Interrupted.\n"


def test_usage_is_refused_in_one_sentence_that_says_where_help_is(graph: Path):
    assert_refused(run("show"), "Missing argument 'graph': see `headwater show --help`.")
    assert_refused(run("show", graph, "--nosuch"), "No such option: --nosuch")
    assert_refused(run("shew", graph), "Did you mean 'show'? See `headwater --help`.")
    refused = run("export", graph, "--out", "a", "--format", "word")
    assert_refused(refused, "Invalid value for '--format': 'word' is not one of 'neuronpedia'")
    long = run("show", graph, "--per-layer", "9" * 5000, "--feature", "x" * 5000)
    assert_refused(long, "see `headwater show --help`.")
    assert len(long.stderr) < 1100
    assert run().exit_code == 2
    assert "Usage: headwater" in run().stdout
