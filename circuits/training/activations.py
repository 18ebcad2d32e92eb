"""What a model's MLPs read and write on a corpus, streamed and shuffled across documents.

Nothing is stored on disk.  A pool of activations is filled, shuffled by a generator that depends
on the seed and on where the pool starts alone, and cut into batches; so any pool can be made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from circuits.features.hook_points import ReadPoint, WritePoint
from circuits.features.taps import tapped
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import context_only_positions
from circuits.training.corpus import Corpus, has_features, is_held_out
from circuits.training.settings import TrainingError, TrainSettings

LEFT_OUT = 10_000  # documents in a row that cannot be trained on, until the corpus is refused
PASS_TOKENS = 8192  # tokens that go through the model together


@dataclass(frozen=True)
class Activations:
    """What all MLPs read and wrote, at the same tokens."""

    inputs: Float[Tensor, "layer token d_model"]
    outputs: Float[Tensor, "layer token d_model"]

    def take(self, rows: slice) -> Activations:
        """Only these tokens."""
        return Activations(self.inputs[:, rows], self.outputs[:, rows])


@dataclass(frozen=True)
class Pool:
    """Shuffled activations of some documents."""

    first: int  # document that it starts with
    next: int  # document after its last
    activations: Activations


class Stream:
    """Pools of activations, from any document on."""

    def __init__(
        self,
        frozen: FrozenModel,
        tokenizer: PreTrainedTokenizerBase,
        corpus: Corpus,
        settings: TrainSettings,
        context_only: int | None = None,
    ) -> None:
        self.frozen, self.tokenizer, self.corpus = frozen, tokenizer, corpus
        self.settings, self.context_only = settings, context_only

    def pools(self, first: int) -> Iterator[Pool]:
        """The pool that starts with document `first`, and those after it."""
        while True:
            pool = self.pool(first)
            first = pool.next
            yield pool
            del pool  # before there is another: each takes gigabytes

    def pool(self, first: int) -> Pool:
        """Documents from `first` on until enough tokens are seen; held-out ones are left out.

        Raises TrainingError if the corpus has hardly any other.
        """
        wanted = self.settings.shuffled_tokens
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + first)
        place = torch.randperm(wanted, generator=generator).to(self.frozen.device)
        shape = (self.frozen.n_layers, wanted, self.frozen.d_model)
        whole = Activations(*(torch.empty(shape, device=place.device) for _ in range(2)))
        filled, last = 0, first
        for batch, number in _passes(self._trained(first), min(PASS_TOKENS, wanted)):
            filled, last = self._fill(whole, place, batch, filled), number
            if filled == wanted:
                break
        return Pool(first, last + 1, whole)

    def _fill(
        self,
        whole: Activations,
        place: Int[Tensor, " token"],
        documents: list[list[int]],
        filled: int,
    ) -> int:
        """Put what the MLPs do on these documents into place; how many tokens there are now."""
        ids, kept = padded(documents, self.tokenizer, self.frozen.device, self.context_only)
        settings = self.settings
        vectors = mlp_vectors(self.frozen, ids, settings.read, settings.write)
        rows = place[filled : filled + int(kept.sum())]
        for target, layers in zip((whole.inputs, whole.outputs), vectors, strict=True):
            for layer, seen in enumerate(layers):
                target[layer, rows] = seen[kept][: len(rows)].float()
        return filled + len(rows)

    def _trained(self, first: int) -> Iterator[tuple[int, list[int]]]:
        """Documents that are not held out and give activations, with their numbers."""
        left_out = 0
        for number, ids in zip(count(first), self.corpus.documents(first), strict=False):
            if is_held_out(ids) or not has_features(ids, self.tokenizer, self.context_only):
                left_out += 1
                if left_out == LEFT_OUT:
                    raise TrainingError(
                        f"{LEFT_OUT:,} documents in a row are empty or held out for the report: "
                        "give a corpus with more different texts."
                    )
            else:
                left_out = 0
                yield number, ids


def _passes(
    documents: Iterator[tuple[int, list[int]]], tokens: int
) -> Iterator[tuple[list[list[int]], int]]:
    """Documents of so many tokens for one pass each, and the number of the last."""
    batch: list[list[int]] = []
    for number, ids in documents:
        batch.append(ids)
        if len(batch) * max(map(len, batch)) >= tokens:
            yield batch, number
            batch = []


def padded(
    documents: list[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    context_only: int | None = None,
) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Ids filled up behind, and where features may be: after what is context only, before that."""
    longest = max(map(len, documents))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in documents])
    place = torch.arange(longest)
    counted = [
        (place >= context_only_positions(row, tokenizer, context_only)) & (place < len(row))
        for row in documents
    ]
    return ids.to(device), torch.stack(counted).to(device)


def mlp_vectors(
    frozen: FrozenModel, ids: Int[Tensor, "batch pos"], read: ReadPoint, write: WritePoint
) -> tuple[list[Tensor], list[Tensor]]:
    """What every MLP reads and writes at these points, (batch, pos, d_model) per layer."""
    frozen.require_embedded(ids)
    inputs, outputs = list[Tensor](), list[Tensor]()
    with (
        torch.inference_mode(),
        tapped(
            frozen,
            read,
            write,
            on_read=lambda _, vectors: inputs.append(vectors),
            on_written=lambda _, vectors: outputs.append(vectors),
        ),
    ):
        frozen.model(input_ids=ids, use_cache=False, logits_to_keep=1)
    return inputs, outputs
