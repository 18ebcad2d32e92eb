"""A dictionary of some layers, and the model's own neurons in the others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.features.active import ActiveFeatures, FeatureLayer, LinearPath, Places, Rows
from circuits.features.neurons import Neurons
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.frozen import Covectors, FrozenModel
from circuits.recording.record import Recording
from graphs.core.brief import Brief
from graphs.core.nodes import Description


@dataclass(frozen=True)
class FilledRows:
    """Rows of two sources of features; each layer belongs to one of them."""

    parts: tuple[Rows, Rows]
    filled: tuple[bool, ...]  # by layer: whether it belongs to the second
    row: Int[Tensor, " feat"]  # in its part

    def encoder(
        self, ends: Int[ndarray, " end"], feature: Int[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        row, found = self.row.index_select(0, feature), list[Tensor]()
        for layer, (start, end) in enumerate(pairwise(ends.tolist())):
            own = (ends - start).clip(0, end - start)  # those of this layer only
            found.append(self.parts[self.filled[layer]].encoder(own, row[start:end]))
        return torch.cat(found)

    def decoder(
        self, layer: int, written: int, feature: Int[Tensor, " row"] | slice
    ) -> Float[Tensor, "row d_model"]:
        return self.parts[self.filled[layer]].decoder(layer, written, self.row[feature])

    def constant(self, layer: int) -> Float[Tensor, "pos d_model"]:
        return self.parts[self.filled[layer]].constant(layer)

    def linear(self, layer: int) -> dict[int, LinearPath]:
        return {**self.parts[0].linear(layer), **self.parts[1].linear(layer)}

    def at(self, layer: int, active: Places, activation: Float[Tensor, " feat"]) -> FeatureLayer:
        return self.parts[self.filled[layer]].at(layer, active, activation)


@dataclass(frozen=True, repr=False)
class Filled(Brief):
    """Transcoders where a set has them, neurons elsewhere."""

    transcoders: TranscoderSet
    neurons: Neurons

    def peak_values(self, frozen: FrozenModel, n_tokens: int) -> int:
        """The larger of both parts, which are computed one after the other."""
        return max(part.peak_values(frozen, n_tokens) for part in (self.transcoders, self.neurons))

    def at(self, frozen: FrozenModel, recording: Recording, layer: int) -> FeatureLayer:
        """All features of a layer, or all its neurons."""
        fitted = self.transcoders.fitted(frozen)
        own = fitted if fitted.layers[layer].d_dict else self.neurons
        return own.at(frozen, recording, layer)

    def describe(self, layer: int, index: int) -> Description | None:
        """The dictionary's description of a feature; None for neurons."""
        covered = layer < len(self.transcoders.layers)
        return self.transcoders.describe(layer, index) if covered else None

    def activate(
        self, frozen: FrozenModel, recording: Recording, targets: Covectors
    ) -> ActiveFeatures:
        """Active features, and the strongest neurons of layers without a transcoder.

        Raises as `TranscoderSet.activate`.
        """
        fitted = self.transcoders.fitted(frozen)
        filled = tuple(transcoder.d_dict == 0 for transcoder in fitted.layers)
        layers = {layer for layer, empty in enumerate(filled) if empty}
        features = fitted.activate(frozen, recording, targets)
        neurons = self.neurons.activate(frozen, recording, targets, layers)
        columns = [
            torch.cat([getattr(features, name), getattr(neurons, name)])
            for name in ("layer", "pos", "index", "activation", "value", "constant", "threshold")
        ]
        # Both are sorted, and no layer is in both: sorting by layer alone is enough.
        order = torch.argsort(columns[0], stable=True)
        row = torch.where(order < len(features), order, order - len(features))
        kind = f"{features.identity.kind} and neurons"
        return ActiveFeatures(
            *(column[order] for column in columns),
            reads_norm=tuple(
                (neurons if own else features).reads_norm[layer] for layer, own in enumerate(filled)
            ),
            covered=features.covered,
            reach=features.reach,
            rows=FilledRows((features.rows, neurons.rows), filled, row),
            identity=features.identity.model_copy(update={"kind": kind}),
            found=features.found + neurons.found,
        )
