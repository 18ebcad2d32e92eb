"""A text cut into windows, each of whose tokens counts once.

Every window begins with what the text begins with: its prefix positions, and BOS if that is not
among them.  Then come the tokens that it adds to the windows before it.  The last token of a window
predicts the first that the next one adds, so that all tokens but the last make one prediction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.machine import exact, in_float64
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt, PromptError, count_prefix
from circuits.model.subject import Subject

LONGEST = 1024  # tokens of a window unless stated: attention patterns grow with their square
NONE = -1  # in the place of the next token of the last one
AT_ONCE = 256  # positions whose logits are converted together


@dataclass(frozen=True)
class Windows:
    """The windows of one text, filled up to the same length behind their ends."""

    ids: Int[Tensor, "window pos"]
    counted: Bool[Tensor, "window pos"]  # neither repeated nor prefix nor filled up
    following: Int[Tensor, "window pos"]  # next token of each counted one; NONE elsewhere

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Number of tokens that count."""
        return int(self.counted.sum())

    def batches(self, count: int) -> Iterator[Windows]:
        """At most `count` windows at a time."""
        parts = (self.ids, self.counted, self.following)
        for batch in zip(*(part.split(count) for part in parts), strict=True):
            yield Windows(*batch)

    def loss(self, logits: Float[Tensor, "window pos d_vocab"]) -> float:
        """Sum over predictions of the cross-entropy of the next token, in nats."""
        total = 0.0
        pairs = zip(
            logits.flatten(0, 1).split(AT_ONCE),
            self.following.flatten().split(AT_ONCE),
            strict=True,
        )
        for part, following in pairs:
            losses = torch.nn.functional.cross_entropy(
                exact(part), following, ignore_index=NONE, reduction="none"
            )
            total += float(in_float64(losses).sum())
        return total


def windows_of(prompt: Prompt, subject: Subject, length: int | None = None) -> Windows:
    """A text in windows of at most `length` tokens; by default of the model's context, or LONGEST.

    Raises PromptError for fewer than two tokens that count, and for windows that are longer than
    the model's context or too short for the beginning of the text.
    """
    n_prefix, ids, length = prompt.n_prefix, list(prompt.ids), _length(subject.frozen, length)
    if len(prompt) - n_prefix < 2:
        raise PromptError(
            f"An evaluation needs 2 tokens behind the prefix positions, and this text has "
            f"{len(prompt) - n_prefix}: give a longer one."
        )
    front = max(n_prefix, count_prefix(ids, subject.tokenizer))
    if length <= front:
        raise PromptError(
            f"A window of {length} tokens has no room behind the {front} with which each begins: "
            "choose a longer one."
        )
    return _cut(ids, n_prefix, front, length, subject.frozen.device)


def _cut(ids: list[int], n_prefix: int, front: int, length: int, device: torch.device) -> Windows:
    """Windows that all begin with the first `front` ids."""
    body, step, longest = ids[front:], length - front, min(length, len(ids))
    rows: list[tuple[list[int], list[bool], list[int]]] = []
    for start in range(0, max(1, len(body)), step):
        row = ids[:front] + body[start : start + step]
        first = front if start else n_prefix
        # Behind its beginning, position p of a window is that of token start + p of the text.
        following = [*ids[first + start + 1 : len(row) + start + 1], NONE][: len(row) - first]
        filled = longest - len(row)
        counted = [False] * first + [True] * (len(row) - first) + [False] * filled
        rows.append((row + [0] * filled, counted, [NONE] * first + following + [NONE] * filled))
    return Windows(*(torch.tensor(column, device=device) for column in zip(*rows, strict=True)))


def _length(frozen: FrozenModel, asked: int | None) -> int:
    """Tokens of a window.  Raises PromptError for more than the model's context."""
    context = frozen.context_length
    if asked is None:
        return LONGEST if context is None else min(LONGEST, context)
    if context is not None and asked > context:
        raise PromptError(
            f"A window has {asked:,} tokens, the model's context holds {context:,}: choose a "
            "shorter one."
        )
    return asked
