"""Who may import whom: circuits → graphs ← viz, and graphs without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "graphs": {"torch", "transformers", "safetensors.torch", "circuits", "viz", "plotly"},
    "viz": {"torch", "transformers", "circuits"},
    "circuits": {"viz"},
}
COMMAND_LINE = ROOT / "circuits" / "cli"  # sees all three


def imported(path: Path) -> set[str]:
    """Every module that a file imports, with all its parents."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {".".join(name.split(".")[:depth]) for name in names for depth in range(1, 5)}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_only_what_they_may(package: str):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        if COMMAND_LINE not in path.parents:
            assert not imported(path) & FORBIDDEN[package], path


def test_an_import_is_seen(tmp_path: Path):
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from torch.nn import Linear\n")
    assert "torch" in imported(path)


def loads_torch(statement: str) -> bool:
    code = f"{statement}\nimport sys\nsys.exit(int('torch' in sys.modules))"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 1


@pytest.mark.parametrize("package", ["graphs", "viz"])
def test_importing_loads_no_torch(package: str):
    assert not loads_torch(f"import {package}")


def test_the_test_would_notice_torch():
    assert loads_torch("import torch")


@pytest.mark.parametrize("package", ["circuits", "graphs", "viz"])
def test_public_names_are_those_in_all(package: str):
    module = __import__(package)
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert sorted(module.__all__) == sorted(a.name for node in imports for a in node.names)
