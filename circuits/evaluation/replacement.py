"""The global replacement model: a dictionary in the place of the MLPs, errors left out."""

from __future__ import annotations

from collections.abc import Container

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.features.mlp_hooks import mlp_hooks
from circuits.features.transcoder_set import TranscoderSet
from circuits.machine import beside, in_float64
from circuits.model.frozen import FrozenModel
from circuits.recording.record import Recording
from graphs.core.report import ReplacementReport


class Replacement:
    """A model whose MLPs are replaced by a dictionary, errors dropped, at chosen positions."""

    def __init__(self, frozen: FrozenModel, transcoders: TranscoderSet) -> None:
        transcoders.require_fit(frozen)
        self.frozen, self.transcoders = frozen, transcoders
        self.activations: dict[int, Tensor] = {}  # by layer (batch, pos, feat)
        self.inputs: dict[int, Tensor] = {}  # by layer (batch, pos, d_model), as are outputs
        self.outputs: dict[int, Tensor] = {}

    @torch.inference_mode()
    def logits(
        self,
        ids: Int[Tensor, "batch pos"],
        replaced: Bool[Tensor, "batch pos"] | None,
        *,
        last_only: bool = False,
        layers: Container[int] | None = None,
    ) -> Float[Tensor, "batch some d_vocab"]:
        """Logits, of all positions or of the last one.

        Where `replaced` is True, MLPs (of `layers`, if given) return the dictionary's
        reconstruction.  Activations, inputs and the MLPs' own outputs are kept in the attributes
        of those names: activations and inputs of layers that a replaced one needs.
        """
        self.frozen.require_embedded(ids)
        for kept in (self.activations, self.inputs, self.outputs):
            kept.clear()

        def on_read(layer: int, read: Tensor) -> None:
            if layers is None or any(above in layers for above in self._reached(layer)):
                self._encode(layer, read)

        def on_written(layer: int, output: Tensor) -> Tensor | None:
            self.outputs[layer] = output
            if replaced is None or (layers is not None and layer not in layers):
                return None
            return torch.where(replaced[..., None], self.reconstruction(layer), output)

        points = self.transcoders.read, self.transcoders.write
        with mlp_hooks(self.frozen, *points, on_read, on_written):
            kept = int(last_only)  # 0 keeps all
            return self.frozen.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits

    def _encode(self, layer: int, read: Float[Tensor, "batch pos d_model"]) -> None:
        transcoder = self.transcoders.layers[layer]
        pre = transcoder.pre_activations(read)
        active = transcoder.nonlinearity(pre.flatten(0, 1))
        if self.transcoders.joint is not None:  # within one layer: others have not run yet
            active = self.transcoders.joint.candidates(layer, active)
        self.activations[layer], self.inputs[layer] = active.view_as(pre), read

    def _reached(self, layer: int) -> range:
        """The layers that a layer's features or skips write to."""
        own = self.transcoders.layers[layer]
        return range(layer, layer + max(own.n_written, 1 + len(own.higher_skips)))

    def reconstruction(self, layer: int) -> Float[Tensor, "batch pos d_model"]:
        """The dictionary's reconstruction of a layer, from the features of this pass."""
        transcoder = self.transcoders.layers[layer]
        total = beside(transcoder.decoder_bias, self.activations[layer])
        for source, other in enumerate(self.transcoders.layers[: layer + 1]):
            skip = other.skip_to(layer - source)
            if skip is not None:
                total = total + self.inputs[source] @ beside(skip, total).T
            if layer - source < other.n_written:
                total = total + other.written(layer - source, self.activations[source])
        return total


def replacement_report(
    frozen: FrozenModel, recording: Recording, transcoders: TranscoderSet
) -> ReplacementReport:
    """How the prediction changes if the dictionary replaces all MLPs that it covers, or one.

    Prefix positions keep their MLPs.
    """
    model = Replacement(frozen, transcoders.fitted(frozen))
    covered = [layer for layer, one in enumerate(transcoders.layers) if one.d_dict]
    end = recording.position + 1  # later positions have no effect
    ids = torch.tensor([recording.prompt.ids[:end]], device=frozen.device)
    replaced = torch.ones_like(ids, dtype=torch.bool)
    replaced[:, : recording.prompt.n_prefix] = False
    own = in_float64(recording.logits).log_softmax(-1)

    def logits(layers: list[int]) -> Tensor:
        return model.logits(ids, replaced, last_only=True, layers=layers)[0, 0]

    each = [logits(covered), *(logits([layer]) for layer in covered)]
    found = in_float64(torch.stack(each)).log_softmax(-1)
    everywhere, *divergences = (own.exp() * (own - found)).sum(1).clamp(min=0).tolist()
    by_layer = dict(zip(covered, divergences, strict=True))
    return ReplacementReport(
        same_top=bool(found[0].argmax() == own.argmax()),
        divergence=everywhere,
        per_layer=tuple(by_layer.get(layer, 0.0) for layer in range(frozen.n_layers)),
    )
