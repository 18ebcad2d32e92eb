"""Who may import whom: folders import downwards only, and graphs without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Of each package its folders and modules, those first that know nothing of the others.
ORDER = {
    "graphs": (
        "errors",
        "disk",
        "core",
        "analysis",
        "naming",
        "formats",
        "formats.neuronpedia",
        "comparison",
        "groups",
        "reports",
        "attention",
        "interventions",
    ),
    "viz": ("text", "html", "plot", "paper", "page"),
    "circuits": (
        "errors",
        "progress",
        "atlas",
        "machine",
        "largest",
        "model",
        "recording",
        "features",
        "features.files",
        "attribution",
        "pipe",
        "interventions",
        "attention",
        "evaluation",
        "corpora",
        "training",
        "training.finished",
        "graph_files",
    ),
    "headwater": ("terminal", "outputs", "arguments", "server", "graph_folders", "cli"),
}
# What a package may never see, in a function either; the front door sees everything.
FORBIDDEN = {
    "graphs": {"torch", "transformers", "safetensors.torch", "plotly"},
    "viz": {"torch", "transformers"},
    "circuits": {"plotly"},
    "headwater": set[str](),
}
SEES = {
    "graphs": set[str](),
    "viz": {"graphs"},
    "circuits": {"graphs"},
    "headwater": {"circuits", "graphs", "viz"},
}
MOST_MODULES = 20


def imported(path: Path) -> set[str]:
    """Every module that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def floor(module: str) -> int | None:
    """How high a module of ours stands in its package; None for a package itself."""
    package, *inside = module.split(".")
    for depth in (2, 1):
        if ".".join(inside[:depth]) in ORDER[package]:
            return ORDER[package].index(".".join(inside[:depth]))
    return None


@pytest.mark.parametrize("package", ORDER)
def test_folders_import_downwards_only(package: str):
    seen = 0
    for module, path in modules(package):
        for name in imported(path):
            if name.split(".")[0] == package and package != "headwater":
                below, here = floor(name), floor(module)
                assert here is not None, f"{module} has no place in the order"
                assert below is not None, f"{module} imports {name}, not the place where it is"
                assert below <= here, f"{module} imports {name}"
                seen += 1
    assert seen or package == "headwater"


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_only_what_they_may(package: str):
    others = FORBIDDEN.keys() - SEES[package] - {package}
    for module, path in modules(package):
        parents = {".".join(name.split(".")[:depth]) for name in imported(path) for depth in (1, 2)}
        assert not parents & (FORBIDDEN[package] | others), module


def test_an_import_is_seen(tmp_path: Path):
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from torch.nn import Linear\n")
    assert "torch.nn" in imported(path)
    assert floor("graphs.core.nodes") == 2
    assert floor("circuits.features.files.tensors") == 8


@pytest.mark.parametrize("package", ORDER)
def test_no_folder_is_too_full_to_be_looked_through(package: str):
    folders = {path.parent for _, path in modules(package)}
    counts = {folder: len(list(folder.glob("*.py"))) for folder in folders}
    assert max(counts.values()) <= MOST_MODULES, counts


def test_no_two_modules_of_circuits_have_one_name():
    names = [path.stem for _, path in modules("circuits")]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("package", ["circuits", "graphs", "viz"])
def test_no_module_hides_behind_a_function_of_its_name(package: str):
    for module, _ in modules(package):
        parent, _, name = module.rpartition(".")
        assert getattr(import_module(parent), name, None) in (None, import_module(module)), module


def loads_torch(statement: str) -> bool:
    code = f"{statement}\nimport sys\nsys.exit(int('torch' in sys.modules))"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 1


@pytest.mark.parametrize("package", ["graphs", "viz", "circuits", "headwater"])
def test_importing_loads_no_torch(package: str):
    assert not loads_torch(f"import {package}")


def test_the_test_would_notice_torch():
    assert loads_torch("import torch")


@pytest.mark.parametrize("package", ["circuits", "graphs", "viz"])
def test_public_names_are_those_in_all(package: str):
    module = import_module(package)
    tree = ast.parse((ROOT / package / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    (listed,) = (node.value for node in tree.body if isinstance(node, ast.Assign))
    names = sorted(alias.name for node in imports for alias in node.names)
    assert names == sorted(module.__all__) == sorted(ast.literal_eval(listed))
    assert all(hasattr(module, name) for name in names)
