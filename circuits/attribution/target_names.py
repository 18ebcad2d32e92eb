"""Target names: the token for a text.

A text names the token with this text; `id:7365` names a vocabulary entry.  If several entries have
the text, the most probable one on the prompt is chosen, and a remark lists them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from circuits.attribution.trace_settings import TargetSettings
from circuits.machine import in_float64
from circuits.model.prompt import Prompt, TargetError, encode, require_known
from circuits.model.spelling import ANCHOR, entries, spell
from circuits.model.subject import Subject
from circuits.recording.record import record

DEFAULTS = TargetSettings()
LISTED = 5  # tokens that a remark lists
_ID = re.compile(r"id:(\d{1,18})")


class NamedToken(NamedTuple):
    """A token, and a remark on the choice."""

    token: int
    remark: str = ""  # one sentence if several tokens have the text, or another is meant


def named_token(text: str, subject: Subject, prompt: Prompt, position: int = -1) -> NamedToken:
    """The token with this text that is most probable at a position of the prompt.

    The model runs only if there are several, or one with a space in front.  Raises TargetError,
    listing its tokens, for a text that is not one token, and PromptError as
    `circuits.recording.record.record`.
    """
    found = candidates(text, subject.tokenizer)
    plain = not text[:1].isspace() and not _ID.fullmatch(text)
    spaced = _spaced(text, found, subject) if plain else tuple[int, ...]()
    if len(found) == 1 and not spaced:
        return NamedToken(found[0])
    probabilities = in_float64(record(subject.frozen, prompt, position).logits).softmax(-1)
    if len(found) == 1:
        own, other = (float(probabilities[token]) for token in (found[0], spaced[0]))
        return NamedToken(found[0], _with_space(text, own, other) if other > own else "")
    known = [token for token in found if token < len(probabilities)]
    by_token = {token: float(probabilities[token]) for token in known}
    ordered = sorted(known, key=lambda token: -by_token[token])
    listed = ", ".join(f"id:{token} ({by_token[token]:.2g})" for token in ordered[:LISTED])
    more = f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return NamedToken(
        ordered[0],
        f"{text!r} is the text of {len(ordered)} tokens, of which the most probable is used: "
        f"{listed}{more}; choose another by its id.",
    )


def _spaced(text: str, found: tuple[int, ...], subject: Subject) -> tuple[int, ...]:
    """The token of a text behind a space, where that is another one."""
    behind = entries(f" {text}", subject.tokenizer)
    return tuple(token for token in behind if token not in found)[:1]


def _with_space(text: str, own: float, other: float) -> str:
    return (
        f"The token {text!r} has probability {own:.2g} and {f' {text}'!r} has {other:.2g}: if the "
        "next word is meant, begin it with a space."
    )


def named_targets(
    subject: Subject,
    prompt: Prompt,
    texts: Sequence[str] = (),
    against: str | None = None,
    settings: TargetSettings = DEFAULTS,
) -> tuple[TargetSettings, tuple[str, ...]]:
    """The settings with these targets, and remarks on the choice.  Raises as `named_token`.

    Without texts the targets are the most probable tokens.
    """
    named = [*texts, *([] if against is None else [against])]
    found = [named_token(text, subject, prompt, settings.position) for text in named]
    return (
        replace(
            settings,
            tokens=tuple(one.token for one in found[: len(texts)]),
            against=None if against is None else found[-1].token,
        ),
        tuple(one.remark for one in found if one.remark),
    )


def candidates(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """All tokens with a text.  Raises TargetError, listing its tokens, if it is not one."""
    if named := _ID.fullmatch(text):
        return (int(named[1]),)
    require_known(text, tokenizer)
    # Some tokenizers put a space before a text's first word, but not after another word.
    anchor, behind = encode(ANCHOR, tokenizer), encode(ANCHOR + text, tokenizer)
    readings = [encode(text, tokenizer)]
    if anchor and behind[: len(anchor)] == anchor:
        readings.append(behind[len(anchor) :])
    single = [ids[0] for ids in readings if len(ids) == 1]
    exact = [token for token in single if spell(token, tokenizer) == text]
    if single and not exact:
        return (single[0],)
    if found := entries(text, tokenizer) or tuple(exact[:1]):
        return found
    pieces = ", ".join(repr(spell(token, tokenizer)) for token in readings[0]) or "none"
    raise TargetError(
        f"The target {text!r} is {len(readings[0])} tokens ({pieces}): give a text that is one "
        "token, or an id as in id:7365; a leading space often matters."
    )
