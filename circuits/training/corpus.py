"""Documents to train on: lines of a text file, files of a folder, or the model's own samples.

A corpus is an endless sequence of token ids, the same every time it is read from the same
document on, so that a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Protocol, runtime_checkable
from zlib import crc32

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from circuits.machine.memory import free_bytes, gigabytes
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import behind, context_only_positions, encode, opening_ids, require_known
from circuits.model.subject import Subject
from circuits.training.settings import TrainingError
from graphs.core.opening import Bos
from graphs.disk.files import GraphFileError, reason, regular_file

SUFFIXES = (".txt", ".md", ".rst", ".text")
SAMPLES_AT_ONCE = 64
TOKENISED = 16  # bytes of memory that a byte of text takes: a token of four has 32, and more
HELD_OUT = 20  # one in so many documents is for the report


def is_held_out(ids: list[int]) -> bool:
    """Whether a document is for the report alone: decided by its content, so is its double."""
    return crc32(np.array(ids, dtype=np.int64).tobytes()) % HELD_OUT == 0


@runtime_checkable
class Corpus(Protocol):
    """Documents by number."""

    def documents(self, first: int) -> Iterator[list[int]]:
        """Token ids of document `first` and all that follow, without end."""
        ...

    def fingerprint(self) -> str:
        """Names the content: runs on other documents are other runs."""
        ...


@dataclass(frozen=True)
class TextCorpus:
    """Tokenised documents in memory, over and over."""

    ids: tuple[list[int], ...]

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
    """What the model itself says after its first token, at temperature 1."""

    frozen: FrozenModel
    start: int  # the token that every sample is drawn behind
    front: tuple[int, ...]  # what stands there in a document; empty if prompts begin without it
    length: int
    seed: int

    def documents(self, first: int) -> Iterator[list[int]]:
        for block in count(first // SAMPLES_AT_ONCE):
            skipped = max(0, first - block * SAMPLES_AT_ONCE)
            yield from self._block(block)[skipped:]

    def fingerprint(self) -> str:
        """What the samples follow from, beside the model."""
        return f"samples of {self.length} tokens after {self.start}, seed {self.seed}"

    def _block(self, block: int) -> list[list[int]]:
        generator = torch.Generator(self.frozen.device).manual_seed(self.seed * 1_000_003 + block)
        end = self.frozen.config.eos_token_id
        ends = torch.tensor(end if isinstance(end, list) else [-1 if end is None else end])
        ids = torch.full((SAMPLES_AT_ONCE, 1), self.start, device=self.frozen.device)
        self.frozen.require_embedded(ids)
        ended = torch.zeros(SAMPLES_AT_ONCE, dtype=torch.bool)
        cache, latest = None, ids
        with torch.inference_mode():
            while ids.shape[1] < self.length and not bool(ended.all()):
                output = self.frozen.model(input_ids=latest, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                shares = output.logits[:, -1].float().softmax(-1)
                latest = torch.multinomial(shares, 1, generator=generator)
                ids = torch.cat([ids, latest], 1)
                ended |= torch.isin(latest[:, 0].cpu(), ends)
        return [[*self.front, *_until(row, set(ends.tolist()))[1:]] for row in ids.tolist()]


def _until(ids: list[int], ends: set[int]) -> list[int]:
    """Ids up to the first end after the start, which is left in."""
    for place, token in enumerate(ids[1:], 1):
        if token in ends:
            return ids[: place + 1]
    return ids


def read_corpus(
    path: Path, tokenizer: PreTrainedTokenizerBase, length: int, bos: Bos = Bos.AUTO
) -> TextCorpus:
    """Every line of a file, or every text file of a folder, cut to `length` tokens.

    Raises TrainingError for a path that cannot be read, is no text or holds no tokens, and
    PromptError for words that the vocabulary lacks.
    """
    if _is_folder(path):
        files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        if not files:
            raise TrainingError(
                f"{path} holds no text: expected files ending in {', '.join(SUFFIXES)}."
            )
        texts = [_read(file) for file in files]
    else:
        texts = _read(path).split("\n")
    front = opening_ids(tokenizer, bos)
    step = max(1, length - len(front))
    pieces: list[list[int]] = []
    for text in texts:
        ids = token_ids(text, tokenizer, front)[len(front) :]
        starts = range(0, len(ids), step)
        pieces += [behind(front, ids[start : start + step]) for start in starts]
    if not pieces:
        raise TrainingError(f"{path} holds no tokens: give a text.")
    return TextCorpus(tuple(pieces))


def token_ids(text: str, tokenizer: PreTrainedTokenizerBase, front: tuple[int, ...]) -> list[int]:
    """Ids of a document, behind these.  Raises PromptError for words that the vocabulary lacks."""
    ids = behind(front, encode(text, tokenizer))
    if tokenizer.unk_token_id in ids:
        require_known(text, tokenizer)
    return ids


def require_enough(corpus: TextCorpus, least: int) -> None:
    """Raises TrainingError for fewer tokens than this."""
    tokens = sum(map(len, corpus.ids))
    if tokens < least:
        raise TrainingError(
            f"The corpus holds {tokens:,} tokens, one batch alone takes {least:,}: give more text "
            "or train with smaller batches."
        )


def held_out(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    context_only: int | None = None,
) -> list[list[int]]:
    """The first documents that no pool holds, each once; none that is context only.

    Raises TrainingError if there is none.
    """
    found: dict[tuple[int, ...], None] = {}
    for ids in islice(corpus.documents(0), 2 * count * HELD_OUT):
        if is_held_out(ids) and has_features(ids, tokenizer, context_only):
            found.setdefault(tuple(ids))
            if len(found) == count:
                break
    if not found:
        raise TrainingError(
            f"No document of the corpus is held out for the report, which takes one in {HELD_OUT} "
            "by its content: give a corpus with more different texts."
        )
    return [list(ids) for ids in found]


def has_features(
    ids: list[int], tokenizer: PreTrainedTokenizerBase, context_only: int | None
) -> bool:
    """Whether a document has tokens that are not context only."""
    return len(ids) > 0 and len(ids) > context_only_positions(ids, tokenizer, context_only)


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
                f"{path} has {gigabytes(size)} and takes {TOKENISED} times as much memory when it "
                "is tokenised: give a part of it, or a dataset on the Hub."
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TrainingError(f"Cannot read {path}: {reason(error)}.") from error
    except GraphFileError as error:
        raise TrainingError(str(error)) from error
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise TrainingError(f"{path} is not a text in UTF-8: give one that is.")
    return text


def sampled_corpus(subject: Subject, length: int, seed: int, bos: Bos = Bos.AUTO) -> SampledCorpus:
    """The model's own samples.  Raises TrainingError without a token to start from."""
    tokenizer = subject.tokenizer
    front = opening_ids(tokenizer, bos)
    candidates = (*front, tokenizer.bos_token_id, tokenizer.eos_token_id)
    start = next((token for token in candidates if isinstance(token, int)), None)
    if start is None:
        raise TrainingError(
            "This tokenizer has neither a first nor a last token to sample from: give a corpus."
        )
    return SampledCorpus(subject.frozen, start, front, length + 1 - len(front), seed)
