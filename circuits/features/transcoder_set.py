"""A set of transcoders: one per layer of a model, and which of their features fire."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circuits.features.active import ActiveFeatures
from circuits.features.feature_files import FeatureFiles
from circuits.features.hook_points import MlpPoints, ReadPoint, WritePoint
from circuits.features.nonlinearities import JointTopK
from circuits.features.transcoder import Transcoder, nothing
from circuits.features.transcoder_rows import TranscoderRows
from circuits.model.covectors import Covectors
from circuits.model.frozen import DamagedWeights, FrozenModel
from circuits.recording.record import Recording
from graphs.core.descriptions import Description
from graphs.core.provenance import DictionaryIdentity
from graphs.errors import HeadwaterError


class DictionaryMismatch(HeadwaterError):
    """A dictionary's shapes do not fit the model."""


@dataclass(frozen=True)
class TranscoderSet:
    """One transcoder per layer, all with the same read and write points."""

    layers: tuple[Transcoder, ...]
    read: ReadPoint
    write: WritePoint
    identity: DictionaryIdentity
    features: FeatureFiles | None = None  # what is known about each feature
    joint: JointTopK | None = None  # chooses among the features of all layers
    partial: bool = False  # whether the model may have more layers
    unlisted: bool = False  # whether files may be missing: copies of which no list is known

    @property
    def context_only(self) -> int | None:
        """First positions that it was not trained at; None if their tokens decide it."""
        return self.identity.documents and self.identity.documents.context_only

    def describe(self, layer: int, index: int) -> Description | None:
        """What the files beside the weights say about a feature."""
        return None if self.features is None else self.features.read(layer, index)

    def numbers(self, frozen: FrozenModel, n_tokens: int) -> int:
        """Pre-activations and activations of the widest layer, and a mask on the way."""
        del frozen
        return 3 * n_tokens * max((layer.d_dict for layer in self.layers), default=0)

    def fitted(self, frozen: FrozenModel) -> TranscoderSet:
        """The set with a transcoder for every layer of the model.

        Raises DictionaryMismatch if it does not fit.
        """
        self.require_fit(frozen)
        missing = frozen.n_layers - len(self.layers)
        covered = [layer for layer, one in enumerate(self.layers) if one.d_dict]
        if self.unlisted and len(covered) < frozen.n_layers:
            raise DictionaryMismatch(
                f"The Hub cannot be reached, and the local cache has {self.identity.name!r} for "
                f"{len(covered)} of {frozen.n_layers} layers, which may not be all: connect once, "
                "or name the folder of one layer."
            )
        if not missing:
            return self
        return replace(self, layers=(*self.layers, *[nothing(frozen.d_model)] * missing))

    def require_fit(self, frozen: FrozenModel) -> None:
        """Raises DictionaryMismatch unless there is a transcoder of the right width per layer."""
        count = len(self.layers)
        if count > frozen.n_layers or (count < frozen.n_layers and not self.partial):
            raise DictionaryMismatch(
                f"The dictionary {self.identity.name!r} has {count} layers, the model "
                f"has {frozen.n_layers}: choose the dictionary that was trained on this model."
            )
        for layer, transcoder in enumerate(self.layers):
            width = transcoder.encoder.shape[1]
            if width != frozen.d_model:
                raise DictionaryMismatch(
                    f"Layer {layer} of the dictionary {self.identity.name!r} reads {width} "
                    f"dimensions, the model has {frozen.d_model}: choose the dictionary that was "
                    "trained on this model."
                )
            if layer + transcoder.n_written > frozen.n_layers:
                raise DictionaryMismatch(
                    f"Layer {layer} of the dictionary {self.identity.name!r} writes to "
                    f"{transcoder.n_written} layers, only {frozen.n_layers - layer} follow."
                )

    def activate(
        self, frozen: FrozenModel, recording: Recording, targets: Covectors
    ) -> ActiveFeatures:
        """The features of this set that fire on a recorded prompt, whatever the targets."""
        del targets
        return self.active(frozen, recording)

    def active(self, frozen: FrozenModel, recording: Recording) -> ActiveFeatures:
        """The features of this set that fire on a recorded prompt.

        Raises DictionaryMismatch if it does not fit the model, DamagedWeights for NaN in it.
        """
        fitted = self.fitted(frozen)
        points = MlpPoints(frozen, recording, self.read, self.write)
        columns = [_active(points, i, fitted) for i in range(frozen.n_layers)]
        layer, pos, index, activation, value, constant = (
            torch.cat(column) for column in zip(*columns, strict=True)
        )
        if self.joint is not None:
            kept = self.joint.kept(layer, pos, index, activation)
            layer, pos, index = layer[kept], pos[kept], index[kept]
            activation, value, constant = activation[kept], value[kept], constant[kept]
        written = torch.tensor([t.n_written for t in fitted.layers], device=layer.device)
        return ActiveFeatures(
            layer=layer,
            pos=pos,
            index=index,
            activation=activation,
            value=value,
            constant=constant,
            last_written=layer + written[layer] - 1,
            rows=TranscoderRows(fitted.layers, self.joint, points, layer, pos, index, activation),
            identity=self.identity,
            found=len(layer),
        )


def _active(points: MlpPoints, layer: int, transcoders: TranscoderSet) -> tuple[Tensor, ...]:
    """Columns layer, pos, index, activation, value, constant of one layer."""
    transcoder = transcoders.layers[layer]
    value = transcoder.pre_activations(points.inputs(layer))
    if not bool(torch.isfinite(value).all()):
        raise DamagedWeights(
            f"Layer {layer} of {transcoders.identity.name!r} holds NaN or infinite values: its "
            "files are damaged or not meant for this model."
        )
    # What is chosen among all positions is not chosen among those without features.
    context = points.recording.prompt.context_only
    activation = torch.zeros_like(value)
    activation[context:] = transcoder.nonlinearity(value[context:])
    if transcoders.joint is not None:
        activation = transcoders.joint.candidates(layer, activation)
    pos, index = activation.nonzero(as_tuple=True)
    listened = transcoder.listened(index, value)
    return (
        torch.full_like(pos, layer),
        pos,
        index,
        activation[pos, index],
        value[pos, index],
        listened @ points.constant_input(layer) + transcoder.encoder_bias.to(value)[index],
    )
