"""Target names: what a text stands for.

A text names the token with this text; `id:7365` names a vocabulary entry.  If several entries have
the text, the most probable one on the prompt is chosen, and a remark lists them.  What has a place
has a name (`graphs.core.readings`): `logit:7365@4`, `feature:12/345@7`, `neuron:12/345@7`,
`head:5/3@4`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from circuits.attribution.trace_settings import TargetSettings
from circuits.machine import in_float64
from circuits.model.prompt import Prompt, TargetError, encode, prompt_from_ids, require_known
from circuits.model.spelling import ANCHOR, entries, spell
from circuits.model.subject import Subject
from circuits.recording.record import record
from graphs.core.provenance import ContrastReading, Reading, TokenReading
from graphs.core.readings import named_reading

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

    Without texts the targets are what the settings have, else the most probable tokens.
    """
    placed = {text: _placed(text, prompt) for text in texts}
    words = [text for text in texts if placed[text] is None]
    named = [*words, *([] if against is None else [against])]
    found = [named_token(text, subject, prompt, settings.position) for text in named]
    return (
        replace(
            settings,
            tokens=tuple(one.token for one in found[: len(words)]),
            readings=(*settings.readings, *(one for one in placed.values() if one is not None)),
            against=None if against is None else found[-1].token,
        ),
        tuple(one.remark for one in found if one.remark),
    )


def _placed(text: str, prompt: Prompt) -> Reading | None:
    """What has this name.  Raises TargetError for a place that the prompt does not have."""
    try:
        return named_reading(text, len(prompt))
    except ValueError as error:
        raise TargetError(str(error)) from None


def continued(
    text: str, subject: Subject, prompt: Prompt, settings: TargetSettings = DEFAULTS
) -> tuple[Prompt, TargetSettings]:
    """A prompt that goes on with a text, and settings with each token of the text as a target.

    The prompt gets the tokens but the last, which nothing follows.  What the settings explain
    already stays at its position.  Raises TargetError for a text without tokens.
    """
    require_known(text, subject.tokenizer)
    ids = _readings_of(text, subject.tokenizer)[-1]
    if not ids:
        raise TargetError(f"The sequence {text!r} has no tokens: give a text of at least one.")
    longer = prompt_from_ids([*prompt.ids, *ids[:-1]], subject.tokenizer, prompt.n_prefix)
    position = settings.position % len(prompt)
    rival = settings.against
    placed = tuple(
        TokenReading(what="logit", pos=position, index=one)
        if rival is None
        else ContrastReading(pos=position, index=one, against=rival)
        for one in settings.tokens
    )
    return replace(longer, opening=prompt.opening), replace(
        settings,
        tokens=(),
        against=None,
        sequence=tuple(ids),
        directions=tuple(
            replace(one, pos=position if one.pos is None else one.pos)
            for one in settings.directions
        ),
        readings=(*placed, *settings.readings),
        position=-1,
    )


def candidates(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """All tokens with a text.  Raises TargetError, listing its tokens, if it is not one."""
    if named := _ID.fullmatch(text):
        return (int(named[1]),)
    require_known(text, tokenizer)
    readings = _readings_of(text, tokenizer)
    single = [ids[0] for ids in readings if len(ids) == 1]
    exact = [token for token in single if spell(token, tokenizer) == text]
    if single and not exact:
        return (single[0],)
    if found := entries(text, tokenizer) or tuple(exact[:1]):
        return found
    pieces = ", ".join(repr(spell(token, tokenizer)) for token in readings[0]) or "none"
    raise TargetError(
        f"The target {text!r} is {len(readings[0])} tokens ({pieces}): give a text that is one "
        "token, or an id as in id:7365; a leading space often matters.  As a sequence "
        "(--sequence) all its tokens are explained."
    )


def _readings_of(text: str, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of a text alone, and behind another word if they begin at the text.

    Some tokenizers put a space before a text's first word, but not after another word.
    """
    anchor, behind = encode(ANCHOR, tokenizer), encode(ANCHOR + text, tokenizer)
    readings = [encode(text, tokenizer)]
    if anchor and behind[: len(anchor)] == anchor:
        readings.append(behind[len(anchor) :])
    return readings
