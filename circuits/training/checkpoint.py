"""Checkpoints: all that a run needs to go on as if it had never stopped.

One safetensors file, written beside and renamed, so that an interrupted write loses nothing.
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
class Progressed:
    """How far a run is, beside its parameters."""

    step: int  # steps that are done
    document: int  # with which the current pool starts
    batch: int  # of that pool, the next
    silent: Tensor  # (layer, feat) tokens since a feature fired
    frequency: Tensor  # (layer, feat) running share of tokens on which it fires


def write_checkpoint(
    path: Path,
    run: str,
    dictionary: nn.Module,
    optimizer: torch.optim.Optimizer,
    progressed: Progressed,
) -> None:
    """Store the run of this name.

    Raises TrainingError if it cannot, also where another run keeps its own; what was there stays.
    """
    tensors = {f"parameter.{name}": value for name, value in dictionary.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    tensors |= {"silent": progressed.silent, "frequency": progressed.frequency}
    # One entry, since safetensors writes several in any order.
    told = [run, progressed.step, progressed.document, progressed.batch]
    metadata = {"run": json.dumps(told)}
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with locked(path):
            if path.exists():
                with _opened(path) as file:
                    _progress(path, file, run)
            with atomic_write(path) as temporary:
                save_file(stored, temporary, metadata)
    except (GraphFileError, SafetensorError) as error:  # safetensors has its own for a full disk
        said = str(error).rstrip(".")
        raise TrainingError(f"The checkpoint was not written: {said}.") from error


def stored_run(path: Path) -> str | None:
    """The name of the run that a checkpoint is of; None if there is none to be read."""
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
) -> Progressed:
    """Put a stored run's parameters into place.  Raises TrainingError if it is another run's."""
    with _opened(path) as file:
        step, document, batch = _progress(path, file, run)
        # Copies: Windows replaces no file that is mapped, and this one is written next.
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
    seen = (tensors[name].to(device) for name in ("silent", "frequency"))
    return Progressed(step, document, batch, *seen)


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
            f"{path} is not a whole checkpoint ({first}): write to another folder."
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
