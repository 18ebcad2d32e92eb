"""What `graphs` offers, and what it must not need."""

from __future__ import annotations

import subprocess
import sys

UNWANTED = ("torch", "transformers", "circuits", "viz", "plotly")


def test_graphs_needs_no_torch():
    code = f"import sys, graphs; sys.exit(', '.join({UNWANTED!r} & sys.modules.keys()) or 0)"
    code = code.replace(repr(UNWANTED), repr(set(UNWANTED)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
