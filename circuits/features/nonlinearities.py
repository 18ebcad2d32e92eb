"""What a dictionary does to pre-activations: ReLU, JumpReLU, or the largest of some group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ReLU:
    """max(pre, 0)."""

    def of(self, index: Int[Tensor, " row"]) -> ReLU:
        """The same for some features, which do not depend on each other."""
        del index
        return self

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        return pre.relu()


@dataclass(frozen=True)
class JumpReLU:
    """pre where pre > threshold, strictly, else 0; published thresholds are positive."""

    threshold: Float[Tensor, " d_dict"]

    def of(self, index: Int[Tensor, " row"]) -> JumpReLU:
        """The same for some features, which do not depend on each other."""
        return JumpReLU(self.threshold[index.to(self.threshold.device)])

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        return torch.where(pre > self.threshold.to(pre), pre.relu(), 0)


@dataclass(frozen=True)
class TopK:
    """The k largest of each position; `signed` keeps negative ones (circuit-tracer), else ReLU.

    With a weight, size means activation times weight.
    """

    k: int
    signed: bool = False
    weight: Float[Tensor, " d_dict"] | None = None

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        kept = pre if self.signed else pre.relu()
        index = sized(kept, self.weight).topk(min(self.k, kept.shape[-1]), dim=-1).indices
        return torch.zeros_like(kept).scatter(-1, index, kept.gather(-1, index))


@dataclass(frozen=True)
class BatchTopK:
    """The k largest per position on average over all positions, after a ReLU."""

    k: int
    weight: Float[Tensor, " d_dict"] | None = None

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        kept = pre.relu()
        size = sized(kept, self.weight).flatten()
        index = size.topk(min(self.k * len(pre), len(size))).indices
        flat = torch.zeros_like(kept).flatten()
        return flat.scatter(0, index, kept.flatten()[index]).view_as(kept)


@dataclass(frozen=True)
class GroupMax:
    """The largest of each of k groups of neighbouring features, after a ReLU (sparsify)."""

    k: int

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        kept = pre.relu()
        groups = kept.view(len(kept), self.k, -1)
        values, index = groups.max(-1, keepdim=True)
        return torch.zeros_like(groups).scatter(-1, index, values).view_as(kept)


@dataclass(frozen=True)
class JointTopK:
    """The k features of a token, over all layers, of largest activation times decoder norm."""

    k: int
    norms: tuple[Float[Tensor, " d_dict"], ...]

    def candidates(
        self, layer: int, activation: Float[Tensor, "pos d_dict"]
    ) -> Float[Tensor, "pos d_dict"]:
        """Only the features that can be among them."""
        sizes = activation * self.norms[layer].to(activation)
        index = sizes.topk(min(self.k, sizes.shape[1]), dim=1).indices
        return torch.zeros_like(activation).scatter(1, index, activation.gather(1, index))

    def kept(
        self,
        layer: Int[Tensor, " feat"],
        pos: Int[Tensor, " feat"],
        index: Int[Tensor, " feat"],
        activation: Float[Tensor, " feat"],
    ) -> Int[Tensor, " kept"]:
        """Which of the candidates are, in their order."""
        size = activation.clone()
        for number, norm in enumerate(self.norms):
            here = layer == number
            size[here] *= norm[index[here].to(norm.device)].to(size)
        order = torch.argsort(size, descending=True, stable=True)
        order = order[torch.argsort(pos[order], stable=True)]
        counts = torch.bincount(pos)
        rank = torch.arange(len(order), device=pos.device) - (counts.cumsum(0) - counts)[pos[order]]
        return order[rank < self.k].sort().values


def sized(
    kept: Float[Tensor, "pos d_dict"], weight: Float[Tensor, " d_dict"] | None
) -> Float[Tensor, "pos d_dict"]:
    """What features are chosen by."""
    return kept if weight is None else kept * weight.to(kept)


Nonlinearity = ReLU | JumpReLU | TopK | BatchTopK | GroupMax
