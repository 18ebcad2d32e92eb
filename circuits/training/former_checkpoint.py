"""Checkpoints written until November 2026, under the present names and in the present layout.

Then the encoders of all layers were one tensor, decoders were stored by the layer that they write
to, from its lowest source on, and moments by the number of their parameter.
"""

from __future__ import annotations

import torch
from torch import Tensor


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint; as they are if they have the present names."""
    if "parameter.encoder" not in tensors:
        return tensors
    found = dict(tensors)
    numbered = ["encoder", "encoder_bias", "log_threshold", "decoder_bias"]
    numbered += ["skip"] if "parameter.skip" in tensors else []
    n_layers = len(tensors["parameter.encoder"])
    numbered += [f"decoders.{layer}" for layer in range(n_layers)]
    for number, name in enumerate(numbered):
        for key in ("exp_avg", "exp_avg_sq", "step"):
            moment = found.pop(f"optimizer.{number}.{key}", None)
            if moment is not None:
                found[f"optimizer.{name}.{key}"] = moment
    for start in ("parameter.", "optimizer."):
        for end in ("",) if start == "parameter." else (".exp_avg", ".exp_avg_sq"):
            encoder = found.pop(f"{start}encoder{end}")
            by_written = [found.pop(f"{start}decoders.{m}{end}") for m in range(n_layers)]
            for layer, decoder in enumerate(_by_source(by_written)):
                found[f"{start}encoders.{layer}{end}"] = encoder[layer]
                found[f"{start}decoders.{layer}{end}"] = decoder
    step = found.pop("optimizer.encoder.step")
    for layer in range(n_layers):
        found[f"optimizer.encoders.{layer}.step"] = step.clone()
    return found


def _by_source(by_written: list[Tensor]) -> list[Tensor]:
    """Decoders (source, feat, d_model) of each written layer as (feat, written, d_model)."""
    lowest = [m + 1 - len(decoder) for m, decoder in enumerate(by_written)]
    return [
        torch.stack(
            [d[layer - lowest[m]] for m, d in enumerate(by_written) if lowest[m] <= layer <= m], 1
        )
        for layer in range(len(by_written))
    ]
