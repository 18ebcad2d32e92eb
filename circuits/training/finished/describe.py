"""Describe every feature of a dictionary: where it fires, what it promotes, a label from both.

A label needs no language model.  It names the tokens at which the feature fires, the words that
distinguish its texts from others, and the tokens that it promotes most at its own layer:

    is · Austin, Lone Star State, Alamo → Texas

A cross-layer feature often cancels at higher layers what it promotes at its own, so the tokens that
it promotes over all layers are stored as well but are not part of the label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array
from torch import Tensor

from circuits.evaluation.replacement import Replacement
from circuits.features.points import WritePoint
from circuits.features.transcoder_set import TranscoderSet
from circuits.largest import largest_first
from circuits.model.subject import Subject
from circuits.training.activations import padded
from graphs.core.nodes import Description, Example

EXAMPLES = 3  # per feature, each from another document
LONGEST = 128  # tokens of an example
TOKENS = 8  # promoted and suppressed
BINS = 20  # of the histogram
STRONG = 0.5  # of the largest activation: least that counts for the label
NAMED = 3  # tokens in a label
PROMOTED = 2  # promoted tokens in a label
TOPICS = 5  # words in a label that distinguish the feature's texts
COMMON = 0.05  # smallest share of the feature's texts that contain such a word
LIFT = 4.0  # smallest ratio of that share to the share of all texts
TOGETHER = 512  # features whose texts are compared with all others at once
BATCH = 64  # documents at most
BATCH_VALUES = 2**27  # activations of all layers

Spell = Callable[[int], str]  # a token's text


@dataclass(frozen=True)
class Fired:
    """Where the features of one layer fire on some documents, sorted by feature."""

    feature: Int[ndarray, " firing"]
    token: Int[ndarray, " firing"]  # number of the token, over all documents
    activation: Float[ndarray, " firing"]

    @cached_property
    def strong(self) -> Bool[ndarray, " firing"]:
        """Whether an activation is at least half of its feature's largest."""
        first = np.flatnonzero(np.diff(self.feature, prepend=-1))
        largest = np.maximum.reduceat(self.activation, first)
        times = np.diff(first, append=len(self.feature))
        return self.activation >= STRONG * np.repeat(largest, times)


@dataclass(frozen=True)
class Texts:
    """Documents as one row of tokens."""

    ids: Int[ndarray, " token"]
    document: Int[ndarray, " token"]
    start: Int[ndarray, " document"]  # first token of each
    spelled: tuple[tuple[str, ...], ...]  # tokens of each

    def span(self, document: int) -> tuple[int, int]:
        """Its first token, and the one after its last."""
        ends = (*self.start[document + 1 : document + 2].tolist(), len(self.ids))
        return int(self.start[document]), ends[0]

    @cached_property
    def words(self) -> Int[ndarray, " word"]:
        """Ids that occur, ascending: far fewer than a vocabulary has."""
        return np.unique(self.ids)

    @cached_property
    def presence(self) -> csr_array:
        """1 where a document (row) contains a word (column)."""
        column = np.searchsorted(self.words, self.ids)
        return _occurring(self.document, column, (len(self.start), len(self.words)))

    @cached_property
    def n_documents(self) -> Float[ndarray, " word"]:
        """Number of documents that contain a word."""
        return self.presence.sum(axis=0)


def describe(
    subject: Subject, transcoders: TranscoderSet, documents: list[list[int]]
) -> Iterator[list[Description | None]]:
    """Per layer, every feature's description on these documents; None if it never fires.

    Duplicates of a document count once.
    """
    distinct = [list(ids) for ids in dict.fromkeys(map(tuple, documents))]
    spell = cache(subject.spell)
    texts, fired = _fired(subject, transcoders, distinct, spell)
    for layer, firings in enumerate(fired):
        written = transcoders.layers[layer].n_written
        own, suppressed = _outputs(subject, transcoders, layer, 1, spell)
        promoted = own
        if written > 1:
            promoted, suppressed = _outputs(subject, transcoders, layer, written, spell)
        count = transcoders.layers[layer].d_dict
        bounds = np.searchsorted(firings.feature, np.arange(count + 1))
        topics = _topics(texts, firings, count)
        yield [
            _description(
                *(spell, texts, firings, slice(start, end)),
                *(topics[i], own[i], promoted[i], suppressed[i]),
            )
            for i, (start, end) in enumerate(pairwise(bounds.tolist()))
        ]


def _description(
    spell: Spell,
    texts: Texts,
    firings: Fired,
    part: slice,
    topics: list[int],
    own: tuple[str, ...],  # promoted at its own layer
    promoted: tuple[str, ...],
    suppressed: tuple[str, ...],
) -> Description | None:
    """One feature, whose firings are this part of its layer's."""
    tokens, activations = firings.token[part], firings.activation[part]
    if len(tokens) == 0:
        return None
    where = _where(spell, texts.ids[tokens[firings.strong[part]]], topics)
    most = float(activations.max())
    bins = np.minimum(activations * (BINS / most), BINS - 1).astype(int)
    return Description(
        label=f"{where} → {', '.join(word.strip() for word in own[:PROMOTED])}",
        promoted_at_own_layer=own,
        promoted=promoted,
        suppressed=suppressed,
        frequency=len(tokens) / len(texts.ids),
        histogram=tuple(np.bincount(bins, minlength=BINS).tolist()),
        largest=most,
        examples=_examples(texts, tokens, activations),
    )


@torch.inference_mode()
def _fired(
    subject: Subject, transcoders: TranscoderSet, documents: list[list[int]], spell: Spell
) -> tuple[Texts, list[Fired]]:
    model = Replacement(subject.frozen, transcoders)
    columns: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in transcoders.layers]
    lengths = [len(ids) for ids in documents]
    start = np.concatenate([[0], np.cumsum(lengths)])
    wide = max(lengths) * sum(one.d_dict for one in transcoders.layers)
    together = max(1, min(BATCH, BATCH_VALUES // wide))
    for first in range(0, len(documents), together):
        batch = documents[first : first + together]
        ids, counted = padded(batch, subject.tokenizer, subject.frozen.device, transcoders.n_prefix)
        model.encode(ids)
        for layer, activations in model.activations.items():
            row, pos, feature = (activations * counted[..., None]).nonzero(as_tuple=True)
            token = torch.from_numpy(start)[first + row.cpu()] + pos.cpu()
            columns[layer].append(
                (feature.cpu(), token, activations[row, pos, feature].float().cpu())
            )
    texts = Texts(
        ids=np.concatenate([np.array(ids) for ids in documents]),
        document=np.repeat(np.arange(len(documents)), lengths),
        start=start[:-1],
        spelled=tuple(_spelled(documents, spell)),
    )
    return texts, [_sorted(layer) for layer in columns]


def _sorted(columns: list[tuple[Tensor, Tensor, Tensor]]) -> Fired:
    feature, token, activation = (torch.cat(column) for column in zip(*columns, strict=True))
    order = feature.argsort(stable=True)
    return Fired(*(column[order].numpy() for column in (feature, token, activation)))


@torch.inference_mode()
def _outputs(
    subject: Subject, transcoders: TranscoderSet, layer: int, written: int, spell: Spell
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Tokens that each feature promotes and suppresses most by its first writes, directly."""
    frozen, transcoder = subject.frozen, transcoders.layers[layer]
    vectors = frozen.unembedding.new_zeros(transcoder.d_dict, frozen.d_model)
    for offset in range(written):
        norm = frozen.blocks[layer + offset].post_mlp_norm
        rows = transcoder.decoders[offset].to(vectors)
        if transcoders.write == WritePoint.MLP_OUTPUT and norm is not None:
            rows = norm.centre(rows) * norm.gain  # its denominator differs by token
        vectors = vectors + rows
    directions = frozen.final_norm.centre(vectors) * frozen.final_norm.gain
    count = min(TOKENS, len(frozen.unembedding))
    promoted, suppressed = list[list[int]](), list[list[int]]()
    for rows in directions.split(256):
        logits = rows @ frozen.unembedding.T
        promoted += largest_first(logits, count).tolist()
        suppressed += largest_first(logits.neg_(), count).tolist()
    return _spelled(promoted, spell), _spelled(suppressed, spell)


def _spelled(rows: list[list[int]], spell: Spell) -> list[tuple[str, ...]]:
    return [tuple(spell(token) for token in row) for row in rows]


def _examples(
    texts: Texts, tokens: Int[ndarray, " firing"], activations: Float[ndarray, " firing"]
) -> tuple[Example, ...]:
    """The documents in which the feature is most active, around where it is."""
    order = np.argsort(-activations, kind="stable")
    _, first = np.unique(texts.document[tokens[order]], return_index=True)
    examples: list[Example] = []
    for peak in tokens[order][np.sort(first)[:EXAMPLES]].tolist():
        document = int(texts.document[peak])
        begin, after = texts.span(document)
        start = max(begin, min(peak - LONGEST // 2, after - LONGEST))
        end = min(after, start + LONGEST)
        values = np.zeros(end - start)
        here = (tokens >= start) & (tokens < end)
        values[tokens[here] - start] = activations[here]
        spelled = texts.spelled[document][start - begin : end - begin]
        examples.append(Example(tokens=spelled, activations=tuple(values.tolist())))
    return tuple(examples)


def _where(spell: Spell, strong: Int[ndarray, " firing"], topics: list[int]) -> str:
    """The tokens at which a feature fires strongly, and words that distinguish its texts."""
    named = [token for token, _ in Counter(strong.tolist()).most_common(NAMED)]
    apart = [token for token in topics if token not in named]
    parts = [[spell(token).strip() for token in part] for part in (named, apart) if part]
    return " · ".join(", ".join(part) for part in parts)


def _topics(texts: Texts, firings: Fired, n_features: int) -> list[list[int]]:
    """Per feature, words of many documents in which it fires strongly and of few others.

    Ranked by the share of the firings' documents that contain the word, times the share of the
    word's documents that are among them.
    """
    document = texts.document[firings.token[firings.strong]]
    shape = (n_features, len(texts.start))
    fires = _occurring(firings.feature[firings.strong], document, shape)
    usual = texts.n_documents / len(texts.start)
    found: list[list[int]] = []
    for first in range(0, n_features, TOGETHER):
        some = fires[first : first + TOGETHER]
        together = csr_array(some @ texts.presence)
        together.sort_indices()
        n_documents = some.sum(axis=1)
        for row, (start, end) in enumerate(pairwise(together.indptr.tolist())):
            words, counts = together.indices[start:end], together.data[start:end]
            share = counts / max(1, n_documents[row])
            specific = (share >= COMMON) & (share >= LIFT * usual[words])
            words, share, counts = words[specific], share[specific], counts[specific]
            order = np.argsort(-share * counts / texts.n_documents[words], kind="stable")
            found.append(texts.words[words[order[:TOPICS]]].tolist())
    return found


def _occurring(
    row: Int[ndarray, " pair"], column: Int[ndarray, " pair"], shape: tuple[int, int]
) -> csr_array:
    """1 where a pair occurs, however often."""
    found = csr_array((np.ones(len(row)), (row, column)), shape=shape)
    found.sum_duplicates()
    found.data[:] = 1
    return found
