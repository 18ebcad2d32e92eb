"""Sparsity of dictionaries: straight-through thresholds, or the largest of a batch.

A threshold has no gradient where it matters, so a rectangle of width `bandwidth` stands in for
the delta function of its step (JumpReLU SAEs, arXiv 2407.14435):

    d JumpReLU / d threshold = -threshold / bandwidth · rect((pre - threshold) / bandwidth)
    d step     / d threshold = -1 / bandwidth · rect((pre - threshold) / bandwidth)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

SAMPLED = 101  # one in this many values; prime, so that every feature is sampled


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return torch.where(pre > threshold, pre, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        near = _rectangle(pre, threshold, ctx.bandwidth)
        at_threshold = -(near * threshold * grads[0]).sum(-2, keepdim=True)
        return grads[0] * (pre > threshold), at_threshold, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        near = _rectangle(pre, threshold, ctx.bandwidth)
        return None, -(near * grads[0]).sum(-2, keepdim=True), None


def _rectangle(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    return ((pre - threshold).abs() < bandwidth / 2).to(pre.dtype) / bandwidth


def jump_relu(
    pre: Float[Tensor, "layer batch feat"],
    threshold: Float[Tensor, "layer 1 feat"],
    bandwidth: float,
) -> Float[Tensor, "layer batch feat"]:
    """pre where it is above its threshold, with straight-through gradients."""
    return _JumpReLU.apply(pre, threshold, bandwidth)  # pyright: ignore[reportReturnType]  # stubs say Any or None


def active(
    pre: Float[Tensor, "layer batch feat"],
    threshold: Float[Tensor, "layer 1 feat"],
    bandwidth: float,
) -> Float[Tensor, "layer batch feat"]:
    """1 where pre is above its threshold, with a gradient for the threshold alone."""
    return _Step.apply(pre, threshold, bandwidth)  # pyright: ignore[reportReturnType]


def top_k(pre: Float[Tensor, "layer batch feat"], k: int) -> Float[Tensor, "layer batch feat"]:
    """The k largest positive features of every layer and token."""
    values, index = pre.relu().topk(min(k, pre.shape[-1]), dim=-1)
    return torch.zeros_like(pre).scatter(-1, index, values)


def batch_top_k(
    pre: Float[Tensor, "layer batch feat"], k: float
) -> Float[Tensor, "layer batch feat"]:
    """The largest positive features, k per layer and token on average over the batch.

    Layers share the budget, so that each uses what it needs (BatchTopK, arXiv 2412.06410).
    """
    positive = pre.relu()
    count = min(int(k * pre.shape[0] * pre.shape[1]), positive.numel())
    return torch.where(positive >= kth_largest(positive.flatten(), count), positive, 0)


def kth_largest(values: Float[Tensor, " value"], count: int) -> Float[Tensor, ""]:
    """The `count`-th largest value.

    Most values are far below it, so a sample shows which ones need not be sorted.
    """
    sample = values[::SAMPLED]
    rank = min(len(sample), 2 * count // SAMPLED + 16)
    least = sample.kthvalue(len(sample) - rank + 1).values
    candidates = values[values >= least]
    if len(candidates) < count:
        candidates = values
    return candidates.kthvalue(len(candidates) - count + 1).values
