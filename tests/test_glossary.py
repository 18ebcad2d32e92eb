"""The glossary has every term once, with definition and source, and code keeps to its words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("headwater", "circuits", "graphs", "viz")
# Former words, and what stands for them; fields of files keep theirs.
REPLACED = {
    "carrier": "mediator",
    "carriers": "mediators",
    "chance": "null, p_value or probability",
    "floor": "split",
    "heard": "attended",
    "likeness": "similarity",
    "listened": "encoder_rows",
    "lowered": "suppressed",
    "meter": "recorder",
    "push": "steer",
    "said": "label or stated",
    "spoken": "decoder_rows",
    "stake": "attribution",
    "stories": "paths",
    "story": "path",
    "told": "stated, given or predicted",
    "unsaid": "unspecified",
    "waiting": "unresolved or pending",
    "workshop": "workspace",
}
STANDARD = {"push_forward", "heappush", "floor_divide"}  # terms of mathematics and libraries


def rows() -> list[list[str]]:
    """Cells of every row of the glossary's tables."""
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|") and not line.startswith("|---")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [cells for cells in found if cells[0] != "term"]


def test_every_term_stands_once_with_definition_and_source():
    found = rows()
    assert len(found) > 60
    assert all(len(cells) == 3 and all(cells) for cells in found)
    terms = [term for cells in found for term in cells[0].split(", ")]
    assert sorted(terms) == sorted(set(terms))


def names(tree: ast.AST) -> Iterator[str]:
    """Every name that a module defines, but for fields of classes, which may be those of files."""
    fields = {
        id(statement.target)
        for one in ast.walk(tree)
        if isinstance(one, ast.ClassDef)
        for statement in one.body
        if isinstance(statement, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)
            and id(node) not in fields
        ):
            yield node.id


def parts(name: str) -> list[str]:
    """The words of a name in snake case or camel case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")


@pytest.mark.parametrize("package", PACKAGES)
def test_names_use_the_words_of_the_field(package: str):
    found = [
        f"{path.relative_to(ROOT)}: {name}, rather {REPLACED[part]}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in sorted(set(names(ast.parse(path.read_text(encoding="utf-8")))))
        if name.strip("_") not in STANDARD
        for part in parts(name)
        if part in REPLACED
    ]
    assert found == []


def test_a_former_word_is_noticed():
    tree = ast.parse(
        "def f(told): pass\nclass ToldBy:\n    said: str\n    def g(self): heard_at = 1"
    )
    former = [name for name in names(tree) if set(parts(name)) & set(REPLACED)]
    assert sorted(former) == ["ToldBy", "heard_at", "told"]
