"""Documents as programs: the blocks of a Markdown page run in order, in one folder.

Blocks of `sh` and `python` run as they are written; Python's names stay from block to block.  A
block of `text` is what the block before it prints, compared line by line: numbers within a
unit of their last digit, blanks as one, `…` for anything within a line, and alone for any lines.
What Python prints is its last expression, and a comment behind an expression is its value.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w+)?([^\n]*)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
ROUNDING = 1e-14  # of float64, relative: processors differ in it
EXIT = re.compile(r"exit code (\d+)")
RUN = ("sh", "python")
ROOT = Path(__file__).parents[1]
# A session of Python: each line is a block, as a Python string; answered by values and output.
SESSION = """
import ast, io, sys
names, answers = {}, sys.stdout
for line in sys.stdin:
    code, said, sys.stdout = ast.literal_eval(line), [], io.StringIO()
    try:
        for statement in ast.parse(code).body:
            source = ast.unparse(statement)
            if isinstance(statement, ast.Expr):
                value = eval(source, names)
                said.append((statement.end_lineno, None if value is None else repr(value)))
            else:
                exec(source, names)
        answer = said, sys.stdout.getvalue()
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    answers.write(repr(answer) + "\\n")
    answers.flush()
"""


@dataclass(frozen=True)
class Block:
    """A block between fences."""

    language: str
    title: str
    text: str
    line: int  # of the page, at which it begins


def blocks(page: str) -> Iterator[Block]:
    """All blocks of a page."""
    for found in FENCE.finditer(page):
        language, title, text = found.groups()
        yield Block(language or "", title, text, page[: found.start()].count("\n") + 1)


@dataclass
class Session:
    """A folder in which the blocks of a page run."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    programs: Path = Path(sys.executable).parent  # with `headwater`
    _python: subprocess.Popen[str] | None = None

    def run(self, page: str) -> None:
        """Run a page.  Raises AssertionError for a block that fails or prints something else."""
        printed, of = "", None
        try:
            for block in blocks(page):
                if block.language in RUN:
                    printed, of = self._printed(block), block
                elif block.language == "text":
                    assert of is not None, f"line {block.line} shows what no block prints"
                    assert_shown(block.text, printed, f"line {block.line}")
        finally:
            if self._python is not None:
                self._python.communicate()

    def _printed(self, block: Block) -> str:
        return self._sh(block) if block.language == "sh" else self._evaluated(block)

    def _sh(self, block: Block) -> str:
        if block.text.startswith("make "):
            return _make(block)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        expected = EXIT.search(block.title)
        code = 0 if expected is None else int(expected[1])
        assert done.returncode == code, f"line {block.line}: exit code {done.returncode}\n" + (
            done.stdout
        )
        return done.stdout

    def _evaluated(self, block: Block) -> str:
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-c", SESSION],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(f"{block.text!r}\n")
        self._python.stdin.flush()
        answer: Any = ast.literal_eval(self._python.stdout.readline())
        assert isinstance(answer, tuple), f"line {block.line}: {answer}"
        values, printed = answer
        lines = block.text.splitlines()
        for number, value in values:
            comment = _comment(lines[number - 1])
            if comment:
                assert value is not None, f"line {block.line + number}: no value"
                assert_shown(comment, value, f"line {block.line + number}")
        return printed + (values[-1][1] or "" if values else "")

    def _environment(self) -> dict[str, str]:
        return environment(self.programs) | self.environment


def environment(*programs: Path) -> dict[str, str]:
    """That of a page: without a network, and with programs of these folders before others."""
    folders = [*map(str, programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    return os.environ | {"PATH": os.pathsep.join(folders), "HF_HUB_OFFLINE": "1"}


def _make(block: Block) -> str:
    """The targets of the Makefile are there; CI runs them in an empty clone."""
    targets = re.findall(r"^make (\w+)", block.text, re.M)
    subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, check=True, capture_output=True)
    return ""


def _comment(line: str) -> str:
    """What stands behind an expression, if it is a value: it begins like one."""
    found = re.search(r"  # ((?:['\"(<\[]|[-+]?\d|True|False).*)$", line)
    return found[1] if found else ""


def assert_shown(shown: str, printed: str, where: str) -> None:
    """The shown lines are among the printed ones, consecutive but for `…`."""
    lines, place = list(map(_blanks, printed.splitlines())), 0
    anywhere = False
    for line in map(_blanks, shown.rstrip("\n").splitlines()):
        if line == "…":
            anywhere = True
            continue
        while anywhere and place < len(lines) and not is_line(line, lines[place]):
            place += 1
        assert place < len(lines), f"{where}: {line!r} is not in\n{printed}"
        assert is_line(line, lines[place]), f"{where}: shown {line!r}, printed {lines[place]!r}"
        place, anywhere = place + 1, False
    assert anywhere or place == len(lines), f"{where}: also printed: {lines[place:]}"


def is_line(shown: str, printed: str) -> bool:
    """Whether a line is what is shown: the same words, and numbers as `is_number` says."""
    found = re.fullmatch(_pattern(shown), printed)
    numbers = NUMBER.findall(shown)
    return found is not None and all(map(is_number, numbers, found.groups()))


def _pattern(shown: str) -> str:
    """A shown line as an expression, with a group for each number."""
    parts, end = [], 0
    for number in NUMBER.finditer(shown):
        parts += [_escaped(shown[end : number.start()]), f"({NUMBER.pattern})"]
        end = number.end()
    return "".join([*parts, _escaped(shown[end:])])


def _escaped(text: str) -> str:
    return ".*?".join(map(re.escape, text.split("…")))


def is_number(shown: str, printed: str) -> bool:
    """Whether a number is the shown one within a unit of its last digit, or of rounding.

    What has an exponent is an error of rounding, of which only the size is the same everywhere.
    """
    one, other = (text.replace(",", "").replace("−", "-") for text in (shown, printed))
    if "e" in one:
        return one == other or 1 / 3 <= float(other) / float(one) <= 3
    if "." not in one:
        return one == other
    unit = 10.0 ** -len(one.partition(".")[2])
    return abs(float(one) - float(other)) <= max(1.01 * unit, ROUNDING * abs(float(one)))


def _blanks(line: str) -> str:
    return " ".join(line.split())
