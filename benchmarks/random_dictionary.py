"""Random transcoders, for timing: the cost of a row does not depend on the values.

Every layer has one JumpReLU threshold, set so that a given number of features is active per token
and layer on one prompt, and decoders of such a size that together they write as much as the MLP.
"""

from __future__ import annotations

from typing import Literal

import torch

from circuits.features.hook_points import MlpPoints
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import JumpReLU, Transcoder
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from circuits.recording.record import record
from graphs import DictionaryIdentity

Kind = Literal["per layer", "skip", "cross-layer"]


def random_dictionary(
    subject: Subject, prompt: Prompt, d_dict: int, active: float, kind: Kind = "per layer"
) -> TranscoderSet:
    """A set with `active` features per token and layer on this prompt."""
    frozen = subject.frozen
    device, generator = frozen.device, torch.Generator(frozen.device).manual_seed(0)
    recording = record(frozen, prompt)
    points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.CONTRIBUTION)
    layers: list[Transcoder] = []

    def random(rows: int) -> torch.Tensor:
        made = torch.randn(rows, frozen.d_model, generator=generator, device=device)
        return made.to(frozen.dtype)

    for layer in range(frozen.n_layers):
        encoder = torch.randn(d_dict, frozen.d_model, generator=generator, device=device).to(
            frozen.dtype
        )
        inputs = points.inputs(layer)[prompt.n_prefix :]
        pre = inputs @ encoder.T
        threshold = _threshold(pre, round(active * len(pre)))
        active_values = pre.where(pre > threshold, 0)
        n_written = frozen.n_layers - layer if kind == "cross-layer" else 1
        decoders: list[torch.Tensor] = []
        for written in range(layer, layer + n_written):
            decoder = torch.randn(d_dict, frozen.d_model, generator=generator, device=device).to(
                frozen.dtype
            )
            made = recording.blocks[written].contribution[prompt.n_prefix :].norm()
            share = written + 1 if kind == "cross-layer" else 1  # layers that write there
            decoders.append(decoder * (made / (active_values @ decoder).norm() / share**0.5))
        skip = torch.randn(frozen.d_model, frozen.d_model, generator=generator, device=device).to(
            frozen.dtype
        )
        made = recording.blocks[layer].contribution[prompt.n_prefix :].norm()
        layers.append(
            Transcoder(
                encoder=encoder,
                encoder_bias=encoder.new_zeros(d_dict),
                decoders=tuple(decoders),
                decoder_bias=encoder.new_zeros(frozen.d_model),
                nonlinearity=JumpReLU(threshold.expand(d_dict)),
                skip=skip * (0.3 * made / (inputs @ skip.T).norm()) if kind == "skip" else None,
            )
        )
    return TranscoderSet(
        tuple(layers),
        ReadPoint.MLP_INPUT,
        WritePoint.CONTRIBUTION,
        DictionaryIdentity(
            kind="cross-layer transcoder" if kind == "cross-layer" else "transcoder",
            name=f"random {d_dict}, {kind}",
        ),
    )


def _threshold(pre: torch.Tensor, count: int) -> torch.Tensor:
    """A threshold in the widest gap near the `count` largest, so that rounding crosses none."""
    largest = pre.flatten().topk(count + count // 10 + 2).values[count - count // 10 - 1 :]
    gap = int((largest[:-1] - largest[1:]).argmax())
    return largest[gap : gap + 2].mean().clamp(min=0)
