"""Naming: which token a person means.

A text names the token that it is; `id:7365` names a vocabulary entry.  Several entries may have
one text: then the most probable on the prompt is meant, and a sentence lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from circuits.attribution.targets import TargetSettings
from circuits.model.prompt import Prompt, TargetError, encode, require_known
from circuits.model.spelling import ANCHOR, entries, spell
from circuits.model.subject import Subject
from circuits.recording.record import record

DEFAULTS = TargetSettings()
LISTED = 5  # entries that a sentence lists
_ID = re.compile(r"id:(\d{1,18})")


class Named(NamedTuple):
    """A token, and what is to be said about the choice."""

    token: int
    remark: str = ""  # one sentence where several tokens have the text


def named_token(text: str, subject: Subject, prompt: Prompt, position: int = -1) -> Named:
    """The token of a text that is most probable at a position of the prompt.

    The model is asked only where there are several.  Raises TargetError, naming its tokens, for a
    text that is not one token, and PromptError as `circuits.recording.record.record`.
    """
    found = candidates(text, subject.tokenizer)
    if len(found) == 1:
        return Named(found[0])
    probabilities = record(subject.frozen, prompt, position).logits.double().softmax(-1)
    known = [token for token in found if token < len(probabilities)]
    chance = {token: float(probabilities[token]) for token in known}
    ordered = sorted(known, key=lambda token: -chance[token])
    listed = ", ".join(f"id:{token} ({chance[token]:.2g})" for token in ordered[:LISTED])
    more = f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return Named(
        ordered[0],
        f"{text!r} is the text of {len(ordered)} tokens, of which the most probable is taken: "
        f"{listed}{more}; name another by its id.",
    )


def named_targets(
    subject: Subject,
    prompt: Prompt,
    texts: Sequence[str] = (),
    against: str | None = None,
    settings: TargetSettings = DEFAULTS,
) -> tuple[TargetSettings, tuple[str, ...]]:
    """The settings with these targets, and sentences on what was chosen.  Raises as `named_token`.

    Without texts they explain the most probable tokens.
    """
    asked = [*texts, *([] if against is None else [against])]
    found = [named_token(text, subject, prompt, settings.position) for text in asked]
    return (
        replace(
            settings,
            tokens=tuple(one.token for one in found[: len(texts)]),
            against=None if against is None else found[-1].token,
        ),
        tuple(one.remark for one in found if one.remark),
    )


def candidates(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """All tokens that a text may mean.  Raises TargetError, naming its tokens, if it is not one."""
    if named := _ID.fullmatch(text):
        return (int(named[1]),)
    require_known(text, tokenizer)
    # Some tokenizers put a space before a text's first word: behind a word they do not.
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
