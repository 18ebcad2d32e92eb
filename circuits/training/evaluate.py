"""How well a dictionary replaces a model's MLPs, on documents that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.evaluation.replacement import Replacement
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.frozen import FrozenModel


@dataclass(frozen=True)
class Fidelity:
    """One dictionary on some tokens."""

    tokens: int
    unexplained: tuple[float, ...]  # per layer, squared error over variance
    l0: tuple[float, ...]  # per layer, active features per token
    dead: tuple[float, ...]  # per layer, share of features that never fired
    agreement: float  # share of tokens with the same most likely next token, all MLPs replaced
    divergence: float  # mean KL of the replacement model from the model, in nats


@torch.inference_mode()
def fidelity(
    frozen: FrozenModel,
    transcoders: TranscoderSet,
    batches: Iterator[tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]],
) -> Fidelity:
    """Measure on token ids; only positions marked True count, and only they are replaced."""
    model = Replacement(frozen, transcoders)
    n_layers = frozen.n_layers
    error, size, active = (torch.zeros(n_layers, dtype=torch.float64) for _ in range(3))
    total = torch.zeros(n_layers, frozen.d_model, dtype=torch.float64)
    fired = [torch.zeros(t.d_dict, dtype=torch.bool) for t in transcoders.layers]
    tokens, same, divergence = 0, 0, 0.0
    for ids, counted in batches:
        own = model.logits(ids, None)[counted].float().log_softmax(-1)
        for layer in range(n_layers):
            output = model.outputs[layer][counted].double()
            error[layer] += (output - model.reconstruction(layer)[counted]).square().sum().cpu()
            size[layer] += output.square().sum().cpu()
            total[layer] += output.sum(0).cpu()
            on = model.activations[layer][counted] > 0
            active[layer] += on.sum().cpu()
            fired[layer] |= on.any(0).cpu()
        replaced = model.logits(ids, counted)[counted].float().log_softmax(-1)
        tokens += len(own)
        same += int((own.argmax(-1) == replaced.argmax(-1)).sum())
        divergence += float((own.exp() * (own - replaced)).sum(dtype=torch.float64))
    variance = size - total.square().sum(1) / tokens
    return Fidelity(
        tokens=tokens,
        unexplained=tuple((error / variance).tolist()),
        l0=tuple((active / tokens).tolist()),
        dead=tuple(1 - float(layer.float().mean()) for layer in fired),
        agreement=same / tokens,
        divergence=divergence / tokens,
    )
