"""Replay: run the local replacement model forward and compare its logits with the model's own.

Features, errors, constants and linear paths are added layer by layer to the embedding, through
the frozen attention.  If anything was left out, the logits differ.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.sources import Sources
from circuits.model.frozen import FrozenModel
from circuits.recording.attention import attended, attention_constant
from circuits.recording.record import Recording, relative_difference


def replay(
    frozen: FrozenModel, recording: Recording, sources: Sources
) -> Float[Tensor, "pos d_model"]:
    """The final residual stream of the local replacement model."""
    residual = torch.stack(sources.inputs).sum(0)
    reads: list[Tensor] = []  # what each layer's MLP reads
    for layer, entering in enumerate(sources.layers):
        block, seen = frozen.blocks[layer], recording.blocks[layer]
        values = (residual / seen.attention_denominator[:, None]) @ block.value.T
        before, residual = residual, residual + attended(block, seen, values)
        residual[: sources.first] += attention_constant(block, seen)[: sources.first]
        residual[: sources.first] += seen.contribution[: sources.first]
        swept = residual[sources.first :]
        swept += entering.attention_constant
        reads.append((before if frozen.parallel else residual)[sources.first :].clone())
        for read, path in entering.linear.items():
            swept += path.forward(reads[read], sources.first)
        swept.index_add_(0, entering.tiles.pos, entering.tiles.vectors.sum(1))
    return residual


def replay_difference(frozen: FrozenModel, recording: Recording, sources: Sources) -> float:
    """Largest difference of a replayed logit from the model's own, over the largest logit."""
    pos = recording.position
    residual = replay(frozen, recording, sources)[pos]
    norm = frozen.final_norm
    final = norm.linear(residual, recording.final_denominator[pos]) + norm.bias
    return relative_difference(frozen.logits(final), recording.logits)
