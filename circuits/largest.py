"""The largest of many values, found without sorting them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def largest(values: Float[Tensor, "row value"], k: int) -> Int[Tensor, "row k"]:
    """Indices of the k largest values of each row, in no order.

    They are in the k groups with the largest maxima, so only these groups are searched, and what is
    left of a row that groups do not divide: one pass over all values, and sizes that are known
    without looking at them.  There are about as many groups as values in the k groups.
    """
    count = values.shape[1]
    size = 2 ** round(math.log2(count / k) / 2) if k else 1
    n_groups = count // size
    if size == 1 or k >= n_groups:
        return values.topk(k, sorted=False).indices
    divided = size * n_groups
    maxima = values[:, :divided].unflatten(1, (size, n_groups)).amax(1)
    groups = maxima.topk(k, sorted=False).indices
    member = n_groups * torch.arange(size, device=values.device)  # of group 0
    members = (groups[:, None] + member[:, None]).flatten(1)
    if divided < count:
        left = torch.arange(divided, count, device=values.device)
        members = torch.cat([members, left.expand(len(values), -1)], 1)
    return members.gather(1, values.gather(1, members).topk(k, sorted=False).indices)


def largest_first(values: Float[Tensor, "row value"], k: int) -> Int[Tensor, "row k"]:
    """The same, the largest first."""
    found = largest(values, k)
    return found.gather(1, values.gather(1, found).argsort(dim=1, descending=True))
