"""Training on two processes: a run ends as one process ends it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from circuits.model.placement import DeviceError
from circuits.training.dictionary import TrainedDictionary
from circuits.training.log import LOG
from circuits.training.needs import needs
from circuits.training.processes import ALONE, Group, Processes, own_device
from circuits.training.settings import CHECKPOINT, Split, TrainingError
from tests.test_cli import run
from tests.together import RUNS, STEPS, one_run, one_step
from tests.tolerances import EXACT, FLOAT32

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
    """The folder with all that two processes found, and with the same runs of one."""
    folder = tmp_path_factory.mktemp("together")
    for split in Split:  # of which two processes do the rest
        one_run(RUNS["skip"], folder / f"{split}-skip", until=20)
    ended = on_two("-m", "tests.together", str(folder))
    assert [one.returncode for one in ended] == [0, 0], ended
    for name, settings in RUNS.items():
        one_run(settings, folder / f"alone-{name}")
    return folder


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("split", Split)
def test_a_step_of_two_processes_is_that_of_one(together: Path, split: Split, name: str):
    found = torch.load(together / f"{split}-{name}.pt")
    torch.testing.assert_close(found, one_step(STEPS[name], ALONE), **EXACT)
    assert all(values.any() for values in found.values())


def require_same_run(found: Path, expected: Path) -> None:
    """Lines and checkpoints are the same up to the order of sums in float32."""
    lines, wanted = (
        [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
        for folder in (found, expected)
    )
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[-1]["dead"] > 0
    for line, other in zip(lines, wanted, strict=True):
        assert line == pytest.approx(other, rel=1e-5)
    one, other = (load_file(folder / CHECKPOINT) for folder in (found, expected))
    torch.testing.assert_close(one, other, **FLOAT32)


# The run with thresholds is begun by one process: at the start each of them is one of the values
# that it is compared with, so that rounding decides.
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("split", Split)
def test_a_run_of_two_processes_is_that_of_one(together: Path, split: Split, name: str):
    require_same_run(together / f"{split}-{name}", together / f"alone-{name}")


@pytest.mark.parametrize("split", Split)
def test_one_process_continues_what_two_began(together: Path, split: Split):
    begun = together / f"{split}-begun"
    assert len((begun / LOG).read_text().splitlines()) == 1
    one_run(RUNS["topk"], begun)
    require_same_run(begun, together / "alone-topk")


def test_a_process_that_fails_says_why_and_ends_the_others(together: Path):
    ends = [(together / f"end-{rank}").read_text() for rank in (0, 1)]
    assert ends[0] == "AnotherFailed: Another process of the run failed before this one."
    assert ends[1] == "TrainingError: The second one fails."


@pytest.mark.usefixtures("few_graphs")
def test_the_command_under_torchrun_writes_what_it_writes_alone(tmp_path: Path):
    options = "--sample-from-model --width 32 --l0 4 --steps 10 --batch 64 --shuffle 256 --length 6"
    command = ("train", *options.split(), "--model", "atlas-small", "--out")
    assert run(*command, str(tmp_path / "alone")).exit_code == 0
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "headwater")
    ended = subprocess.run(
        [sys.executable, "-m", *launcher, *command, str(tmp_path / "both")],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert ended.stdout.count("dictionary: ") == 1  # one of them speaks
    assert ended.stderr.count("for each of 2 processes") == 1
    files = [
        {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "both", tmp_path / "alone")
    ]
    assert files[0].keys() == files[1].keys()
    for name, path in files[0].items():
        if name.suffix == ".safetensors":
            alone = load_file(files[1][name])
            # As a whole: Adam enlarges the rounding of single gradients that are close to 0.
            for key, one in load_file(path).items():
                assert float((one - alone[key]).norm()) <= 1e-3 * float(alone[key].norm()), key
    one, other = (json.loads(found[Path("report.json")].read_text()) for found in files)
    unexplained = other["fidelity"]["unexplained"]
    assert one["fidelity"]["unexplained"] == pytest.approx(unexplained, rel=1e-3)


def test_a_process_needs_the_memory_of_its_part():
    settings = RUNS["skip"]
    halves = Processes(features=Group(1, 2))
    dictionary = TrainedDictionary(settings, 3, 16, halves)
    held = 4 * sum(parameter.nbytes for parameter in dictionary.parameters())
    assert needs(settings, 3, 16, halves).parameters == held
    halved = needs(settings, 3, 16, Processes(tokens=Group(1, 2)))
    assert halved.parameters == needs(settings, 3, 16).parameters > held
    with pytest.raises(TrainingError, match="64 features of a layer cannot be divided equally"):
        needs(settings, 3, 16, Processes(features=Group(0, 3)))


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch):
    assert own_device("cpu", 1) == "cpu"
    with pytest.raises(DeviceError, match="cannot all train on 'cuda:1': choose cuda"):
        own_device("cuda:1", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [own_device(name, 1) for name in ("cuda", "auto")] == ["cuda:1", "cuda:1"]
    with pytest.raises(DeviceError, match="Process 3 of this machine needs a GPU of its own"):
        own_device("cuda", 2)
