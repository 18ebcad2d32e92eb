from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import circuits.machine
from circuits.machine import free_bytes, free_device_bytes, gigabytes

SIZE = 2**26  # 256 MB in float32


# In a process of its own: one that has run other tests has memory to give out again.
_HOLD = """
import sys
import torch
from safetensors import safe_open
from circuits.machine import held_bytes

held = [held_bytes()]
with safe_open(sys.argv[1], "pt") as file:
    mapped = file.get_tensor("weights")
assert float(mapped.sum()) > 0
held.append(held_bytes())
own = torch.ones_like(mapped)
held.append(held_bytes())
print(*held)
"""


def test_what_a_file_holds_is_not_held(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    save_file({"weights": torch.ones(SIZE)}, path)
    command = [sys.executable, "-c", _HOLD, str(path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, mapped, own = map(int, said.split())
    assert mapped - before < 2**26
    assert own - mapped > 4 * SIZE * 0.9


def test_a_container_may_give_less_than_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(circuits.machine, "CONTROL_GROUP", tmp_path / "missing")
    machine = free_bytes()
    assert machine > 2**20
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 600\nactive_file 400\n")
    monkeypatch.setattr(circuits.machine, "CONTROL_GROUP", tmp_path)
    assert free_bytes() == 2000  # its page cache can be taken back
    assert free_device_bytes(torch.device("cpu")) == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes() > 2**20


def test_bytes_are_read_in_gibibytes():
    assert gigabytes(3.25 * 2**30) == "3.2 GiB"
