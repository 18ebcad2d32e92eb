"""Documents to train on: lines of a text file, files of a folder, or the model's own samples.

A corpus is an endless sequence of token ids, the same every time it is read from the same
document on, so that an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Protocol, runtime_checkable
from zlib import crc32

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from circuits.corpora.unit import Unit
from circuits.errors import TrainingError
from circuits.machine import free_bytes, gigabytes
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import count_prefix, encode, opening_ids, require_known, with_opening
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from graphs.core.opening import Bos
from graphs.disk.files import GraphFileError, reason, regular_file

SUFFIXES = (".txt", ".md", ".rst", ".text")
SAMPLES_AT_ONCE = 64
KEPT_BLOCKS = 16
ASKED_EVERY = 16  # tokens after which a device is asked whether all samples have ended
TOKENISED = 16  # bytes of memory per byte of text: a token of four bytes takes 32 or more
FEW = 8  # held-out documents, of a short run
HELD_OUT = 20  # one in this many documents is for the report


def is_held_out(ids: list[int]) -> bool:
    """Whether a document is for the report alone, by its content, so that duplicates agree."""
    return crc32(np.array(ids, dtype=np.int64).tobytes()) % HELD_OUT == 0


@runtime_checkable
class Corpus(Protocol):
    """Documents by number."""

    @property
    def length(self) -> int:
        """Tokens of a document, about as many at most."""
        ...

    def documents(self, first: int) -> Iterator[list[int]]:
        """Token ids of document `first` and all that follow, without end."""
        ...

    def fingerprint(self) -> str:
        """Identifies the content: a run on other documents is another run."""
        ...


@dataclass(frozen=True)
class TextCorpus:
    """Tokenised documents in memory, repeated without end."""

    ids: tuple[list[int], ...]

    @property
    def length(self) -> int:
        return max(map(len, self.ids))

    def documents(self, first: int) -> Iterator[list[int]]:
        for number in count(first):
            yield self.ids[number % len(self.ids)]

    def fingerprint(self) -> str:
        """A hash of all token ids."""
        digest = hashlib.sha256()
        for ids in self.ids:
            digest.update(np.array([len(ids), *ids], dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class SampledCorpus:
    """Samples of the model itself after its first token, at temperature 1."""

    frozen: FrozenModel
    start: int  # the token that every sample continues
    front: tuple[int, ...]  # what documents begin with in its place; empty if without
    length: int
    seed: int
    latest: dict[int, list[list[int]]] = field(default_factory=dict[int, list[list[int]]])

    def documents(self, first: int) -> Iterator[list[int]]:
        for block in count(first // SAMPLES_AT_ONCE):
            skipped = max(0, first - block * SAMPLES_AT_ONCE)
            yield from self._block(block)[skipped:]

    def fingerprint(self) -> str:
        """What determines the samples, apart from the model."""
        return f"samples of {self.length} tokens after {self.start}, seed {self.seed}"

    def _block(self, block: int) -> list[list[int]]:
        """Samples number 64 · block and the next; the latest are kept, as they are read twice."""
        if block not in self.latest:
            self.latest[block] = self._sampled(block)
            for old in list(self.latest)[:-KEPT_BLOCKS]:
                del self.latest[old]
        return self.latest[block]

    def _sampled(self, block: int) -> list[list[int]]:
        device = self.frozen.device
        generator = torch.Generator(device).manual_seed(self.seed * 1_000_003 + block)
        end = self.frozen.config.eos_token_id
        ends = end if isinstance(end, list) else [-1 if end is None else end]
        ids = torch.full((SAMPLES_AT_ONCE, 1), self.start, device=device)
        self.frozen.require_embedded(ids)
        ended = torch.zeros(SAMPLES_AT_ONCE, dtype=torch.bool, device=device)
        last = torch.tensor(ends).to(device)
        cache, latest = None, ids
        with torch.inference_mode():
            while (length := ids.shape[1]) < self.length:
                if length % ASKED_EVERY == 0 and bool(ended.all()):
                    break  # what was sampled since is cut off below
                output = self.frozen.model(input_ids=latest, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                probabilities = output.logits[:, -1].float().softmax(-1)
                latest = torch.multinomial(probabilities, 1, generator=generator)
                ids = torch.cat([ids, latest], 1)
                ended |= torch.isin(latest[:, 0], last)
        return [[*self.front, *_until(row, set(ends))[1:]] for row in ids.tolist()]


def _until(ids: list[int], ends: set[int]) -> list[int]:
    """Ids up to and including the first end token after the start."""
    for place, token in enumerate(ids[1:], 1):
        if token in ends:
            return ids[: place + 1]
    return ids


def read_corpus(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    bos: Bos = Bos.AUTO,
    unit: Unit = Unit.LINE,
) -> TextCorpus:
    """The documents of a file, or every text file of a folder, cut to `length` tokens.

    Raises TrainingError for a path that cannot be read, is not text or has no tokens, and
    PromptError for words that the vocabulary lacks.
    """
    if _is_folder(path):
        files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        if not files:
            raise TrainingError(
                f"{path} has no text files: expected names ending in {', '.join(SUFFIXES)}."
            )
        texts = [_read(file) for file in files]
    else:
        texts = divided(_read(path), unit)
    front = opening_ids(tokenizer, bos)
    step = max(1, length - len(front))
    pieces: list[list[int]] = []
    for text in texts:
        ids = token_ids(text, tokenizer, front)[len(front) :]
        starts = range(0, len(ids), step)
        pieces += [with_opening(front, ids[start : start + step]) for start in starts]
    if not pieces:
        raise TrainingError(f"{path} has no tokens: give a text that is not empty.")
    return TextCorpus(tuple(pieces))


def divided(text: str, unit: Unit) -> list[str]:
    """The documents of a text: its lines, its paragraphs, which blank lines divide, or itself."""
    if unit == Unit.LINE:
        return text.split("\n")
    return re.split(r"\n(?:[^\S\n]*\n)+", text) if unit == Unit.PARAGRAPH else [text]


def token_ids(text: str, tokenizer: PreTrainedTokenizerBase, front: tuple[int, ...]) -> list[int]:
    """Ids of a document after `front`.  Raises PromptError for words that the vocabulary lacks."""
    ids = with_opening(front, encode(text, tokenizer))
    if tokenizer.unk_token_id in ids:
        require_known(text, tokenizer)
    return ids


def require_enough(corpus: TextCorpus, least: int) -> None:
    """Raises TrainingError for fewer tokens than this."""
    tokens = sum(map(len, corpus.ids))
    if tokens < least:
        raise TrainingError(
            f"The corpus has {tokens:,} tokens and one batch takes {least:,}: give more text or "
            "train with smaller batches."
        )


def held_out(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    n_prefix: int | None = None,
    progress: Progress = ignore_progress,
    within: int | None = None,
    enough: int | None = None,
) -> list[list[int]]:
    """The first held-out documents with tokens after the prefix, without duplicates.

    No more than have `enough` tokens, and past `within` tokens of the corpus FEW will do.  Raises
    TrainingError if there is none.
    """
    searched = 0
    found: dict[tuple[int, ...], None] = {}
    progress("held out", 0, count)
    for ids in islice(corpus.documents(0), 2 * count * HELD_OUT):
        searched += len(ids)
        if within is not None and searched > within and len(found) >= FEW:
            break
        if is_held_out(ids) and has_features(ids, tokenizer, n_prefix):
            found.setdefault(tuple(ids))
            progress("held out", len(found), count)
            if len(found) == count or (enough is not None and sum(map(len, found)) >= enough):
                break
    if not found:
        raise TrainingError(
            "No document of the corpus is held out for the report, as one in "
            f"{HELD_OUT} would be on average: give a corpus with more distinct texts."
        )
    return [list(ids) for ids in found]


def has_features(ids: list[int], tokenizer: PreTrainedTokenizerBase, n_prefix: int | None) -> bool:
    """Whether a document has tokens after its prefix."""
    return len(ids) > 0 and len(ids) > count_prefix(ids, tokenizer, n_prefix)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # a name that is too long
        raise TrainingError(f"Cannot read {path}: {reason(error)}.") from error


def _read(path: Path) -> str:
    try:
        size = regular_file(path).stat().st_size
        if TOKENISED * size > free_bytes():
            raise TrainingError(
                f"{path} has {gigabytes(size)}, and tokenising it takes {TOKENISED} times as much "
                "memory: give a part of it, or a dataset on the Hub."
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TrainingError(f"Cannot read {path}: {reason(error)}.") from error
    except GraphFileError as error:
        raise TrainingError(str(error)) from error
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise TrainingError(f"{path} is not UTF-8 text: convert it to UTF-8.")
    return text


def sampled_corpus(subject: Subject, length: int, seed: int, bos: Bos = Bos.AUTO) -> SampledCorpus:
    """The model's own samples.  Raises TrainingError if there is no token to start from."""
    tokenizer = subject.tokenizer
    front = opening_ids(tokenizer, bos)
    candidates = (*front, tokenizer.bos_token_id, tokenizer.eos_token_id)
    start = next((token for token in candidates if isinstance(token, int)), None)
    if start is None:
        raise TrainingError(
            "The tokenizer has no BOS or EOS token to start samples from: give a corpus."
        )
    return SampledCorpus(subject.frozen, start, front, length + 1 - len(front), seed)
