"""What attention costs: heads of edges, scores and their pairs, beside the trace itself.

    python benchmarks/attention.py --out benchmarks/results/attention.md

Each number is the least of several runs, in seconds, with model and recording loaded and sources
gathered, as for further questions about a graph.  Gemma's graphs are of its neurons, pruned to 300
nodes.  Pairs are also searched among random vectors of its head's width, as many as components of a
longer prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from faithfulness import parser, show
from speed import conditions, matrix_product_rate

import graphs
from circuits.attention.entries import attention_entries
from circuits.attention.head_paths import head_paths
from circuits.attention.heads import heads
from circuits.attention.scores import attention_score, score_pairs
from circuits.attention.strongest_pairs import strongest_pairs
from circuits.features.files.source import SourceChoice, read_source
from circuits.interventions.experiment import prepare
from circuits.model.prompt import read_prompt
from circuits.model.subject import read_subject
from circuits.pipe import trace
from graphs import AttributionGraph, PruneSettings

NODES, RUNS = 300, 5
LONG = (
    "Paris is the capital of France and London is the capital of England. Berlin is the capital of "
    "Germany, and Madrid is the capital of Spain. The Eiffel Tower is in the city of"
)
CASES = {
    "atlas-large": ("The capital of the state containing Dallas is",),
    "gemma-3-270m": ("The Eiffel Tower is in the city of", LONG),
}
COMPONENTS = (10**4, 10**5)


def least(work: Callable[[], Any], runs: int = RUNS) -> float:
    """Seconds of the fastest run."""
    seconds: list[float] = []
    for _ in range(runs):
        start = perf_counter()
        work()
        seconds.append(perf_counter() - start)
    return min(seconds)


def pruned(graph: AttributionGraph) -> AttributionGraph:
    """The graph as it is pruned by default, or further, to so many nodes."""
    for threshold in np.arange(0.8, 0.1, -0.02):
        small = graphs.prune(graph, PruneSettings(node_threshold=float(threshold)))
        if len(small) <= NODES:
            return small
    raise AssertionError("no threshold leaves so few nodes")


def row(name: str, text: str) -> str:
    """One line of the table."""
    subject = read_subject(name)
    source = read_source(subject, SourceChoice())
    prompt = read_prompt(text, subject.tokenizer)
    graph = trace(prompt, subject, source)
    small = pruned(graph)
    experiment = prepare(small, subject, source)
    entries = attention_entries(experiment, int(small.target_rows()[0]))
    layer, head, query, key = (
        int(column[0]) for column in (entries.layer, entries.head, entries.query, entries.key)
    )
    found = heads(experiment)
    edge = int(np.abs(found.parts).sum((1, 2)).argmax())
    ends = int(found.source[edge]), int(found.target[edge])
    place = (experiment, layer, head, query, key)
    seconds = [
        least(lambda: trace(prompt, subject, source), 2),
        least(lambda: heads(experiment)),
        least(lambda: head_paths(experiment, *ends)),
        least(lambda: attention_entries(experiment, ends[1])),
        least(lambda: attention_score(*place)),
        least(lambda: score_pairs(*place)),
    ]
    cells = [name, len(prompt), len(small), f"{small.weights.nnz:,}", f"{found.miss:.1e}"]
    cells += [f"{one:.3f}" for one in seconds]
    return f"| {' | '.join(map(str, [*cells, len(attention_score(*place).nodes)]))} |"


def pairs(count: int, width: int = 256) -> str:
    """Seconds of a search among random vectors whose lengths are spread as components' are."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(width, count, generator=generator)
        * torch.rand(count, generator=generator).pow(8)
        for _ in range(2)
    )
    return f"| {count:,} | {least(lambda: strongest_pairs(left, right, 20), 3):.2f} |"


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(models=[*CASES])
    arguments = options.parse_args()
    show(
        [
            f"{conditions()} · {torch.get_num_threads()} threads, "
            f"{matrix_product_rate() / 1e9:.0f} GFLOP/s in float32 products · seconds",
            "",
            "| model | tokens | nodes | edges | parts miss | trace | heads of all edges | "
            "paths of one | entries | score, both sides | pairs | components |",
            "|---|" + "--:|" * 11,
            *(row(name, text) for name in arguments.models for text in CASES[name]),
            "",
            "| random vectors on each side | 20 strongest pairs |",
            "|--:|--:|",
            *map(pairs, COMPONENTS),
        ],
        arguments.out,
    )


if __name__ == "__main__":
    main()
