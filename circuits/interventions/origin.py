"""Origin: whether the loaded model and dictionary are those that a graph's header names.

Fingerprints are compared if both sides have them, else commits and other hashes.  Versions of
packages identify no contents, and a name may have changed.
"""

from __future__ import annotations

import re

import numpy as np

from circuits.model.spelling import speller
from circuits.model.subject import Subject
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.provenance import DictionaryIdentity, ModelIdentity, Provenance
from graphs.errors import HeadwaterError

SHOWN = 19  # characters of a digest in a sentence: sha256: and twelve more
_HASH = re.compile(r"([0-9a-f]{40}|sha256:[0-9a-f]{16,64})(, .*)?")


class ExperimentError(HeadwaterError):
    """A graph does not belong to this model, dictionary or prompt."""


def require_direct(graph: AttributionGraph) -> None:
    """Raises ExperimentError for a graph whose edges are not direct effects between its features.

    What a head writes is a vector, of which a head node has the part along one direction: effects
    through it cannot be told.
    """
    if np.any(graph.nodes.is_kind(NodeKind.HEAD)):
        raise ExperimentError(
            "The graph has head nodes, through which effects are not known: trace the prompt "
            "without --attention heads to intervene, check or take its edges apart."
        )


def require_model(header: Provenance, subject: Subject) -> None:
    """Raises ExperimentError, naming the difference, unless the model is the header's."""
    stated, loaded = header.model, subject.identity
    if stated.n_layers != loaded.n_layers:
        raise ExperimentError(
            f"The graph's model has {stated.n_layers} layers and {loaded.name!r} has "
            f"{loaded.n_layers}: give the model that was traced, {stated.name!r}."
        )
    if any(not 0 <= token < len(subject.frozen.unembedding) for token in header.token_ids):
        raise ExperimentError(
            f"The graph's prompt has token ids that are not in the vocabulary of {loaded.name!r}: "
            f"give the model that was traced, {stated.name!r}."
        )
    if stated.vocabulary and loaded.vocabulary and stated.vocabulary != loaded.vocabulary:
        raise ExperimentError(_mismatch("model", "vocabulary", stated, loaded))
    _require_same("model", stated, loaded)
    _require_prompt(header, subject)


def require_dictionary(header: Provenance, loaded: DictionaryIdentity) -> None:
    """Raises ExperimentError unless the dictionary has the contents that the header names."""
    _require_same("dictionary", header.dictionary, loaded)


def _require_same(
    what: str,
    stated: ModelIdentity | DictionaryIdentity,
    loaded: ModelIdentity | DictionaryIdentity,
) -> None:
    if stated.fingerprint is not None and loaded.fingerprint is not None:
        if stated.fingerprint != loaded.fingerprint:
            raise ExperimentError(_mismatch(what, "fingerprint", stated, loaded))
        return
    hashes = [_HASH.fullmatch(source.revision or "") for source in (stated, loaded)]
    if all(hashes) and stated.revision != loaded.revision:
        raise ExperimentError(_mismatch(what, "revision", stated, loaded))


def _mismatch(
    what: str,
    field: str,
    stated: ModelIdentity | DictionaryIdentity,
    loaded: ModelIdentity | DictionaryIdentity,
) -> str:
    named = {"fingerprint": "contents", "vocabulary": "vocabulary", "revision": "revision"}[field]
    one, other = (str(getattr(source, field))[:SHOWN] for source in (stated, loaded))
    return (
        f"The graph's {what} {stated.name!r} has the {named} {one}, and {loaded.name!r} has "
        f"{other}: give the one that was traced, or trace the prompt again."
    )


def _require_prompt(header: Provenance, subject: Subject) -> None:
    """Raises ExperimentError unless ids decode to prompt and tokens (� is a piece in schema 1)."""
    text_of = speller(subject.tokenizer)
    wrong = [
        pos
        for pos, (text, token) in enumerate(zip(header.tokens, header.token_ids, strict=True))
        if "\ufffd" not in text and text_of(token) != text
    ]
    if wrong:
        pos = wrong[0]
        raise ExperimentError(
            f"The graph has {header.tokens[pos]!r} at position {pos}, where its token id decodes "
            f"to {text_of(header.token_ids[pos])!r}: the file is damaged or of another vocabulary; "
            "trace the prompt again."
        )
    decoded = str(subject.tokenizer.decode(list(header.token_ids)))
    if decoded != header.prompt:
        raise ExperimentError(
            f"The graph's prompt is {header.prompt!r}, and its token ids decode to {decoded!r}: "
            "the file is damaged; trace the prompt again."
        )
