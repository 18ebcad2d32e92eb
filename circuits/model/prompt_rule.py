"""How texts become prompts."""

from __future__ import annotations

from dataclasses import dataclass

from graphs.core.opening import Bos


@dataclass(frozen=True)
class PromptRule:
    """By default as the tokenizer does it."""

    bos: Bos = Bos.AUTO
    n_prefix: int | None = None  # prefix positions; None: decided by their tokens


DEFAULT_RULE = PromptRule()
