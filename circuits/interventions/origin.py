"""Origin: whether what was loaded is what a graph's header names.

Contents decide where both sides know them, else commits and other hashes do.  A version of a
package names no contents, and a name may have moved.
"""

from __future__ import annotations

import re

from circuits.model.spelling import speller
from circuits.model.subject import Subject
from graphs.core.provenance import DictionaryIdentity, ModelIdentity, Provenance
from graphs.errors import HeadwaterError

SHOWN = 19  # characters of a digest in a sentence: sha256: and twelve more
_HASH = re.compile(r"([0-9a-f]{40}|sha256:[0-9a-f]{16,64})(, .*)?")


class ExperimentError(HeadwaterError):
    """A graph that is not of this model, dictionary and prompt."""


def require_model(header: Provenance, subject: Subject) -> None:
    """Raises ExperimentError, saying in what they differ, unless the model is the header's."""
    told, loaded = header.model, subject.identity
    if told.n_layers != loaded.n_layers:
        raise ExperimentError(
            f"The graph is of a model of {told.n_layers} layers, {loaded.name!r} has "
            f"{loaded.n_layers}: give the model that was traced, {told.name!r}."
        )
    if any(not 0 <= token < len(subject.frozen.unembedding) for token in header.token_ids):
        raise ExperimentError(
            f"The graph's prompt has tokens that {loaded.name!r} does not know: give the model "
            f"that was traced, {told.name!r}."
        )
    if told.vocabulary and loaded.vocabulary and told.vocabulary != loaded.vocabulary:
        raise ExperimentError(_otherwise("model", "vocabulary", told, loaded))
    _require_one("model", told, loaded)
    _require_prompt(header, subject)


def require_dictionary(header: Provenance, loaded: DictionaryIdentity) -> None:
    """Raises ExperimentError unless the dictionary has the contents that the header names."""
    _require_one("dictionary", header.dictionary, loaded)


def _require_one(
    what: str,
    told: ModelIdentity | DictionaryIdentity,
    loaded: ModelIdentity | DictionaryIdentity,
) -> None:
    if told.fingerprint is not None and loaded.fingerprint is not None:
        if told.fingerprint != loaded.fingerprint:
            raise ExperimentError(_otherwise(what, "fingerprint", told, loaded))
        return
    hashes = [_HASH.fullmatch(source.revision or "") for source in (told, loaded)]
    if all(hashes) and told.revision != loaded.revision:
        raise ExperimentError(_otherwise(what, "revision", told, loaded))


def _otherwise(
    what: str,
    field: str,
    told: ModelIdentity | DictionaryIdentity,
    loaded: ModelIdentity | DictionaryIdentity,
) -> str:
    named = {"fingerprint": "contents", "vocabulary": "vocabulary", "revision": "revision"}[field]
    one, other = (str(getattr(source, field))[:SHOWN] for source in (told, loaded))
    return (
        f"The graph is of the {what} {told.name!r} with the {named} {one}, and {loaded.name!r} has "
        f"{other}: give the one that was traced, or trace the prompt again."
    )


def _require_prompt(header: Provenance, subject: Subject) -> None:
    """The prompt and its tokens are what the ids say; in schema 1 pieces of characters are �."""
    text_of = speller(subject.tokenizer)
    wrong = [
        pos
        for pos, (text, token) in enumerate(zip(header.tokens, header.token_ids, strict=True))
        if "\ufffd" not in text and text_of(token) != text
    ]
    if wrong:
        pos = wrong[0]
        raise ExperimentError(
            f"The graph has {header.tokens[pos]!r} at position {pos}, where its token id says "
            f"{text_of(header.token_ids[pos])!r}: the file is damaged or of another vocabulary."
        )
    said = str(subject.tokenizer.decode(list(header.token_ids)))
    if said != header.prompt:
        raise ExperimentError(
            f"The graph is of the prompt {header.prompt!r}, and its token ids say {said!r}: the "
            "file is damaged, trace the prompt again."
        )
