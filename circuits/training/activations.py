"""What a model's MLPs read and write on a corpus, streamed and shuffled across documents.

Nothing is stored on disk.  A pool of activations is filled, shuffled by a generator that depends
only on the seed and the pool's first document, and cut into batches, so any pool can be recomputed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from zlib import crc32

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from circuits.corpora.corpus import Corpus, has_features, is_held_out
from circuits.features.mlp_hooks import Enough, mlp_hooks
from circuits.features.points import ReadPoint, WritePoint
from circuits.machine import float32_products, is_accelerator
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import count_prefix
from circuits.progress import Progress, ignore_progress
from circuits.training.processes import ALONE, Group, Processes
from circuits.training.settings import TrainingError, TrainSettings

LEFT_OUT = 10_000  # documents in a row without training tokens at which a corpus is refused
PASS_TOKENS = 8192  # tokens that go through the model together


@dataclass(frozen=True)
class Activations:
    """What MLPs read and wrote, at the same tokens."""

    inputs: Float[Tensor, "layer token d_model"]
    outputs: Float[Tensor, "layer token d_model"]

    def take(self, rows: slice, among: Group = ALONE.tokens) -> Activations:
        """Only these tokens, and of these the process's own."""
        inputs, outputs = (among.own(one[:, rows], 1) for one in (self.inputs, self.outputs))
        return Activations(inputs, outputs)


@dataclass(frozen=True)
class Pool:
    """Shuffled activations of some documents."""

    first: int  # its first document
    next: int  # the document after its last
    activations: Activations


class Stream:
    """Pools of activations, from any document on."""

    def __init__(
        self,
        frozen: FrozenModel,
        tokenizer: PreTrainedTokenizerBase,
        corpus: Corpus,
        settings: TrainSettings,
        n_prefix: int | None = None,
        progress: Progress = ignore_progress,
        processes: Processes = ALONE,
    ) -> None:
        self.frozen, self.tokenizer, self.corpus = frozen, tokenizer, corpus
        self.n_prefix, self.progress, self.processes = n_prefix, progress, processes
        self.layers = settings.layers_of(frozen.n_layers)
        self.settings = settings.sized(len(self.layers), frozen.d_model)
        self._latest: Pool | None = None

    def pools(self, first: int) -> Iterator[Pool]:
        """The pool that starts with document `first`, and those after it, in the same memory."""
        while True:
            pool = self.pool(first)
            first = pool.next
            yield pool

    def pool(self, first: int) -> Pool:
        """Enough documents from `first` on to fill a pool, without held-out ones.

        It takes gigabytes, so it is in the memory of the pool before it, which is gone.  Raises
        TrainingError if the corpus has hardly any other documents.
        """
        if self._latest is None or self._latest.first != first:
            self._latest = self._filled(first)
        return self._latest

    def _filled(self, first: int) -> Pool:
        size = self.settings.shuffled_tokens
        assert size is not None
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + first)
        place = torch.randperm(size, generator=generator).to(self.frozen.device)
        whole = self._memory(size, place.device)
        filled, last, sum_of_ids = 0, first, 0
        self.progress("activations", filled, size)
        for batch, following in self.passes(first, min(PASS_TOKENS, size)):
            filled, last = self._fill(whole, place, batch, filled), following
            sum_of_ids = crc32(repr(batch).encode(), sum_of_ids)
            self.progress("activations", filled, size)
            if filled == size:
                break
        self._add_up(whole, sum_of_ids)
        self._require_finite(whole)
        return Pool(first, last, whole)

    def vectors(self, ids: Int[Tensor, "batch pos"]) -> tuple[list[Tensor], list[Tensor]]:
        """What the MLPs that are trained on read and write, (batch, pos, d_model) per layer."""
        settings = self.settings
        rounded = settings.rounds(accelerator=is_accelerator(self.frozen.device))
        with float32_products(tensor_cores=rounded):
            return mlp_vectors(self.frozen, ids, settings.read, settings.write, self.layers)

    def passes(self, first: int, tokens: int) -> Iterator[tuple[list[list[int]], int]]:
        """Documents of about `tokens` tokens together, and the number of the document after."""
        batch: list[list[int]] = []
        for number, ids in self._trained(first):
            batch.append(ids)
            if len(batch) * max(map(len, batch)) >= tokens:
                yield batch, number + 1
                batch = []

    def _add_up(self, whole: Activations, sum_of_ids: int) -> None:
        """Add what each process has run.  Raises TrainingError if they have different documents."""
        everyone = self.processes.everyone
        if not everyone.agrees(sum_of_ids):
            raise TrainingError(
                "The processes of the run read different documents: give all of them the same "
                "files, and GPUs of one kind if they sample from the model."
            )
        for vectors in (whole.inputs, whole.outputs):
            everyone.add_up(vectors)

    def _require_finite(self, whole: Activations) -> None:
        """Raises TrainingError for activations with which nothing can be trained."""
        pairs = zip(whole.inputs, whole.outputs, strict=True)
        bad = ~torch.stack([(read.sum() + wrote.sum()).isfinite() for read, wrote in pairs])
        if bad.any():
            layer = self.layers[int(bad.nonzero()[0])]
            raise TrainingError(
                f"What the MLP of layer {layer} reads or writes is not finite: the model's weights "
                "are damaged, or its numbers do not fit into its type; try --dtype float32."
            )

    def _memory(self, size: int, device: torch.device) -> Activations:
        if self._latest is not None:
            return self._latest.activations
        shape = (len(self.layers), size, self.frozen.d_model)
        return Activations(*(torch.empty(shape, device=device) for _ in range(2)))

    def _fill(
        self,
        whole: Activations,
        place: Int[Tensor, " token"],
        documents: list[list[int]],
        filled: int,
    ) -> int:
        """Add the activations of these documents; returns the number of tokens filled.

        A device is waited for, once per pass of the model and not once per step.
        Of several processes each takes some of the documents, and leaves zeros for the others.
        """
        ids, kept = padded(documents, self.tokenizer, self.frozen.device, self.n_prefix)
        everyone = self.processes.everyone
        own = everyone.own(ids)
        vectors = self.vectors(own) if len(own) else ((), ())
        chosen = kept.flatten().nonzero()[:, 0]
        rows = place[filled : filled + len(chosen)]
        chosen, filled = chosen[: len(rows)], filled + len(rows)
        if everyone.size > 1:
            for target in (whole.inputs, whole.outputs):
                target[:, rows] = 0
            document, pos = chosen // ids.shape[1], chosen % ids.shape[1]
            ours = document % everyone.size == everyone.rank
            rows = rows[ours]
            chosen = (document // everyone.size * ids.shape[1] + pos)[ours]
        for target, layers in zip((whole.inputs, whole.outputs), vectors, strict=True):
            for layer, vector in enumerate(layers):
                target[layer, rows] = vector.flatten(0, 1)[chosen].float()
        return filled

    def _trained(self, first: int) -> Iterator[tuple[int, list[int]]]:
        """Documents that are not held out and give activations, with their numbers."""
        left_out = 0
        for number, ids in zip(count(first), self.corpus.documents(first), strict=False):
            if is_held_out(ids) or not has_features(ids, self.tokenizer, self.n_prefix):
                left_out += 1
                if left_out == LEFT_OUT:
                    raise TrainingError(
                        f"{LEFT_OUT:,} documents in a row are empty or held out for the report: "
                        "give a corpus with more distinct texts."
                    )
            else:
                left_out = 0
                yield number, ids


def padded(
    documents: list[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    n_prefix: int | None = None,
) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Right-padded ids, and which positions may have features: neither prefix nor padding."""
    longest = max(map(len, documents))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in documents])
    place = torch.arange(longest)
    counted = [
        (place >= count_prefix(row, tokenizer, n_prefix)) & (place < len(row)) for row in documents
    ]
    return ids.to(device), torch.stack(counted).to(device)


def mlp_vectors(
    frozen: FrozenModel,
    ids: Int[Tensor, "batch pos"],
    read: ReadPoint,
    write: WritePoint,
    layers: Sequence[int],
) -> tuple[list[Tensor], list[Tensor]]:
    """What these MLPs read and write at these points, (batch, pos, d_model) per layer."""
    frozen.require_embedded(ids)
    inputs, outputs = dict[int, Tensor](), dict[int, Tensor]()

    def on_written(layer: int, vectors: Tensor) -> None:
        outputs[layer] = vectors
        if layer == layers[-1]:
            raise Enough

    with (
        torch.inference_mode(),
        suppress(Enough),
        mlp_hooks(frozen, read, write, on_read=inputs.__setitem__, on_written=on_written),
    ):
        frozen.model(input_ids=ids, use_cache=False, logits_to_keep=1)
    return [inputs[layer] for layer in layers], [outputs[layer] for layer in layers]
