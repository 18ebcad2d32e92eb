"""How texts become prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphs.core.opening import Bos, DocumentOpening


@dataclass(frozen=True)
class PromptRule:
    """By default as the tokenizer does it."""

    bos: Bos = Bos.AUTO
    n_prefix: int | None = None  # prefix positions; None: decided by their tokens

    def as_trained(self, documents: DocumentOpening | None) -> PromptRule:
        """With as many prefix positions as a dictionary's documents, unless a number is given."""
        trained = documents.n_prefix if documents else None
        return self if self.n_prefix is not None else replace(self, n_prefix=trained)


DEFAULT_RULE = PromptRule()
