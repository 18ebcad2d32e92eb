"""Origins: the model and dictionary of a graph, and what tells two graphs apart."""

from __future__ import annotations

from graphs.core.graph import AttributionGraph
from viz.text.audited import differing_parts
from viz.text.words import short

_LONGEST = 40  # characters of a name


def origin(graph: AttributionGraph) -> str:
    """Model and dictionary."""
    return " · ".join(origins(graph))


def origins(graph: AttributionGraph) -> tuple[str, str]:
    """Names of the model and of the dictionary."""
    header = graph.provenance
    kind, name = header.dictionary.kind, header.dictionary.name
    dictionary = name if kind in name else f"{kind} {name}"
    return short(header.model.name, _LONGEST), short(dictionary, 2 * _LONGEST)


def names_apart(first: AttributionGraph, second: AttributionGraph) -> tuple[str, str]:
    """Of each graph what the other has not: the model, the dictionary, words of the prompt."""
    pairs = [
        (one, other)
        for one, other in zip(origins(first), origins(second), strict=True)
        if one != other
    ]
    if first.provenance.prompt != second.provenance.prompt:
        pairs.append(differing_parts(first.provenance.prompt, second.provenance.prompt))
    if not pairs:
        return "the first graph", "the second graph"
    one, other = zip(*pairs, strict=True)
    return " · ".join(one), " · ".join(other)
