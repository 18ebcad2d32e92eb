"""Identity: whether two graphs are of one model, one dictionary, one vocabulary.

Headers of schema 2 name contents by digests, which decide where both headers have them.  Else
names do: everything that both say must be the same.
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


def one_dictionary(first: AttributionGraph, second: AttributionGraph) -> bool:
    """Whether features are the same by their numbers.

    Neurons are if the model is; a dictionary is of its features wherever it is used, as in a base
    model and its chat model.  One that is unknown is never the same as another.
    """
    one, other = first.provenance, second.provenance
    if UNKNOWN in (one.dictionary.name, other.dictionary.name):
        return False
    if NEURONS in (one.dictionary.kind, other.dictionary.kind):
        return one.dictionary == other.dictionary and one_source(one.model, other.model)
    return one_source(one.dictionary, other.dictionary)


def one_source(
    first: ModelIdentity | DictionaryIdentity, second: ModelIdentity | DictionaryIdentity
) -> bool:
    """Whether two headers name one model, or one dictionary."""
    if first.fingerprint is not None and second.fingerprint is not None:
        return first.fingerprint == second.fingerprint
    return _named(first) == _named(second)


def one_vocabulary(first: Provenance, second: Provenance) -> bool:
    """Whether an id is the same token in both.

    Where a header does not name its vocabulary, one model has one; and else the prompts tell: of
    the texts that are one token in each, all have the same id in both, and there are some.
    """
    one, other = first.model, second.model
    if one.vocabulary is not None and other.vocabulary is not None:
        return one.vocabulary == other.vocabulary
    if one.name != UNKNOWN and one_source(one, other):
        return True
    known = _only_entries(first)
    same = [known[text] == entry for text, entry in _only_entries(second).items() if text in known]
    return bool(same) and all(same)


def token_keys(
    first: Provenance, second: Provenance
) -> tuple[tuple[int, ...], tuple[int, ...]] | tuple[tuple[str, ...], tuple[str, ...]]:
    """What tells the tokens of two prompts apart: ids of one vocabulary, else their texts.

    Several tokens of a byte-level vocabulary may be written alike.  A graph of another program may
    lack some ids.
    """
    ids = first.token_ids, second.token_ids
    if one_vocabulary(first, second) and min([0, *ids[0], *ids[1]]) == 0:
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
    return tuple(map(_named, about))


def _named(source: ModelIdentity | DictionaryIdentity) -> dict[str, Any]:
    """What headers of schema 1 say as well."""
    return source.model_dump(exclude={"fingerprint", "vocabulary", "documents"})


def _only_entries(header: Provenance) -> dict[str, int]:
    """Texts that are one token of the prompt, whose id is known, and that id."""
    entries: dict[str, set[int]] = {}
    for text, entry in zip(header.tokens, header.token_ids, strict=True):
        entries.setdefault(text, set()).add(entry)
    return {
        text: next(iter(ids)) for text, ids in entries.items() if len(ids) == 1 and -1 not in ids
    }
