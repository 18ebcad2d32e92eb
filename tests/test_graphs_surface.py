"""What `graphs` offers, and what it must not need."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import graphs

UNWANTED = ("torch", "transformers", "circuits", "viz", "plotly")


def test_all_lists_the_public_names():
    public = [
        name
        for name, value in vars(graphs).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert sorted(graphs.__all__) == sorted(public)


def test_graphs_needs_no_torch():
    code = f"import sys, graphs; sys.exit(', '.join({UNWANTED!r} & sys.modules.keys()) or 0)"
    code = code.replace(repr(UNWANTED), repr(set(UNWANTED)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
