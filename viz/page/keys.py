"""Keys: which graphs share the labels that a person gives on their pages."""

from __future__ import annotations

import hashlib
import json

from graphs.core.graph import AttributionGraph
from graphs.core.identity import feature_numbering


def dictionary_key(graph: AttributionGraph) -> str | None:
    """Key that is equal for graphs of one dictionary, which share labels; None if unknown."""
    numbering = feature_numbering(graph)
    if numbering is None:
        return None
    parts = [*numbering, *([None] * (2 - len(numbering)))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
