"""Thresholds of a finished dictionary."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.largest import largest
from circuits.training.activations import Stream
from circuits.training.dictionary import TrainedDictionary
from circuits.training.processes import Group
from circuits.training.settings import Sparsity, TrainSettings


@torch.no_grad()
def thresholds(
    dictionary: TrainedDictionary, stream: Stream, document: int
) -> Float[Tensor, "layer feat"]:
    """Thresholds of the finished dictionary: learned, or those that keep as many as batch-topk.

    One threshold per layer, or one for all if they share a budget, keeps as many on average.  It
    is the mean over the batches of a pool.
    """
    settings, learned = stream.settings, dictionary.log_threshold.exp()
    if settings.sparsity != Sparsity.BATCH_TOP_K:
        return learned
    found: list[Tensor] = []
    inputs = stream.pool(document).activations.inputs
    for batch in inputs.split(settings.batch_tokens, dim=1):
        read = dictionary.inputs.apply_to(batch)
        # One layer after another, unless all are needed at once.
        rows = (dictionary.pre_activations(*one, exact=True).flatten() for one in enumerate(read))
        rows = [torch.cat([*rows])] if settings.one_budget else rows
        features = dictionary.processes.features
        found.append(torch.stack([_least_kept(row, settings, features) for row in rows]))
    least = torch.stack(found).mean(0).clamp(min=torch.finfo(learned.dtype).tiny)
    return least.expand(len(learned))[:, None].expand_as(learned)


def _least_kept(
    values: Float[Tensor, " value"], settings: TrainSettings, features: Group
) -> Float[Tensor, ""]:
    count = max(1, int(settings.l0 / settings.d_dict * len(values) * features.size))
    own = values[largest(values[None], min(count, len(values)))[0]]
    return features.largest(own[None], count).min()
