"""The first position of documents: whether it outweighs all others.

Models direct unused attention to one position, a sink, mostly the first, where some MLPs write
vectors hundreds of times as large as elsewhere ("Massive activations in large language models",
arXiv 2402.17762).  BOS is no part of what is trained on.  Where documents begin with an ordinary
token, that is the sink: it makes up most of a layer's variance, so that a dictionary of that layer
explains little else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from circuits.corpora.corpus import Corpus
from circuits.model.prompt import count_prefix
from circuits.model.subject import Subject
from circuits.training.activations import mlp_vectors, padded
from circuits.training.settings import TrainSettings

# Of the norm of what an MLP writes, to the median of the document.  At the first token SmolLM2-135M
# has 667 to 873 in layer 11 (16 documents of 256 tokens), at others 46 at most in any layer.
LEAST_RATIO = 100.0
PROBED = 8  # documents
LEAST_TOKENS = 4  # of which a median says something


@dataclass(frozen=True)
class FirstSink:
    """An attention sink at the first token of documents."""

    layer: int  # whose MLP writes most there, beside elsewhere
    ratio: float  # of the norms

    def __str__(self) -> str:
        return (
            "The first token of documents is an attention sink: there the MLP of layer "
            f"{self.layer} writes {self.ratio:,.0f} times as much as elsewhere. It is context "
            "only, as by --prefix 1; with --prefix 0 it is trained on too."
        )


def first_sink(subject: Subject, corpus: Corpus, settings: TrainSettings) -> FirstSink | None:
    """The sink at the first position; None without one, and if special tokens are there."""
    frozen, tokenizer = subject.frozen, subject.tokenizer
    some = [ids for ids in islice(corpus.documents(0), PROBED) if len(ids) >= LEAST_TOKENS]
    if not some or any(count_prefix(ids, tokenizer) for ids in some):
        return None
    ids, kept = padded(some, tokenizer, frozen.device)
    layers = settings.layers_of(frozen.n_layers)
    _, written = mlp_vectors(frozen, ids, settings.read, settings.write, layers)
    ratios = [_ratio(vectors.float().norm(dim=2).cpu(), kept.cpu()) for vectors in written]
    most = max(range(len(layers)), key=ratios.__getitem__)
    return FirstSink(layers[most], ratios[most]) if ratios[most] > LEAST_RATIO else None


def _ratio(norms: Tensor, kept: Tensor) -> float:
    """Of the first norm of a document to its median, in the middle of all documents."""
    usual = norms.masked_fill(~kept, torch.nan).nanmedian(1).values
    return float((norms[:, 0] / usual).nan_to_num(0.0).median())
