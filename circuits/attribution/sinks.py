"""Attention sinks: positions whose residual stream is far larger than that of the others.

Models park attention at one position, mostly the first, whose residual they let grow a hundredfold.
Where that is BOS, no features are looked for at it.  Where it is an ordinary token, its features
are as large as its residual and take part in everything, and say little about the prompt.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from numpy import ndarray

from circuits.features.active import ActiveFeatures
from circuits.recording.record import Recording
from graphs.core.provenance import Sink

# Of the residual's norm over the median.  Without BOS, the first token of SmolLM2-135M has 157 to
# 234; no other token of it or of Gemma 3 270M has more than 12.
LEAST_RATIO = 100.0


def attention_sinks(
    recording: Recording, features: ActiveFeatures, reached: Float[ndarray, " feat"]
) -> tuple[Sink, ...]:
    """The sinks among positions that are not context only; `reached` is the features' influence.

    Residuals are those that the MLPs read, each beside the median of all positions of its layer.
    """
    norms = torch.stack([block.mlp_residual.float().norm(dim=1) for block in recording.blocks])
    usual = norms.median(1, keepdim=True).values  # of an even number the lower: two tokens do
    ratios, layers = torch.where(usual > 0, norms / usual, 0.0).max(0)
    pos, total = features.pos.cpu().numpy(), float(reached.sum())
    return tuple(
        Sink(
            pos=at,
            layer=int(layers[at]),
            ratio=float(ratios[at]),
            influence=float(reached[pos == at].sum()) / total if total > 0 else 0.0,
        )
        for at in range(recording.prompt.context_only, len(recording.prompt))
        if ratios[at] > LEAST_RATIO
    )
