"""Checkpoints: all that a run needs to resume as if it had never stopped.

One safetensors file, written under another name and renamed, so that an interrupted write loses
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from circuits.training.settings import TrainingError
from graphs.disk.files import GraphFileError, atomic_write
from graphs.disk.locks import locked


@dataclass
class RunState:
    """The state of a run, apart from its parameters."""

    step: int  # steps done
    document: int  # first of the current pool
    batch: int  # next batch of that pool
    silent: Tensor  # (layer, feat) tokens since a feature fired
    frequency: Tensor  # (layer, feat) running share of tokens on which it fires


def write_checkpoint(
    path: Path,
    run: str,
    dictionary: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: RunState,
) -> None:
    """Store the run with this name.

    Raises TrainingError if the file cannot be written or is another run's; it is then unchanged.
    """
    tensors = {f"parameter.{name}": value for name, value in dictionary.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    tensors |= {"silent": state.silent, "frequency": state.frequency}
    # One entry, since safetensors writes several in any order.
    entry = [run, state.step, state.document, state.batch]
    metadata = {"run": json.dumps(entry)}
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with locked(path):
            if path.exists():
                with _opened(path) as file:
                    _progress(path, file, run)
            with atomic_write(path) as temporary:
                save_file(stored, temporary, metadata)
    except (
        GraphFileError,
        SafetensorError,
    ) as error:  # safetensors has its own error for a full disk
        message = str(error).rstrip(".")
        raise TrainingError(f"The checkpoint was not written: {message}.") from error


def stored_run(path: Path) -> str | None:
    """The name of the run that a checkpoint belongs to; None if no checkpoint can be read."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get("run", "[null]"))[0]
    except (SafetensorError, OSError, ValueError):
        return None


def read_checkpoint(
    path: Path,
    run: str,
    dictionary: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> RunState:
    """Load a stored run's parameters and state.  Raises TrainingError if it is another run's."""
    with _opened(path) as file:
        step, document, batch = _progress(path, file, run)
        # Copies: Windows cannot replace a mapped file, and this one is written next.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # no mapping
    parameters = {
        name.removeprefix("parameter."): tensor
        for name, tensor in tensors.items()
        if name.startswith("parameter.")
    }
    dictionary.load_state_dict(parameters)
    state = optimizer.state_dict()
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state["state"].setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict(state)
    device = next(dictionary.parameters()).device
    counters = (tensors[name].to(device) for name in ("silent", "frequency"))
    return RunState(step, document, batch, *counters)


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except TrainingError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise TrainingError(
            f"{path} is not a complete checkpoint ({first}): write to another folder."
        ) from error


def _progress(path: Path, file: Any, run: str) -> tuple[int, int, int]:
    """Step, document and batch of a stored run.  Raises TrainingError if it is another run's."""
    stored, step, document, batch = json.loads((file.metadata() or {}).get("run", "[0, 0, 0, 0]"))
    if stored != run:
        raise TrainingError(
            f"{path} belongs to a run with other settings, another model or another corpus: "
            "write to another folder."
        )
    return step, document, batch
