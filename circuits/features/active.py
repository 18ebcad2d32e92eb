"""Active features: what fires on one prompt, whichever dictionary it comes from.

The sweep sees only this: columns (layer, pos, index, activation), a value that a feature's
incoming weights must sum to, rows to listen with and rows to write with, and what a layer's MLP
adds linearly.  Transcoders, cross-layer transcoders and neurons all give an `ActiveFeatures`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from circuits.features.hook_points import MlpPoints
from circuits.model.covectors import Covectors
from circuits.model.frozen import FrozenModel
from circuits.recording.record import Recording
from graphs.core.descriptions import Description
from graphs.core.provenance import DictionaryIdentity


@runtime_checkable
class Rows(Protocol):
    """The vectors behind active features, gathered when they are needed."""

    def encoder(self, feature: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        """Covectors on the residual that these features (rows of the columns) read.

        Their product with the residual, plus `ActiveFeatures.constant`, is the feature's value.
        """
        ...

    def decoder(self, layer: int, feature: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        """What these features add to the residual at a written layer, activation included."""
        ...

    def constant(self, layer: int) -> Float[Tensor, "pos d_model"]:
        """What the dictionary adds to the residual at a layer whatever is active."""
        ...

    def linear(self, layer: int) -> dict[int, LinearPath]:
        """What stays linear in a residual and is added at a layer, by the layer that is read."""
        ...

    def at(self, layer: int) -> FeatureLayer:
        """Any feature that reads at a layer, active on the prompt or not."""
        ...


@runtime_checkable
class FeatureLayer(Protocol):
    """The features that read at one layer, at whatever activation."""

    @property
    def points(self) -> MlpPoints:
        """Where they read and write."""
        ...

    @property
    def width(self) -> int:
        """How many there are."""
        ...

    @property
    def n_written(self) -> int:
        """Layers that they write to, their own first."""
        ...

    def recorded(
        self, pos: Int[Tensor, " row"], index: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        """Activations on the prompt itself."""
        ...

    def values(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        pos: Int[Tensor, " row"],
        index: Int[Tensor, " row"],
    ) -> Float[Tensor, "batch row"]:
        """Pre-activations (of neurons activations) when the MLP's norm is given these residuals."""
        ...

    def activations(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        pos: Int[Tensor, " row"],
        index: Int[Tensor, " row"],
    ) -> Float[Tensor, "batch row"]:
        """The same after the nonlinearity."""
        ...

    def written(
        self, offset: int, index: Int[Tensor, " row"], activation: Float[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        """What features of these activations write to the layer that is `offset` above.

        Before a norm that follows the MLP, where the dictionary writes there.
        """
        ...


@runtime_checkable
class LinearPath(Protocol):
    """A linear map from the residual that an MLP reads to what an MLP adds to the residual."""

    def forward(
        self, residual: Float[Tensor, "*part pos d_model"], first: int
    ) -> Float[Tensor, "*part pos d_model"]:
        """What the path adds, given (parts of) the residual; positions from `first`."""
        ...

    def transpose(
        self, covector: Float[Tensor, "row pos d_model"], first: int
    ) -> Float[Tensor, "row pos d_model"]:
        """Covectors on what was added, as covectors on the residual; positions from `first`."""
        ...


@dataclass(frozen=True)
class ActiveFeatures:
    """The features that fire on one prompt: one row each, sorted by (layer, pos, index)."""

    layer: Int[Tensor, " feat"]  # block whose MLP input the feature reads
    pos: Int[Tensor, " feat"]  # token position, 0 = first token of the prompt
    index: Int[Tensor, " feat"]  # row in that layer's dictionary
    activation: Float[Tensor, " feat"]  # after the nonlinearity
    value: Float[Tensor, " feat"]  # pre-activation; neurons: the activation
    constant: Float[Tensor, " feat"]  # part of value that comes from biases
    last_written: Int[Tensor, " feat"]  # last layer that the feature writes to; first is its own
    rows: Rows
    identity: DictionaryIdentity
    found: int  # active features before any selection

    def __len__(self) -> int:
        return len(self.layer)

    def places(self) -> list[tuple[int, int, int]]:
        """Layer, position and index of each."""
        columns = (self.layer.tolist(), self.pos.tolist(), self.index.tolist())
        return list(zip(*columns, strict=True))


@runtime_checkable
class FeatureSource(Protocol):
    """Anything that names the active features of a recorded prompt."""

    def activate(
        self, frozen: FrozenModel, recording: Recording, targets: Covectors
    ) -> ActiveFeatures:
        """The active features; `targets` are what the graph will explain."""
        ...

    def numbers(self, frozen: FrozenModel, n_tokens: int) -> int:
        """How many numbers are held at once while the features of so many tokens are found."""
        ...

    def describe(self, layer: int, index: int) -> Description | None:
        """What is known about a feature beyond one prompt, if anything."""
        ...
