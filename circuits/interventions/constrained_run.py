"""Constrained runs: copies of a prompt in the real model, with parts held at the recording.

In a held block norms use the recorded denominators (but those of queries and keys, which run) and
the MLP adds its recorded output; attention patterns of all blocks can be held as well.  Each copy
has a last held block of its own.  Changes come from a visitor: at every layer it gets the residual
stream that the MLP's norm reads, and returns what to add there.  What heads do beside, as when they
are ablated, is said by layer (`circuits.interventions.attending`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.interventions.attending import AS_IT_IS, Attending, HeadRules, HeldPattern
from circuits.machine import moved, on_device
from circuits.model.frozen import FrozenModel, Norm
from circuits.recording.record import (
    BlockRecording,
    Hooks,
    Recording,
    exact_norm,
    logits_at,
    precise_attention,
)
from graphs.interventions.heads import Head


@dataclass(frozen=True)
class Hold:
    """Parts of the model that are held at their recorded values."""

    through: Int[ndarray, " batch"]  # per copy, the last block with norms and MLP held; -1: none
    patterns: bool  # attention patterns, of every block and copy
    running: frozenset[Head] = frozenset()  # heads whose patterns run all the same

    def pattern(self, layer: int, recorded: BlockRecording) -> HeldPattern | None:
        """What is held of a layer's patterns."""
        heads = tuple(sorted(head for own, head in self.running if own == layer))
        return HeldPattern(recorded, heads) if self.patterns else None

    def at(self, layer: int) -> Bool[ndarray, " batch"]:
        """The copies in which this block is held; `n_layers` stands for the final norm."""
        return self.through >= layer


class Additions(NamedTuple):
    """Additions at a layer, per copy."""

    output: Float[Tensor, "batch pos d_model"] | None  # to what the MLP module returns
    contribution: Float[Tensor, "batch pos d_model"] | None  # to what it adds to the residual


NO_ADDITIONS = Additions(None, None)


class RunOutput(NamedTuple):
    """Output of a run."""

    logits: Float[Tensor, "batch d_vocab"]  # at one position
    final: Float[Tensor, "batch pos d_model"]  # the residual that the final norm reads


NO_RULES: Mapping[int, HeadRules] = {}
Visit = Callable[[int, Tensor], Additions]  # layer, residual (batch, pos, d_model)
Look = Callable[[int, Tensor], None]  # layer, residual that enters it (batch, pos, d_model)


def run(
    frozen: FrozenModel,
    recording: Recording,
    ids: Int[Tensor, "batch pos"],
    hold: Hold,
    visit: Visit,
    look: Look | None = None,
    rules: Mapping[int, HeadRules] = NO_RULES,
) -> RunOutput:
    """Run copies of a prompt; logits are at the recording's position, or the last of longer ids.

    `rules`, by layer, say what heads do other than in the model.  Ids may continue beyond the
    recorded prompt only if nothing is held.
    """
    length = len(recording.prompt)
    position = recording.position if ids.shape[1] == length else ids.shape[1] - 1
    final: list[Tensor] = []
    own = hold.patterns or bool(rules)
    with torch.no_grad(), precise_attention(frozen, own=own), Hooks() as hooks:
        for layer in range(frozen.n_layers):
            if look is not None:
                hooks.before(frozen.modules[layer], partial(look, layer))
            _hook_block(hooks, frozen, recording, layer, hold, visit)
            held = hold.pattern(layer, recording.blocks[layer])
            if held is not None or layer in rules:
                attending = Attending(held, rules.get(layer, AS_IT_IS))
                hooks.giving(frozen.blocks[layer].modules.attention, mix=attending)
        norm = frozen.final_norm_there
        hooks.before(frozen.final_norm_module, final.append)
        held = _mask(hold.at(frozen.n_layers), norm.gain.device)
        denominator = moved(recording.final_denominator, norm.gain.device)
        hooks.after(frozen.final_norm_module, partial(_norm, norm, denominator, held))
        logits = logits_at(frozen, ids, position)
    return RunOutput(logits, moved(final[0], frozen.device))


def _hook_block(
    hooks: Hooks,
    frozen: FrozenModel,
    recording: Recording,
    layer: int,
    hold: Hold,
    visit: Visit,
) -> None:
    block = frozen.blocks[layer]
    modules, recorded = block.modules, recording.blocks[layer]
    mask = _mask(hold.at(layer), recorded.contribution.device)
    denominators = {
        "attention_norm": recorded.attention_denominator,
        "post_attention_norm": recorded.post_attention_denominator,
        "mlp_norm": recorded.mlp_denominator,
        "post_mlp_norm": recorded.post_mlp_denominator,
    }
    added: list[Additions] = []  # by the visitor, before the MLP runs

    def contribution(_: Tensor, own: Tensor) -> Tensor:
        kept = own if mask is None else torch.where(mask, recorded.contribution, own)
        return _plus(kept, added[0].contribution)

    hooks.before(modules.mlp_reader, lambda x: added.append(visit(layer, x)))
    hooks.after(modules.mlp, lambda _, output: _plus(output, added[0].output))
    for name, module, norm in block.norms():
        hooks.after(module, partial(_norm, norm, denominators[name], mask))
    hooks.after(modules.mlp_contribution, contribution, factor=frozen.residual_multiplier)


def _mask(held: Bool[ndarray, " batch"], device: torch.device) -> Bool[Tensor, "batch 1 1"] | None:
    """The copies in which a block is held, to choose among what they compute; None if in none."""
    return on_device(held[:, None, None], device) if held.any() else None


def _plus(x: Tensor, added: Tensor | None) -> Tensor:
    return x if added is None else x + added


def _norm(
    norm: Norm,
    denominator: Float[Tensor, " recorded"],
    held: Bool[Tensor, "batch 1 1"] | None,
    given: Float[Tensor, "batch pos d_model"],
    output: Float[Tensor, "batch pos d_model"],
) -> Float[Tensor, "batch pos d_model"]:
    """A norm with its denominators held in some copies, and in full precision in the others."""
    own = exact_norm(norm, given, output) if given.dtype == torch.float64 else output
    if held is None:
        return own
    linear = norm.linear(given, denominator) + norm.bias
    return torch.where(held, linear.to(own), own)
