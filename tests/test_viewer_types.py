"""The page's scripts keep the types that their comments give them, and none is forgotten."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from viz.page.page import SCRIPTS, VIEWER

ROOT = Path(__file__).parent.parent
TSC = shutil.which("tsc", path=ROOT / ".node" / "node_modules" / ".bin") or shutil.which("tsc")


def test_the_page_has_all_its_scripts_and_each_is_checked():
    assert sorted(SCRIPTS) == sorted(path.stem for path in VIEWER.glob("*.js"))
    for name in SCRIPTS:
        lines = (VIEWER / f"{name}.js").read_text().splitlines()
        assert lines[0] == "// @ts-check"
        assert len(lines) <= 300


@pytest.mark.skipif(TSC is None, reason="typescript is not installed (npm install typescript)")
def test_scripts_keep_their_types():
    assert TSC is not None
    command = [TSC, "--project", str(VIEWER / "jsconfig.json")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout == ""
    assert found.returncode == 0
