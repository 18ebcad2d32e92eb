"""Comparison over many prompts: two models, or two dictionaries of one, on the same prompts.

    score = mean over prompts of the score of the two graphs of a prompt
    null  = the same mean with the second model's graphs permuted, so that no graph is paired with
            one of its own prompt

Any two graphs of two models have something in common.  What a score has beyond this null is
specific to the prompt.  Scores are those of `graphs.compare` for one dictionary, else those of
`graphs.correspond`.

Traits describe each graph by itself: the number of features, their mean relative depth (0 the first
layer, 1 the last, by influence), the mean number of edges on paths from tokens to predictions, and
the share of influence over a single edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.flow import path_lengths
from graphs.analysis.influence import influence
from graphs.comparison.compare import Comparison, Score, compare
from graphs.comparison.correspond import Correspondence, CorrespondSettings, correspond
from graphs.comparison.evidence import Profiles, mean_depth
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.identity import same_dictionary
from graphs.core.nodes import NodeKind

SHUFFLES = 20
SAMPLES = 1000  # bootstrap samples of prompts


@dataclass(frozen=True, repr=False)
class PromptSetComparison(Brief):
    """Scores and traits of two models over many prompts, by name."""

    scores: dict[str, Score]  # mean over prompts; the null is from shuffled prompts
    per_prompt: dict[str, Float[ndarray, " prompt"]]  # nan if a pair has too little to compare
    traits: dict[str, Float[ndarray, "prompt 2"]]  # of both graphs of each prompt


def traits(graph: AttributionGraph) -> dict[str, float]:
    """Traits of a graph, by name; nan if it has no features or no path."""
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    lengths = path_lengths(graph)
    reached = float(lengths.sum())
    edges = np.arange(1, len(lengths) + 1)
    return {
        "features": float(len(rows)),
        "depth": mean_depth(graph, rows, influence(graph)[rows]),
        "edges": float(edges @ lengths) / reached if reached else float("nan"),
        "direct": float(lengths[0]) / reached if reached else float("nan"),
    }


def interval(
    values: Float[ndarray, " prompt"], level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Confidence interval of the mean over prompts (percentile bootstrap); nan if unknown."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).choice(known, (SAMPLES, len(known)))
    low, high = np.quantile(drawn.mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare_prompt_sets(
    first: Sequence[AttributionGraph],
    second: Sequence[AttributionGraph],
    settings: CorrespondSettings | None = None,
    profiles: Profiles | None = None,
    shuffles: int = SHUFFLES,
) -> PromptSetComparison:
    """Compare the two graphs of each prompt, with a null from graphs of different prompts.

    The graphs of a prompt are at the same place in both lists.  Raises ValueError for lists of
    different lengths or without graphs, and for fewer than two prompts with shuffles.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"Expected two lists of the same length, got {len(first)} and {len(second)} graphs."
        )
    if shuffles and len(first) < 2:
        raise ValueError("Expected at least two prompts to shuffle, got one.")
    chosen = settings or CorrespondSettings()
    without_null = CorrespondSettings(chosen.weights, chosen.min_similarity, permutations=0)
    known: dict[tuple[int, int], dict[str, float]] = {}

    def pair(one: int, other: int) -> dict[str, float]:
        if (one, other) not in known:
            known[one, other] = _scores(first[one], second[other], without_null, profiles)
        return known[one, other]

    def means(order: Sequence[int]) -> dict[str, float]:
        found = [pair(one, other) for one, other in enumerate(order)]
        return {name: known_mean(np.array([row[name] for row in found])) for name in found[0]}

    values = means(range(len(first)))
    null = [means(order) for order in _derangements(len(first), shuffles, chosen.seed)]
    return PromptSetComparison(
        scores={
            name: Score(value, tuple(sorted(sample[name] for sample in null)))
            for name, value in values.items()
        },
        per_prompt={
            name: np.array([pair(place, place)[name] for place in range(len(first))])
            for name in values
        },
        traits=_traits(first, second),
    )


def _traits(
    first: Sequence[AttributionGraph], second: Sequence[AttributionGraph]
) -> dict[str, Float[ndarray, "prompt 2"]]:
    both = [[traits(one), traits(other)] for one, other in zip(first, second, strict=True)]
    return {name: np.array([[side[name] for side in pair] for pair in both]) for name in both[0][0]}


def _scores(
    first: AttributionGraph,
    second: AttributionGraph,
    settings: CorrespondSettings,
    profiles: Profiles | None,
) -> dict[str, float]:
    if same_dictionary(first, second):
        return _compared(compare(first, second, permutations=0))
    return _corresponding(correspond(first, second, settings, profiles))


def _compared(found: Comparison) -> dict[str, float]:
    return {
        "features": found.features.value,
        "edges": found.edges.value,
        "ranks": found.ranks.value,
    }


def _corresponding(found: Correspondence) -> dict[str, float]:
    return {
        "matched": found.matched.value,
        "alike": found.matched_weighted.value,
        "edges": found.comparison.edges.value,
        "ranks": found.comparison.ranks.value,
    }


def known_mean(values: Float[ndarray, " prompt"]) -> float:
    """Mean of the values that are not nan; nan if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _derangements(count: int, shuffles: int, seed: int) -> Iterator[list[int]]:
    """Random orders without a fixed point."""
    rng = np.random.default_rng(seed)
    for _ in range(shuffles):
        cycle: Int[ndarray, " prompt"] = rng.permutation(count)
        order = np.empty(count, dtype=np.int64)
        order[cycle] = np.roll(cycle, 1)
        yield order.tolist()
