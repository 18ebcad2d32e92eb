"""Openings: how a prompt begins, and how the documents began that a dictionary was trained on.

Models treat the first token differently from all others, so it matters whether it is BOS and
whether it has features.  Both are recorded for prompt and dictionary, and differences are reported.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from graphs.core.records import Record


class Bos(StrEnum):
    """When BOS is prepended to a text that does not begin with it."""

    AUTO = "auto"  # when the tokenizer does so by default
    NEVER = "never"
    ALWAYS = "always"


class PrefixRule(StrEnum):
    """Why first positions are prefix positions, without features and errors, or why none is."""

    CHAT = "chat"  # they hold the fixed opening of a chat
    SPECIAL = "special"  # the first holds a special token
    ORDINARY = "ordinary"  # there are none: the first token is an ordinary one
    ASKED = "asked"  # the user or the dictionary gave a number that differs from these rules'


class Opening(Record):
    """How a prompt begins."""

    asked: Bos
    # BOS was prepended; the text begins with it; neither; the tokenizer has no BOS.
    bos: Literal["added", "typed", "left out", "unknown"]
    rule: PrefixRule

    @property
    def has_bos(self) -> bool:
        return self.bos in ("added", "typed")


class DocumentOpening(Record):
    """How the documents begin that a dictionary was trained on."""

    bos: bool
    n_prefix: int | None = Field(  # number of prefix positions; None: by the rules
        default=None, ge=0, validation_alias="context_only", serialization_alias="context_only"
    )


def mismatches(
    documents: DocumentOpening | None, opening: Opening | None, n_prefix: int
) -> tuple[str, ...]:
    """One sentence per difference between the openings of a prompt and of training documents."""
    if documents is None or opening is None:
        return ()
    found: list[str] = []
    if documents.bos and not opening.has_bos:
        found.append(
            "The dictionary was trained on documents that begin with BOS, the prompt does not: "
            "use --bos always."
        )
    if opening.has_bos and not documents.bos:
        found.append(
            "The dictionary was trained on documents without BOS, the prompt begins with it: "
            "use --bos never."
        )
    trained, asked = documents.n_prefix, opening.rule == PrefixRule.ASKED
    if trained is None and asked:
        found.append(
            "The dictionary was trained with only special tokens as prefix, the prompt has one of "
            f"{_positions(n_prefix)}: leave out --prefix."
        )
    if trained is not None and trained != n_prefix:
        found.append(
            f"The dictionary was trained with a prefix of {_positions(trained)}, the prompt has "
            f"one of {n_prefix}: use --prefix {trained}."
        )
    return tuple(found)


def _positions(count: int) -> str:
    return f"{count} position{'s' * (count != 1)}"
