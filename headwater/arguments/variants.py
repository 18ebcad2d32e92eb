"""Variants of a graph as they are given: prompts to trace, graphs, and files.

Nothing here needs torch: what traces prompts is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import graphs
from graphs.comparison.variations import pruned_with
from headwater.graph import as_graph

GRAPH_SUFFIXES = (".safetensors", ".json", ".json.gz", ".pt")
Graphs = Iterable[graphs.AttributionGraph]


def paraphrased(
    given: Sequence[object], trace: Callable[[list[str]], Graphs]
) -> list[graphs.AttributionGraph]:
    """The graphs of paraphrases, in order; `trace` is asked once, and only if some are prompts."""
    texts = [one for one in given if isinstance(one, str) and is_prompt(one)]
    traced = iter(trace(texts) if texts else ())
    return [next(traced) if is_prompt(one) else as_graph(one) for one in given]


def is_prompt(given: object) -> bool:
    """Whether a paraphrase is a text to trace, and not a graph or its file."""
    return isinstance(given, str) and not given.lower().endswith(GRAPH_SUFFIXES)


def remarks_on(graph: graphs.AttributionGraph) -> tuple[str, ...]:
    """What to know of a graph before its stability is measured."""
    if pruned_with(graph) is None:
        return ()
    return (
        "The graph is pruned already: it is taken as it is, thresholds are shares of what is left, "
        "and the null knows none of the pruned nodes.",
    )
