"""The active features of one prompt, whichever dictionary they come from.

The sweep uses only this: columns (layer, pos, index, activation), the value that a feature's
incoming weights must sum to, encoder and decoder rows, and linear paths such as affine skips.
Transcoders, cross-layer transcoders and neurons all give an `ActiveFeatures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.features.hook_points import MlpPoints
from circuits.machine import exact, in_float64, on_device, on_host
from circuits.model.frozen import Covectors, FrozenModel
from circuits.recording.record import Recording
from graphs.core.brief import Brief
from graphs.core.nodes import Description, NodeId
from graphs.core.provenance import DictionaryIdentity


@dataclass(frozen=True)
class Places:
    """Where features are."""

    layer: Int[ndarray, " feat"]
    pos: Int[ndarray, " feat"]
    index: Int[ndarray, " feat"]

    @staticmethod
    def of(nodes: Sequence[NodeId]) -> Places:
        """The places of nodes of features."""
        columns = np.array([(node.layer, node.pos, node.index) for node in nodes], dtype=np.int64)
        return Places(*columns.reshape(-1, 3).T)


@runtime_checkable
class Rows(Protocol):
    """Encoder and decoder rows of active features, gathered when they are needed.

    Features are rows of the columns, and named where these are; encoder rows come there too.  What
    is written at a layer comes where that layer lies.
    """

    def encoder(
        self, ends: Int[ndarray, " end"], feature: Int[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        """Covectors on the residuals that these features read, which are sorted by layer.

        Those of layer l are from `ends[l]` to `ends[l + 1]`.  Their product with the residual, plus
        `ActiveFeatures.constant`, is the feature's value.
        """
        ...

    def decoder(
        self, layer: int, written: int, feature: Int[Tensor, " row"] | slice
    ) -> Float[Tensor, "row d_model"]:
        """What features of a layer add to the residual at a written one, activation included."""
        ...

    def constant(self, layer: int) -> Float[Tensor, "pos d_model"]:
        """What the dictionary adds to the residual at a layer, independent of activations."""
        ...

    def linear(self, layer: int) -> dict[int, LinearPath]:
        """Linear paths that write at a layer, by the layer that they read."""
        ...

    def at(self, layer: int, active: Places, activation: Float[Tensor, " feat"]) -> FeatureLayer:
        """All features that read at a layer, of which these are active on the prompt."""
        ...


@runtime_checkable
class FeatureLayer(Protocol):
    """All features that read at one layer, at any activation; everything is where that lies."""

    @property
    def points(self) -> MlpPoints:
        """Where they read and write."""
        ...

    @property
    def width(self) -> int:
        """Number of features."""
        ...

    @property
    def n_written(self) -> int:
        """Number of layers that they write to, counted from their own."""
        ...

    def rows(
        self, pos: Int[Tensor, " row"], index: Int[Tensor, " row"]
    ) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, " row"]]:
        """Covectors on the residual that are these features' values, and what biases add.

        What depends on the prompt is held: the norm, and the factors of neurons.
        """
        ...

    def recorded(
        self, pos: Int[ndarray, " row"], index: Int[ndarray, " row"]
    ) -> Float[Tensor, " row"]:
        """Activations on the prompt itself."""
        ...

    def values(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        pos: Int[ndarray, " row"],
        index: Int[ndarray, " row"],
    ) -> Float[Tensor, "batch row"]:
        """Pre-activations (neurons: activations) if the MLP's norm reads these residuals."""
        ...

    def activations(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        pos: Int[ndarray, " row"],
        index: Int[ndarray, " row"],
    ) -> Float[Tensor, "batch row"]:
        """Activations if the MLP's norm reads these residuals."""
        ...

    def written(
        self, offset: int, index: Int[ndarray, " row"], activation: Float[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        """What features with these activations write to the layer `offset` above their own.

        If the dictionary writes before a norm that follows the MLP, this is before the norm.
        """
        ...


@runtime_checkable
class LinearPath(Protocol):
    """A linear map from the residual that an MLP reads to the output of an MLP.

    What is read, and covectors on it, are where the one layer lies, what is written where the other
    does.
    """

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

    def transpose_at(
        self, covector: Float[Tensor, "row d_model"], pos: Int[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        """The same for covectors at one position each."""
        ...


class Numbers(NamedTuple):
    """Columns of `ActiveFeatures` as arrays."""

    activation: Float[ndarray, " feat"]
    value: Float[ndarray, " feat"]
    constant: Float[ndarray, " feat"]
    threshold: Float[ndarray, " feat"]


@dataclass(frozen=True, repr=False)
class ActiveFeatures(Brief):
    """The active features of one prompt: one row each, sorted by (layer, pos, index).

    The columns are with the first block.
    """

    layer: Int[Tensor, " feat"]  # block whose MLP input the feature reads
    pos: Int[Tensor, " feat"]  # token position, 0 = first token of the prompt
    index: Int[Tensor, " feat"]  # row in that layer's dictionary
    activation: Float[Tensor, " feat"]  # after the nonlinearity
    value: Float[Tensor, " feat"]  # pre-activation; neurons: the activation
    constant: Float[Tensor, " feat"]  # part of value that comes from biases
    threshold: Float[Tensor, " feat"]  # value at or below which a feature is off; nan: none
    reach: tuple[int, ...]  # by layer: the last that its features write to; the first is their own
    reads_norm: tuple[bool, ...]  # by layer: whether its features read through a norm
    covered: tuple[bool, ...]  # by layer: whether a dictionary writes there
    rows: Rows
    identity: DictionaryIdentity
    found: int  # active features before any selection

    def __len__(self) -> int:
        return len(self.layer)

    @cached_property
    def on_host(self) -> Places:
        """Layer, position and index of each feature as arrays."""
        return Places(*on_host(self.layer, self.pos, self.index))

    @cached_property
    def numbers(self) -> Numbers:
        """Activations, values, constants and thresholds as arrays."""
        columns = (self.activation, self.value, self.constant, self.threshold)
        return Numbers(*on_host(*map(exact, columns)))

    @cached_property
    def first(self) -> tuple[int, ...]:
        """By layer the row of its first feature, and the number of rows."""
        layers = np.arange(len(self.reach) + 1)
        return tuple(np.searchsorted(self.on_host.layer, layers).tolist())

    def read_at(self, layer: int) -> slice:
        """The rows of the features that read at a layer."""
        return slice(self.first[layer], self.first[layer + 1])

    def writing_to(self, layer: int) -> list[int]:
        """The layers with features that write to a layer."""
        return [
            source
            for source in range(layer + 1)
            if self.reach[source] >= layer and self.first[source] < self.first[source + 1]
        ]

    def at(self, layer: int) -> FeatureLayer:
        """All features that read at a layer, active on the prompt or not."""
        here = self.read_at(layer)
        found = self.on_host
        active = Places(found.layer[here], found.pos[here], found.index[here])
        return self.rows.at(layer, active, self.activation[here])

    def recorded(self, places: Places) -> Float[ndarray, " place"]:
        """Activations at these places; 0 where a feature is not active."""
        parts: list[Tensor] = []
        order = np.argsort(places.layer, kind="stable")
        for layer in np.unique(places.layer).tolist():
            here = order[places.layer[order] == layer]
            parts.append(self.at(layer).recorded(places.pos[here], places.index[here]))
        found = np.zeros(len(order))
        if parts:
            found[order] = torch.cat([in_float64(part) for part in parts]).numpy()
        return found

    def encoder(self, rows: Int[ndarray, " row"]) -> Float[Tensor, "row d_model"]:
        """Covectors of these features, whose rows ascend."""
        ends = np.searchsorted(rows, self.first)
        return self.rows.encoder(ends, on_device(rows, self.layer.device))

    def covectors(self, rows: Int[ndarray, " row"]) -> Covectors:
        """These features, whose rows ascend, as targets."""
        return Covectors(
            layer=self.on_host.layer[rows],
            pos=self.on_host.pos[rows],
            covector=self.encoder(rows),
            weight=np.zeros(len(rows)),
        )

    def places(self) -> list[tuple[int, int, int]]:
        """Layer, position and index of each feature."""
        found = self.on_host
        columns = found.layer.tolist(), found.pos.tolist(), found.index.tolist()
        return list(zip(*columns, strict=True))


@runtime_checkable
class FeatureSource(Protocol):
    """Anything that gives the active features of a recorded prompt."""

    def activate(
        self, frozen: FrozenModel, recording: Recording, targets: Covectors
    ) -> ActiveFeatures:
        """The active features; `targets` are what the graph will explain."""
        ...

    def at(self, frozen: FrozenModel, recording: Recording, layer: int) -> FeatureLayer:
        """All features that read at a layer; which are active on the prompt is not known."""
        ...

    def peak_values(self, frozen: FrozenModel, n_tokens: int) -> int:
        """Values in memory at once, at most, while features of `n_tokens` tokens are computed."""
        ...

    def describe(self, layer: int, index: int) -> Description | None:
        """What is known about a feature beyond one prompt, if anything."""
        ...
