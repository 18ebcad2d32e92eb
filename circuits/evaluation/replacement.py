"""The replacement model: reconstructions in the place of what the model computes, no errors."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.features.autoencoders import AutoencoderSet, autoencoder_hooks
from circuits.features.mlp_hooks import Enough, OnRead, OnWritten, mlp_hooks
from circuits.features.transcoder import BatchTopK, JointTopK
from circuits.features.transcoder_set import TranscoderSet
from circuits.machine import beside, in_float64, moved
from circuits.model.frozen import FrozenModel
from circuits.recording.record import Recording
from graphs.core.report import ReplacementReport


class Replacement:
    """A model in which what a dictionary reconstructs replaces what the model computes.

    Places are the numbers of the set's dictionaries: of transcoders their layers.  What is kept of
    a place is where its layer lies, logits are with the first.
    """

    def __init__(self, frozen: FrozenModel, dictionary: TranscoderSet | AutoencoderSet) -> None:
        if isinstance(dictionary, TranscoderSet):
            dictionary.require_fit(frozen)
            self.weights = dictionary.layers
        else:
            self.weights = tuple(one.weights for one in dictionary.autoencoders)
        self.frozen, self.dictionary = frozen, dictionary
        self.activations: dict[int, Tensor] = {}  # by place (batch, pos, feat)
        self.inputs: dict[int, Tensor] = {}  # by place (batch, pos, d_in), as are outputs
        self.outputs: dict[int, Tensor] = {}

    @torch.inference_mode()
    def logits(
        self,
        ids: Int[Tensor, "batch pos"],
        replaced: Bool[Tensor, "batch pos"] | None,
        *,
        last_only: bool = False,
        places: Container[int] | None = None,
        counted: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch some d_vocab"]:
        """Logits, of all positions or of the last one.

        Where `replaced` is True, the model's own vectors (at `places`, if given) give way to the
        dictionary's reconstruction.  Activations, inputs and the model's own vectors are kept in
        the attributes of those names: activations and inputs of places that one of `places` needs.
        `counted`: positions whose features may compete; those that are replaced, if not given.
        """
        for kept in (self.activations, self.inputs, self.outputs):
            kept.clear()
        among, encoded = replaced if counted is None else counted, self.sources(places)

        def on_read(place: int, read: Tensor) -> None:
            if place in encoded:
                self._encode(place, read, among)

        def on_written(place: int, output: Tensor) -> Tensor | None:
            self.outputs[place] = output
            if replaced is None or (places is not None and place not in places):
                return None
            mask = moved(replaced, output.device)[..., None]
            return torch.where(mask, self.reconstruction(place), output)

        found = self._run(ids, on_read, on_written, last_only=last_only)
        if replaced is None and places is None:
            self._keep_joint()
        return found

    @torch.inference_mode()
    def encode(self, ids: Int[Tensor, "batch pos"]) -> None:
        """Keep activations and inputs of all transcoders; no layer above the last of them runs."""
        for kept in (self.activations, self.inputs, self.outputs):
            kept.clear()
        last = max(place for place, one in enumerate(self.weights) if one.d_dict)

        def on_written(place: int, output: Tensor) -> None:
            del output
            if place == last:
                raise Enough

        with suppress(Enough):
            encode = partial(self._encode, counted=None)
            self._run(ids, encode, on_written, last_only=True)
        self._keep_joint()

    @torch.inference_mode()
    def patched(
        self,
        ids: Int[Tensor, "batch pos"],
        replaced: Bool[Tensor, "batch pos"],
        vectors: Mapping[int, Float[Tensor, "*#batch d_in"]],
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits with these vectors at their places where `replaced` is True, by place.

        What the last call of `logits` kept stays as it is.
        """

        def on_written(place: int, output: Tensor) -> Tensor | None:
            if place not in vectors:
                return None
            return torch.where(moved(replaced, output.device)[..., None], vectors[place], output)

        return self._run(ids, lambda *_: None, on_written)

    def _run(
        self,
        ids: Int[Tensor, "batch pos"],
        on_read: OnRead,
        on_written: OnWritten,
        *,
        last_only: bool = False,
    ) -> Float[Tensor, "batch some d_vocab"]:
        self.frozen.require_embedded(ids)
        dictionary = self.dictionary
        if isinstance(dictionary, TranscoderSet):
            points = dictionary.read, dictionary.write
            hooks = mlp_hooks(self.frozen, *points, on_read, on_written)
        else:

            def on_vectors(place: int, vectors: Tensor) -> Tensor | None:
                on_read(place, vectors)
                return on_written(place, vectors)

            hooks = autoencoder_hooks(self.frozen, dictionary, on_vectors)
        with hooks:
            kept = int(last_only)  # 0 keeps all
            found = self.frozen.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
        return moved(found, self.frozen.device)

    def _encode(
        self,
        place: int,
        read: Float[Tensor, "batch pos d_in"],
        counted: Bool[Tensor, "batch pos"] | None,
    ) -> None:
        encode, nonlinearity = self._encoder(place), self.weights[place].nonlinearity
        if isinstance(nonlinearity, BatchTopK) and counted is not None:
            active = read.new_zeros(*read.shape[:2], self.weights[place].d_dict)
            # Features compete within one text, as in a trace.
            for row, own in enumerate(moved(counted, read.device)):
                active[row, own] = encode(read[row, own])
        else:
            active = encode(read.flatten(0, 1)).view(*read.shape[:2], -1)
        if self._joint is not None:  # within one layer: others have not run yet
            active = self._joint.candidates(place, active.flatten(0, 1)).view_as(active)
        self.activations[place], self.inputs[place] = active, read

    def _encoder(self, place: int) -> Callable[[Tensor], Tensor]:
        if isinstance(self.dictionary, AutoencoderSet):
            return self.dictionary.autoencoders[place].activations
        weights = self.weights[place]
        return lambda read: weights.nonlinearity(weights.pre_activations(read))

    def _keep_joint(self) -> None:
        """Once all layers have run, keep the candidates that a joint top-k chooses among them."""
        if self._joint is None:
            return
        shape = self.inputs[0].shape[:2]
        found = [self.activations[place] for place in sorted(self.activations)]
        flat = [moved(one.flatten(0, 1), self.frozen.device) for one in found]
        places = [one.nonzero() for one in flat]  # position and index
        layer = torch.cat([torch.full_like(one[:, 0], i) for i, one in enumerate(places)])
        pos, index = torch.cat(places).unbind(1)
        activation = torch.cat([one[one != 0] for one in flat])
        kept = self._joint.kept(layer, pos, index, activation, shape.numel())
        for place, candidates in enumerate(flat):
            own = kept[layer[kept] == place]
            chosen = torch.zeros_like(candidates)
            chosen[pos[own], index[own]] = activation[own]
            self.activations[place] = moved(chosen.view(*shape, -1), found[place].device)

    @property
    def _joint(self) -> JointTopK | None:
        return self.dictionary.joint if isinstance(self.dictionary, TranscoderSet) else None

    def sources(self, places: Container[int] | None) -> list[int]:
        """The places whose features or skips write to one of these; None: all."""
        reached = [max(one.n_written, 1 + len(one.higher_skips)) for one in self.weights]
        return [
            place
            for place, count in enumerate(reached)
            if places is None or any(above in places for above in range(place, place + count))
        ]

    def reconstruction(self, place: int) -> Float[Tensor, "batch pos d_in"]:
        """The dictionary's reconstruction at a place, from the features of this pass."""
        total = beside(self.weights[place].decoder_bias, self.activations[place])
        for source, other in enumerate(self.weights[: place + 1]):
            skip = other.skip_to(place - source)
            if skip is not None:
                total = total + moved(self.inputs[source], total.device) @ beside(skip, total).T
            if place - source < other.n_written:
                written = other.written(place - source, self.activations[source])
                total = total + moved(written, total.device)
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
        return model.logits(ids, replaced, last_only=True, places=layers)[0, 0]

    each = [logits(covered), *(logits([layer]) for layer in covered)]
    found = in_float64(torch.stack(each)).log_softmax(-1)
    everywhere, *divergences = (own.exp() * (own - found)).sum(1).clamp(min=0).tolist()
    by_layer = dict(zip(covered, divergences, strict=True))
    return ReplacementReport(
        same_top=bool(found[0].argmax() == own.argmax()),
        divergence=everywhere,
        per_layer=tuple(by_layer.get(layer, 0.0) for layer in range(frozen.n_layers)),
    )
