"""Sparsity of dictionaries: straight-through thresholds.

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
        return grads[0] * (pre > threshold), -(near * threshold * grads[0]), None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        return None, -(_rectangle(pre, threshold, ctx.bandwidth) * grads[0]), None


def _rectangle(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    return ((pre - threshold).abs() < bandwidth / 2).to(pre.dtype) / bandwidth


def jump_relu(
    pre: Float[Tensor, " entry"], threshold: Float[Tensor, " entry"], bandwidth: float
) -> Float[Tensor, " entry"]:
    """pre where it is above its threshold, with straight-through gradients."""
    return _JumpReLU.apply(pre, threshold, bandwidth)  # pyright: ignore[reportReturnType]  # stubs say Any or None


def active(
    pre: Float[Tensor, " entry"], threshold: Float[Tensor, " entry"], bandwidth: float
) -> Float[Tensor, " entry"]:
    """1 where pre is above its threshold, with a gradient for the threshold alone."""
    return _Step.apply(pre, threshold, bandwidth)  # pyright: ignore[reportReturnType]
