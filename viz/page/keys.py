"""Keys: which graphs a page may share annotations and labels between."""

from __future__ import annotations

import hashlib
import json

from graphs.core.graph import AttributionGraph
from graphs.core.identity import feature_numbering


def graph_key(graph: AttributionGraph) -> str:
    """Key that is equal for graphs whose annotations are interchangeable."""
    header = graph.provenance
    parts = (header.model.name, header.dictionary.name, header.token_ids, header.tokens)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def dictionary_key(graph: AttributionGraph) -> str | None:
    """Key that is equal for graphs of one dictionary, which share labels; None if unknown."""
    numbering = feature_numbering(graph)
    if numbering is None:
        return None
    parts = [*numbering, *([None] * (2 - len(numbering)))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
