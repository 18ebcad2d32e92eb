"""Identity: whether two graphs have the same model, dictionary or vocabulary.

Headers of schema 2 hold digests of contents, which decide where both headers have them.  Otherwise
all fields that schema 1 has must agree.
"""

from __future__ import annotations

from typing import Any

from graphs.core.graph import AttributionGraph
from graphs.core.provenance import (
    NEURONS,
    UNKNOWN,
    DictionaryIdentity,
    ModelIdentity,
    Provenance,
)


def same_dictionary(first: AttributionGraph, second: AttributionGraph) -> bool:
    """Whether the same layer and index mean the same feature in both graphs.

    Neurons need the same model; dictionaries need not, as for a base model and its chat model.
    Unknown dictionaries are never the same.
    """
    one, other = first.provenance, second.provenance
    if UNKNOWN in (one.dictionary.name, other.dictionary.name):
        return False
    if NEURONS in (one.dictionary.kind, other.dictionary.kind):
        return one.dictionary == other.dictionary and same_source(one.model, other.model)
    return same_source(one.dictionary, other.dictionary)


def same_source(
    first: ModelIdentity | DictionaryIdentity, second: ModelIdentity | DictionaryIdentity
) -> bool:
    """Whether two headers name the same model or the same dictionary."""
    if first.fingerprint is not None and second.fingerprint is not None:
        return first.fingerprint == second.fingerprint
    return _schema_1_fields(first) == _schema_1_fields(second)


def same_vocabulary(first: Provenance, second: Provenance) -> bool:
    """Whether an id is the same token in both.

    Where a header has no digest of its vocabulary, the same model has the same.  For different
    models the prompts decide: they share token texts, and every shared text has the same id in
    both.
    """
    one, other = first.model, second.model
    if one.vocabulary is not None and other.vocabulary is not None:
        return one.vocabulary == other.vocabulary
    if one.name != UNKNOWN and same_source(one, other):
        return True
    known = _unique_ids(first)
    same = [known[text] == entry for text, entry in _unique_ids(second).items() if text in known]
    return bool(same) and all(same)


def token_keys(
    first: Provenance, second: Provenance
) -> tuple[tuple[int, ...], tuple[int, ...]] | tuple[tuple[str, ...], tuple[str, ...]]:
    """Keys by which the tokens of two prompts are compared: ids in one vocabulary, else texts.

    Texts are ambiguous: tokens of a byte-level vocabulary may share one.  A graph of another
    program may lack some ids.
    """
    ids = first.token_ids, second.token_ids
    if same_vocabulary(first, second) and min([0, *ids[0], *ids[1]]) == 0:
        return ids
    return first.tokens, second.tokens


def feature_numbering(graph: AttributionGraph) -> tuple[dict[str, Any], ...] | None:
    """What a feature's number is a number of, by name: a dictionary, of neurons with their model.

    None where the dictionary is not known.
    """
    header = graph.provenance
    if header.dictionary.name == UNKNOWN:
        return None
    about = (header.dictionary, *([header.model] if header.dictionary.kind == NEURONS else []))
    return tuple(map(_schema_1_fields, about))


def _schema_1_fields(source: ModelIdentity | DictionaryIdentity) -> dict[str, Any]:
    """The fields that headers of schema 1 have too."""
    return source.model_dump(exclude={"fingerprint", "vocabulary", "documents"})


def _unique_ids(header: Provenance) -> dict[str, int]:
    """Token texts of the prompt that have exactly one known id, and that id."""
    entries: dict[str, set[int]] = {}
    for text, entry in zip(header.tokens, header.token_ids, strict=True):
        entries.setdefault(text, set()).add(entry)
    return {
        text: next(iter(ids)) for text, ids in entries.items() if len(ids) == 1 and -1 not in ids
    }
