"""Nothing that is printed or logged is obeyed by a terminal, whatever the files hold."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import unicodedata
from pathlib import Path

import pytest
from rich.text import Text

from graphs.formats.storage import write_graph
from headwater.terminal.printing import print_line
from headwater.terminal.readable import ReadableConsole, ReadableStream, readable_streams
from tests.hostile_files import (
    CLIPBOARD,
    HOSTILE,
    STORABLE,
    speaking_graph,
    write_speaking_graph,
)
from tests.test_cli import run
from viz.text.words import one_line, readable, visible

# What a terminal obeys: all of these categories but ends of lines, tabs, isolates and joiners.
KEPT = set("\n\t\u2068\u2069\u200c\u200d")


def obeyed(text: str) -> set[str]:
    """What a terminal would obey in a text, found one character after the other."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {char for char in text if unicodedata.category(char) in kinds} - KEPT


def test_of_all_characters_only_those_are_kept_that_a_terminal_shows():
    every = "".join(map(chr, range(0x110000)))
    shown = readable(every)
    assert obeyed(every)
    assert not obeyed(shown)
    letters = (char for char in every if unicodedata.category(char)[0] in "LMNPS")
    assert set(letters) <= set(shown)


@pytest.mark.parametrize("text", [HOSTILE, "می\u200cخواهم 👩\u200d🚀", "“\u2068 Paris\u2069”\n\t"])
def test_a_readable_text_stays_as_it_is(text: str):
    assert readable(readable(text)) == readable(text)
    assert readable(visible(text)) == visible(text)
    assert "\n" not in one_line(text)


def test_a_console_styles_what_it_does_not_obey():
    stream = io.StringIO()
    console = ReadableConsole(file=stream, force_terminal=True, markup=False, width=200)
    console.print(Text(HOSTILE, style="bold red"), HOSTILE)
    said = stream.getvalue()
    styles = re.compile(r"\x1b\[[0-9;]*m")
    assert styles.findall(said)[0] == "\x1b[1;31m"
    assert not obeyed(styles.sub("", said))
    assert "[bold]c[/bold]" in said


def test_what_others_print_log_and_warn_of_is_readable(capsys: pytest.CaptureFixture[str]):
    handler = logging.StreamHandler(sys.stderr)  # as libraries make theirs when imported
    logger = logging.getLogger("of a library")
    logger.propagate = False  # pytest would report what no report can hold
    logger.addHandler(handler)
    plain = sys.stdout, sys.stderr
    with readable_streams():
        print(HOSTILE)  # noqa: T201  # as a library might
        sys.stdout.writelines([HOSTILE])
        logger.warning(HOSTILE)
        print(HOSTILE, file=sys.stderr)  # noqa: T201
        print_line(HOSTILE)
    assert (sys.stdout, sys.stderr) == plain
    logger.removeHandler(handler)
    captured = capsys.readouterr()
    assert captured.out.count(r"\x1b]52;c;") == 3
    assert captured.err.count(r"\x1b]52;c;") == 2
    assert not obeyed(captured.out + captured.err)


def test_progress_bars_of_libraries_still_move():
    stream = io.StringIO()
    guarded = ReadableStream(stream, "standard error")
    for text in ("\r 10%", "\x1b[A", "\rname\r\x1b[A"):
        guarded.write(text)
    assert stream.getvalue() == "\r 10%\x1b[A\rname\\r\\x1b[A"


@pytest.fixture
def hostile_file(tmp_path: Path) -> Path:
    return write_speaking_graph(tmp_path / f"{CLIPBOARD}.safetensors")


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "GRAPH"),
        ("show", "GRAPH", "--feature", "0/1"),
        ("show", "GRAPH", "--feature", HOSTILE),
        ("show", "GRAPH", f"--{HOSTILE}"),
        ("prune", "GRAPH", "--out", "OUT.safetensors", "--html", "OUT.html"),
        ("paths", "GRAPH"),
        ("paths", "GRAPH", "--from", HOSTILE),
        ("group", "GRAPH"),
        ("consensus", "GRAPH", "GRAPH"),
        ("compare", "GRAPH", "OTHER"),
        ("hops", "GRAPH", "OTHER"),
        ("view", "GRAPH", "OTHER", "--html", "OUT.html"),
        ("export", "GRAPH", "--out", "OUT.json"),
        ("export", "GRAPH", "--out", "OUT.json", "--format", HOSTILE),
        ("check", "GRAPH"),
        ("intervene", "GRAPH", "--set", "feature:0/1@0=0"),
        ("intervene", "GRAPH", "--set", HOSTILE),
        (HOSTILE, "GRAPH"),
    ],
)
def test_no_command_lets_a_graph_speak_to_the_terminal(
    hostile_file: Path, tmp_path: Path, arguments: tuple[str, ...]
):
    other = tmp_path / "other.safetensors"
    write_graph(speaking_graph("other"), other)
    out = tmp_path / f"out{CLIPBOARD}"
    places = {"GRAPH": str(hostile_file), "OTHER": str(other), "OUT": str(out)}
    given = [places.get(part, part.replace("OUT", str(out))) for part in arguments]
    result = run(*given)
    assert result.exit_code in (0, 2), result.output
    assert not obeyed(result.output)
    assert "52;c;aGVhZHdhdGVy" in result.output
    if result.exit_code == 2:
        assert result.stderr.count("\n") == 1


def test_json_is_json_and_has_no_controls_beyond_its_end(hostile_file: Path):
    said = run("show", hostile_file, "--json").stdout
    assert not obeyed(said)
    assert said.isascii()
    assert said.count("\n") == 1
    assert json.loads(said)["model"] == STORABLE


@pytest.mark.parametrize("option", ["--why", "--per-layer"])
def test_a_hostile_option_is_refused_in_one_readable_line(hostile_file: Path, option: str):
    result = run("show", hostile_file, option, HOSTILE)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert not obeyed(result.output)
