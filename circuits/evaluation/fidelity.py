"""How well a dictionary reconstructs, and how well it replaces a model's MLPs all at once.

unexplained = Σ_token |vector - reconstruction|² / Σ_token |vector - mean vector|²
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.evaluation.replacement import Replacement
from circuits.features.transcoder_set import TranscoderSet
from circuits.machine import in_float64, moved, widest
from circuits.model.frozen import FrozenModel

COMPARED = 64  # tokens whose distributions are compared at once, few enough for the cache
NO_VARIANCE = 1e-12  # of the mean square: rounding of float32, squared


@dataclass(frozen=True)
class Fidelity:
    """One dictionary on some tokens."""

    tokens: int
    layers: tuple[int, ...]  # that have features
    unexplained: tuple[float, ...]  # per layer, squared error over variance
    l0: tuple[float, ...]  # per layer, active features per token
    dead: tuple[float, ...]  # per layer, share of features that never fired
    agreement: float  # share of tokens with the same most likely next token, their MLPs replaced
    divergence: float  # mean KL of the replacement model from the model, in nats


class Reconstructed:
    """Sums over tokens of what one dictionary reconstructs, in float64."""

    def __init__(self, d_dict: int) -> None:
        self.tokens = 0
        self.error, self.square, self.active = 0.0, 0.0, 0
        self.fired = torch.zeros(d_dict, dtype=torch.bool)
        self.total: Tensor | None = None  # (d_in,)

    def add(
        self,
        own: Float[Tensor, "token d_in"],
        reconstruction: Float[Tensor, "token d_in"],
        activations: Float[Tensor, "token d_dict"],
    ) -> None:
        """Add tokens: the model's own vectors, their reconstruction and the features."""
        wide = own.to(widest(own))
        total, on = in_float64(wide.sum(0)), activations != 0
        self.tokens += len(own)
        self.error += float((wide - reconstruction).square().sum())
        self.square += float(wide.square().sum())
        self.active += int(on.sum())
        self.fired |= on.any(0).cpu()
        self.total = total if self.total is None else self.total + total

    @property
    def unexplained(self) -> float:
        """Squared error over variance about the mean; nan where all vectors are the same."""
        assert self.total is not None
        variance = self.square - float(self.total.square().sum()) / self.tokens
        return self.error / variance if variance > NO_VARIANCE * self.square else math.nan

    @property
    def l0(self) -> float:
        """Active features per token."""
        return self.active / self.tokens

    @property
    def dead(self) -> float:
        """Share of the features that never fired."""
        return 1 - float(self.fired.double().mean())


@torch.inference_mode()
def fidelity(
    frozen: FrozenModel,
    transcoders: TranscoderSet,
    batches: Iterator[tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]],
) -> Fidelity:
    """Measure on token ids; only positions marked True count, and only they are replaced."""
    model = Replacement(frozen, transcoders.fitted(frozen))
    sizes = {layer: one.d_dict for layer, one in enumerate(transcoders.layers) if one.d_dict}
    layers = {layer: Reconstructed(d_dict) for layer, d_dict in sizes.items()}
    tokens, same, divergence = 0, 0, 0.0
    for ids, counted in batches:
        own = model.logits(ids, None, counted=counted)[counted]
        for layer, sums in layers.items():
            parts = model.outputs[layer], model.reconstruction(layer), model.activations[layer]
            sums.add(*(part[moved(counted, part.device)] for part in parts))
        replaced = model.logits(ids, counted, places=layers)[counted]
        tokens += len(own)
        for some in zip(*(each.split(COMPARED) for each in (own, replaced)), strict=True):
            before, after = (logits.float().log_softmax(-1) for logits in some)
            same += int((before.argmax(-1) == after.argmax(-1)).sum())
            divergence += float((before.exp() * (before - after)).sum(dtype=torch.float64))
    return Fidelity(
        tokens=tokens,
        layers=tuple(layers),
        unexplained=tuple(sums.unexplained for sums in layers.values()),
        l0=tuple(sums.l0 for sums in layers.values()),
        dead=tuple(sums.dead for sums in layers.values()),
        agreement=same / tokens,
        divergence=divergence / tokens,
    )
