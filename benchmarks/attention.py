"""What attention costs: heads of edges, scores and their pairs, beside the trace itself.

    python benchmarks/attention.py --out benchmarks/results/attention.md

Each number is the least of several runs, in seconds, with model and recording loaded and sources
gathered, as for further questions about a graph.  Gemma's graphs are of its neurons, pruned to 300
nodes; head nodes are those of the whole graphs.  Pairs are also searched among random vectors of
its head's width, as many as components of a longer prompt.

The last table removes components from the residual that enters a layer, one at a time, with the
layer's norms running, and correlates the ranks of measured changes of a key's score with parts of
it as they are with norms held, and with norms running.  Heads are those that write most.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from faithfulness import parser, show
from scipy.stats import spearmanr
from speed import conditions, matrix_product_rate

import graphs
from circuits.attention.entries import attention_entries
from circuits.attention.head_nodes import with_head_nodes
from circuits.attention.head_paths import head_paths
from circuits.attention.heads import heads
from circuits.attention.looks import looks
from circuits.attention.meetings import LayerMeeting
from circuits.attention.scores import attention_score, score_pairs
from circuits.attention.stationary import Slots, stages
from circuits.attention.strongest_pairs import strongest_pairs
from circuits.features.files.source import SourceChoice, read_source
from circuits.interventions.experiment import Experiment, prepare
from circuits.model.prompt import read_prompt
from circuits.model.subject import read_subject
from circuits.pipe import trace
from graphs import AttributionGraph, PruneSettings
from graphs.core.attended import Look

NODES, RUNS = 300, 5
HEADS, REMOVED = 6, 100  # of each model, and components removed for each
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
    whole, experiment = (prepare(one, subject, source) for one in (graph, small))
    assert whole.sources is not None  # gathered, as they are for what follows
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
        least(lambda: looks(experiment), 2),
        least(lambda: with_head_nodes(whole, n_looks=0), 2),
        least(lambda: with_head_nodes(whole, scores=True, n_looks=0), 1),
    ]
    cells = [name, len(prompt), len(small), f"{small.weights.nnz:,}", f"{found.miss:.1e}"]
    cells += [f"{one:.3f}" for one in seconds]
    return f"| {' | '.join(map(str, [*cells, len(attention_score(*place).nodes)]))} |"


def removed(name: str, text: str) -> list[str]:
    """Lines of the table of what removing components does to scores."""
    subject = read_subject(name)
    source = read_source(subject, SourceChoice())
    graph = trace(read_prompt(text, subject.tokenizer), subject, source)
    experiment = prepare(pruned(graph), subject, source)
    lines: list[str] = []
    for look in looks(experiment, 40).looks:
        if look.layer == 0:
            continue  # there are tokens alone
        score = attention_score(experiment, look.layer, look.head, look.query, look.key)
        chosen = np.argsort(-np.abs(score.score.at_query.weight + score.score.at_keys.weight))
        chosen = np.sort(chosen[:REMOVED])
        measured = _measured(experiment, look, chosen)
        cells: list[float] = []
        for which in ("weight", "running"):
            sides = score.score.at_query, score.score.at_keys
            query, key = (getattr(side, which)[chosen] for side in sides)
            cells.append(float(np.asarray(spearmanr(query + key, measured).statistic)))
        numbers = " | ".join(f"{one:.3f}" for one in cells)
        lines.append(f"| {name} | {look.layer}.{look.head} | {len(chosen)} | {numbers} |")
        if len(lines) == HEADS:
            break
    return lines


def _measured(experiment: Experiment, look: Look, chosen: np.ndarray) -> np.ndarray:
    """What the score of a look's key loses without each of these components."""
    local, sources = experiment.local, experiment.sources
    column = torch.full((len(sources.nodes),), -1)
    column[torch.from_numpy(chosen)] = torch.arange(len(chosen))
    pos = sources.nodes.pos[chosen].astype(np.int64)
    apart = Slots(np.arange(len(chosen)), pos, len(chosen), column)
    every = stages(local, sources, apart, experiment.attention)
    components = next(stage.before for layer, stage in enumerate(every) if layer == look.layer)
    meeting = LayerMeeting(local.frozen, local.recording, look.layer)

    def score(residual: torch.Tensor) -> float:
        return float(meeting.running(residual).scores[0, look.head, look.query, look.key])

    whole = score(meeting.residual)
    return np.array([whole - score(meeting.residual - one) for one in components])


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
            "paths of one | entries | score, both sides | pairs | 24 looks | head nodes | "
            "and their scores | components |",
            "|---|" + "--:|" * 14,
            *(row(name, text) for name in arguments.models for text in CASES[name]),
            "",
            "| random vectors on each side | 20 strongest pairs |",
            "|--:|--:|",
            *map(pairs, COMPONENTS),
            "",
            "| model | head | components | norms held | norms running |",
            "|---|---|--:|--:|--:|",
            *(line for name in arguments.models for line in removed(name, CASES[name][0])),
        ],
        arguments.out,
    )


if __name__ == "__main__":
    main()
