"""What `test_processes.py` runs on two processes at once: steps, runs, and a failure.

Each process calls it with a folder, to which the first one writes what was found.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from circuits.corpora.corpus import TextCorpus
from circuits.model.frozen import FrozenModel
from circuits.training import loop
from circuits.training.activations import Stream
from circuits.training.dictionary import TrainedDictionary, feature_axis
from circuits.training.encoding import Plan, made_plan
from circuits.training.log import Logged
from circuits.training.loop import train
from circuits.training.losses import step_loss
from circuits.training.processes import ALONE, Group, Processes, joined
from circuits.training.settings import Kind, Sparsity, Split, TrainingError, TrainSettings
from tests.test_training_step import N_LAYERS, SETTINGS, random_batch, random_dictionary
from tests.tiny import tiny_model, toy_tokenizer

STEPS = {
    "topk": replace(SETTINGS, kind=Kind.PER_LAYER, sparsity=Sparsity.TOP_K),
    "crossing": SETTINGS,
    "apart": replace(SETTINGS, kind=Kind.PER_LAYER),
    "skip": replace(SETTINGS, kind=Kind.SKIP, sparsity=Sparsity.JUMP_RELU),
    "tanh": replace(SETTINGS, sparsity=Sparsity.TANH),
}
SMALL = replace(
    SETTINGS,
    steps=30,
    batch_tokens=32,
    shuffled_tokens=256,
    dead_after=60,
    prefixes=(),
    learning_rate=1e-3,  # a higher one makes more of the rounding of float32
)
RUNS = {
    "crossing": replace(SMALL, prefixes=(0.3,)),
    "topk": replace(SMALL, kind=Kind.PER_LAYER, sparsity=Sparsity.TOP_K),
    "skip": replace(SMALL, kind=Kind.SKIP, sparsity=Sparsity.JUMP_RELU, prefixes=(0.3,)),
    "replaced": replace(SMALL, steps=20, kl_steps=10),
    "replaced-skip": replace(SMALL, kind=Kind.SKIP, sparsity=Sparsity.TOP_K, steps=20, kl_steps=10),
}


def one_step(settings: TrainSettings, processes: Processes) -> dict[str, Tensor | None]:
    """Numbers of a step with dead and frequent features, whole on the first process."""
    tokens, features = processes.tokens, processes.features
    whole = random_dictionary(settings)
    dictionary = TrainedDictionary(settings, N_LAYERS, whole.inputs.mean.shape[1], processes)
    dictionary.double().load_state_dict(
        {
            name: value if (axis := feature_axis(name)) is None else features.own(value, axis)
            for name, value in whole.state_dict().items()
        }
    )
    inputs, outputs = (tokens.own(random_batch(seed), 1) for seed in (1, 2))
    dead = torch.zeros(N_LAYERS, settings.d_dict, dtype=torch.bool)
    dead[0, 5:20] = dead[2, 40] = dead[2, 42] = True  # of the last layer none is on the second
    frequency = torch.rand(dead.shape, generator=torch.Generator().manual_seed(3)).double() / 5
    budget = made_plan(dictionary, inputs).budget
    plan = Plan.of(budget, features.own(dead, 1), features)
    step = step_loss(dictionary, inputs, outputs, plan, features.own(frequency, 1), 1.0)
    step.loss.backward()
    size = dictionary.gradient_norm()
    shares = features.on_first(step.encoded.shares(dictionary.width, tokens), 1)
    found = {"loss": step.loss.detach(), "budget": budget, "shares": shares, "norm": size}
    for name, parameter in dictionary.named_parameters():
        if parameter.grad is not None:
            axis = feature_axis(name)
            whole = parameter.grad if axis is None else features.on_first(parameter.grad, axis)
            found[name] = whole
    return found


class Stopped(Exception):
    """Stands for the end of a process."""


def one_run(
    settings: TrainSettings, folder: Path, processes: Processes = ALONE, until: int = 30
) -> None:
    """A run of thirty steps with a checkpoint and a line after every tenth, or until a step."""

    def on_step(logged: Logged) -> None:
        if logged.step == until < settings.all_steps:
            raise Stopped

    generator = torch.Generator().manual_seed(3)
    documents = torch.randint(3, 23, (40, 9), generator=generator).tolist()
    corpus = TextCorpus(tuple([1, *row] for row in documents))
    frozen = FrozenModel(tiny_model("gemma-3").float())
    made = Stream(frozen, toy_tokenizer(), corpus, settings, processes=processes)
    with pytest.MonkeyPatch.context() as patch, suppress(Stopped):
        patch.setattr(loop, "LOG_EVERY", 10)
        train(made, folder, "run", on_step, checkpoint_every=10)


def both(folder: Path, group: Group) -> None:
    """All that two processes do together; at last the second one fails."""
    for split in Split:
        processes = Processes(group) if split == Split.TOKENS else Processes(features=group)
        for name, settings in STEPS.items():
            found = one_step(settings, processes)
            if processes.first:
                torch.save(found, folder / f"{split}-{name}.pt")
        for name, settings in RUNS.items():
            one_run(settings, folder / f"{split}-{name}", processes)
        one_run(RUNS["topk"], folder / f"{split}-begun", processes, until=20)
    if group.rank == 1:
        raise TrainingError("The second one fails.")
    group.agrees(0)


def main(folder: Path) -> None:
    """Write how this process ended."""
    try:
        with joined(Split.FEATURES, "cpu") as (processes, _):
            both(folder, processes.everyone)
    except TrainingError as error:
        assert not dist.is_initialized()  # its threads could fail while Python ends
        text = f"{type(error).__name__}: {error}"
        (folder / f"end-{os.environ['RANK']}").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
