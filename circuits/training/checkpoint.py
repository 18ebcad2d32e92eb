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
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from circuits.training.dictionary import TrainedDictionary, feature_axis
from circuits.training.encoding import Plan
from circuits.training.former_checkpoint import renamed
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
    finite_steps: Tensor  # number of first steps whose loss and gradient were finite
    plan: Plan | None = None

    @classmethod
    def initial(cls, like: Float[Tensor, "layer feat"]) -> RunState:
        """Before the first step."""
        none = torch.zeros_like(like)
        return cls(0, 0, 0, none, none.clone(), torch.zeros((), dtype=torch.long).to(like.device))


def write_checkpoint(
    path: Path,
    run: str,
    dictionary: TrainedDictionary,
    optimizer: torch.optim.Optimizer,
    state: RunState,
) -> None:
    """Store the run with this name; of several processes the first one writes what all have.

    Raises TrainingError if the file cannot be written or is another run's; it is then unchanged.
    """
    tensors = {f"parameter.{name}": value for name, value in dictionary.state_dict().items()}
    for name, parameter in dictionary.named_parameters():
        for key, moment in optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = moment
    tensors |= {"silent": state.silent, "frequency": state.frequency}
    if state.plan is not None:
        tensors |= {"plan.budget": state.plan.budget, "plan.dead": state.plan.dead}
    stored = dict[str, Tensor]()
    for name, tensor in tensors.items():
        features = dictionary.processes.features
        whole = features.on_first(tensor.detach(), _feature_axis(name, tensor))
        if whole is not None:
            stored[name] = whole.cpu().contiguous()
    if not dictionary.processes.first:
        return
    # One entry, since safetensors writes several in any order.
    entry = [run, state.step, state.document, state.batch]
    metadata = {"run": json.dumps(entry)}
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
    dictionary: TrainedDictionary,
    optimizer: torch.optim.Optimizer,
) -> RunState:
    """Load a stored run's parameters and state.  Raises TrainingError if it is another run's."""
    features, tensors = dictionary.processes.features, dict[str, Tensor]()
    device = next(dictionary.parameters()).device
    with _opened(path) as file:
        step, document, batch = _progress(path, file, run)
        stored = renamed({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  # no mapping
        for name, tensor in stored.items():
            axis = _feature_axis(name, tensor)
            part = tensor if axis is None else features.own(tensor, axis)
            # Copies: Windows cannot replace a mapped file, and this one is written next.
            tensors[name] = part.clone(memory_format=torch.contiguous_format).to(device)
    dictionary.load_state_dict(_part(tensors, "parameter."))
    for name, parameter in dictionary.named_parameters():
        moments = _part(tensors, f"optimizer.{name}.")
        if moments:
            optimizer.state[parameter] = moments
    plan = None
    if "plan.dead" in tensors:
        plan = Plan.of(tensors["plan.budget"], tensors["plan.dead"], features)
    finite = torch.tensor(step, device=device)
    return RunState(step, document, batch, tensors["silent"], tensors["frequency"], finite, plan)


def _feature_axis(name: str, tensor: Tensor) -> int | None:
    """The axis along which features lie, of parameters, moments and the state."""
    if name in ("silent", "frequency", "plan.dead"):
        return 1
    return None if tensor.dim() == 0 else feature_axis(name.partition(".")[2])


def _part(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


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
        raise another_run(path)
    return step, document, batch


def another_run(path: Path) -> TrainingError:
    """The error where a checkpoint is in the way."""
    return TrainingError(
        f"{path} belongs to a run with other settings, another model or another corpus: "
        "write to another folder."
    )
