"""MKL's functions are called by one thread first."""

from __future__ import annotations

import subprocess
import sys

from circuits.machine import IN_MKL

WATCHED = """
import torch

seen = []

def watched(name):
    plain = getattr(torch, name)
    def call(x):
        seen.append((name, x.dtype, x.numel()))
        return plain(x)
    setattr(torch, name, call)

for name in {names}:
    watched(name)

import circuits

circuits.read_subject("atlas-small")

assert {{(name, dtype, 1) for name in {names} for dtype in (torch.float32, torch.float64)}} <= set(
    seen
), seen
at = {{(name, dtype): at for at, (name, dtype, _) in reversed(list(enumerate(seen)))}}
assert all(seen[first][2] == 1 for first in at.values()), seen
"""


def test_loading_a_model_calls_them_on_one_number_first():
    names = [function.__name__ for function in IN_MKL]
    code = WATCHED.format(names=names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
