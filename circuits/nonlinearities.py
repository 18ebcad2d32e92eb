"""What a dictionary does to pre-activations: ReLU, JumpReLU or TopK."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ReLU:
    """max(pre, 0)."""

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        return pre.relu()


@dataclass(frozen=True)
class JumpReLU:
    """pre where pre > threshold, strictly, else 0; published thresholds are positive."""

    threshold: Float[Tensor, " d_dict"]

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        return torch.where(pre > self.threshold, pre.relu(), 0)


@dataclass(frozen=True)
class TopK:
    """The k largest of each position; `signed` keeps negative ones (circuit-tracer), else ReLU."""

    k: int
    signed: bool = False

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        kept = pre if self.signed else pre.relu()
        values, index = kept.topk(min(self.k, kept.shape[-1]), dim=-1)
        return torch.zeros_like(kept).scatter(-1, index, values)


Nonlinearity = ReLU | JumpReLU | TopK
