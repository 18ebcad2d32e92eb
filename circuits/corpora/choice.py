"""Choice of a corpus: a file, a folder, a dataset on the Hub or the model's own samples."""

from __future__ import annotations

import re
from pathlib import Path

from circuits.corpora.corpus import (
    SUFFIXES,
    Corpus,
    Unit,
    read_corpus,
    require_enough,
    sampled_corpus,
)
from circuits.corpora.dataset import dataset_corpus
from circuits.model.subject import Subject
from graphs.core.opening import Bos

DATASET = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")  # a name on the Hub


def chosen_corpus(
    corpus: str | None,
    subject: Subject,
    seed: int,
    least: int,
    length: int,
    column: str,
    unit: Unit,
    bos: Bos,
) -> Corpus:
    """A file, a folder, a dataset on the Hub, or without a name the model's own samples.

    A text must have `least` tokens; `seed` is that of the samples.
    """
    length = min(length, subject.frozen.context_length or length)
    if corpus is None:
        return sampled_corpus(subject, length, seed, bos)
    if is_dataset_name(corpus):
        return dataset_corpus(corpus, subject.tokenizer, length, column, bos)
    texts = read_corpus(Path(corpus), subject.tokenizer, length, bos, unit)
    require_enough(texts, least)
    return texts


def is_dataset_name(corpus: str) -> bool:
    """Whether this can name a dataset on the Hub: `owner/name`, and no file or folder here."""
    owner, _, name = corpus.partition("/")
    if not DATASET.fullmatch(corpus) or owner.startswith(".") or Path(name).suffix in SUFFIXES:
        return False
    return not Path(owner).exists()
