"""The final phase: the dictionary in the place of the MLPs, trained on what is then predicted.

    loss = KL(model ‖ model with reconstructions) + mean unexplained + penalty

What is unexplained is of what each MLP writes for the inputs that it then gets: features stay true
to their layer, and make good what lower layers leave out, which no reconstruction loss sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.features.mlp_hooks import mlp_hooks
from circuits.machine import widest
from circuits.model.frozen import FrozenModel
from circuits.training.code import Code
from circuits.training.dictionary import TrainedDictionary
from circuits.training.encoding import Encoded, Plan, activated, chosen
from circuits.training.losses import Step, penalty_of, relative

UNEXPLAINED = 1.0  # weight of the variance that is unexplained, beside nats


def replaced_loss(
    dictionary: TrainedDictionary,
    frozen: FrozenModel,
    layers: Sequence[int],
    ids: Int[Tensor, "batch pos"],
    counted: Bool[Tensor, "batch pos"],
    plan: Plan,
) -> Step:
    """The loss on documents; only counted positions are replaced, and only they count."""
    settings, like = dictionary.settings, dictionary.decoder_bias
    # A mask would have to be counted in each layer, and the host would wait for it.
    places = counted.nonzero(as_tuple=True)
    with torch.no_grad():
        own = _log_probabilities(frozen, ids, places).to(like)
    reconstructions = Reconstructions(dictionary, plan)

    def on_read(layer: int, vectors: Tensor) -> None:
        if layer in layers:
            reconstructions.read(layers.index(layer), vectors[places].to(like))

    def on_written(layer: int, output: Tensor) -> Tensor | None:
        if layer not in layers:
            return None
        vectors = reconstructions.written(layers.index(layer), output[places].to(like).detach())
        return output.index_put(places, vectors.to(output.dtype))

    points = settings.read, settings.write
    with mlp_hooks(frozen, *points, on_read=on_read, on_written=on_written):
        replaced = _log_probabilities(frozen, ids, places).to(like)
    divergence = (own.exp() * (own - replaced)).sum() / len(own)
    found, unexplained = reconstructions.encoded(), torch.stack(reconstructions.unexplained)
    loss = (
        divergence
        + UNEXPLAINED * unexplained.mean()
        + settings.penalty * penalty_of(dictionary, found)
    )
    return Step(loss, found.detached(), unexplained.detach())


def _log_probabilities(
    frozen: FrozenModel, ids: Int[Tensor, "batch pos"], places: tuple[Tensor, ...]
) -> Float[Tensor, "token d_vocab"]:
    logits = frozen.model(input_ids=ids, use_cache=False).logits
    return logits[places].to(widest(logits)).log_softmax(-1)


class Reconstructions:
    """What a dictionary writes at layer after layer, from what it reads on the way."""

    def __init__(self, dictionary: TrainedDictionary, plan: Plan) -> None:
        self.dictionary, self.plan = dictionary, plan
        self.codes, self.activations, self.counts = list[Code](), list[Tensor](), list[Tensor]()
        self.unexplained: list[Tensor] = []  # of each layer
        self.sums: dict[int, Tensor] = {}  # by layer, in normalised units

    def read(self, layer: int, vectors: Float[Tensor, "token d_model"]) -> None:
        """Encode what a layer reads, and add what its features write to that and higher layers."""
        dictionary = self.dictionary
        inputs = dictionary.inputs.apply_at(layer, vectors)
        code = chosen(dictionary, layer, dictionary.pre_activations(layer, inputs), self.plan)
        features = dictionary.processes.features
        values = dictionary.values(layer, features.spread(inputs), code)
        activations, count = activated(dictionary, layer, values, code)
        self.codes.append(code)
        self.activations.append(activations)
        self.counts.append(count)
        self._add(layer, dictionary.decoder_bias[layer])
        if dictionary.skip is not None:
            self._add(layer, inputs @ dictionary.skip[layer].T)
        decoder = dictionary.decoders[layer]
        sums = features.sum(code.written(decoder.flatten(1), activations))
        for offset, written in enumerate(sums.unflatten(1, decoder.shape[1:]).unbind(1)):
            self._add(layer + offset, written)

    def _add(self, layer: int, written: Tensor) -> None:
        self.sums[layer] = self.sums[layer] + written if layer in self.sums else written

    def written(
        self, layer: int, own: Float[Tensor, "token d_model"]
    ) -> Float[Tensor, "token d_model"]:
        """The reconstruction of what a layer's MLP writes for the same inputs."""
        mean, scale = self.dictionary.outputs.at(layer)
        wanted, sums = (own - mean) / scale, self.sums.pop(layer)
        tokens = self.dictionary.processes.tokens
        self.unexplained.append(relative(wanted - sums, wanted, tokens))
        return sums * scale + mean

    def encoded(self) -> Encoded:
        """The entries of all layers."""
        n_entries = len(self.counts) * len(self.codes[0].start)
        l0 = torch.stack(self.counts).sum() / n_entries
        return Encoded(tuple(self.codes), self.activations, l0)
