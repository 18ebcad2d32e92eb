"""Training on two processes: a run ends as one process ends it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from circuits.training.processes import ALONE, Split
from tests.together import STEPS, one_step
from tests.tolerances import EXACT

ROOT = Path(__file__).parents[1]
PATIENCE = 120  # seconds


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def on_two(*command: str) -> list[subprocess.CompletedProcess[str]]:
    """The command on two processes that know of each other; none outlives this."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        return [
            subprocess.CompletedProcess(one.args, one.returncode, *texts)
            for one in running
            for texts in [one.communicate(timeout=PATIENCE)]
        ]
    finally:
        for one in running:
            one.kill()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all that two processes found."""
    folder = tmp_path_factory.mktemp("together")
    ended = on_two("-m", "tests.together", str(folder))
    assert [one.returncode for one in ended] == [0, 0], ended
    return folder


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("split", Split)
def test_a_step_of_two_processes_is_that_of_one(together: Path, split: Split, name: str):
    found = torch.load(together / f"{split}-{name}.pt")
    torch.testing.assert_close(found, one_step(STEPS[name], ALONE), **EXACT)
    assert all(values.any() for values in found.values())
