"""Openings: how prompts, and the documents that a dictionary was trained on, begin.

A model treats the first token like no other, so that it matters whether BOS stands there, and
whether features are looked for at it.  Both sides are recorded, and what differs is said.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from graphs.core.records import Record


class Bos(StrEnum):
    """When BOS is put in front of a text that does not begin with it."""

    AUTO = "auto"  # when the tokenizer does so by itself
    NEVER = "never"
    ALWAYS = "always"


class ContextRule(StrEnum):
    """Why first positions are context only, without features and errors, or why none is."""

    CHAT = "chat"  # they hold the fixed opening of a chat
    SPECIAL = "special"  # the first holds a special token
    ORDINARY = "ordinary"  # none is: the first token is an ordinary one
    ASKED = "asked"  # a person gave their number, and it is another than these rules give


class Opening(Record):
    """How a prompt begins."""

    asked: Bos
    # BOS was put in front; the text has it; it has not, though the tokenizer knows one; it knows
    # none.
    bos: Literal["added", "typed", "left out", "unknown"]
    rule: ContextRule

    @property
    def has_bos(self) -> bool:
        return self.bos in ("added", "typed")


class DocumentOpening(Record):
    """How documents begin that a dictionary was trained on."""

    bos: bool
    context_only: int | None = Field(default=None, ge=0)  # first positions; None: by the rules


def mismatches(
    documents: DocumentOpening | None, opening: Opening | None, context_only: int
) -> tuple[str, ...]:
    """One sentence per thing in which a prompt begins otherwise than a dictionary's documents."""
    if documents is None or opening is None:
        return ()
    found: list[str] = []
    if documents.bos and not opening.has_bos:
        found.append(
            "The dictionary was trained on documents that begin with BOS, the prompt does not: "
            "--bos always puts it in front."
        )
    if opening.has_bos and not documents.bos:
        found.append(
            "The dictionary was trained on documents without BOS, the prompt begins with it: "
            "--bos never leaves it out."
        )
    trained, asked = documents.context_only, opening.rule == ContextRule.ASKED
    if trained is None and asked:
        found.append(
            "The dictionary was trained with special tokens alone as context only, the prompt has "
            f"{_positions(context_only)} so: leave out --context-only."
        )
    if trained is not None and trained != context_only:
        found.append(
            f"The dictionary was trained with {_positions(trained)} as context only, the prompt "
            f"has {context_only}: give --context-only {trained}."
        )
    return tuple(found)


def _positions(count: int) -> str:
    return f"{count} first position{'s' * (count != 1)}"
