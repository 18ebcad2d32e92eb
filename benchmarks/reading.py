"""Reading graphs: seconds and memory of pruning, comparing, collapsing and listing paths.

    python benchmarks/reading.py --out benchmarks/results/reading.md

Graphs are random, with layers, positions and dense rows as in traced ones; each case runs in a
process of its own, without torch.  Limits: prune 60,000 nodes and 5 million edges in 3 s and 2 GB;
compare two graphs of 2,000 nodes in 5 s; collapse, and list the 10 strongest paths, in 1 s.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from watch import Watch, anonymous

from graphs.analysis.flow import inputs_to_targets
from graphs.analysis.paths import strongest_paths
from graphs.analysis.prune import prune
from graphs.comparison.compare import compare
from graphs.comparison.concepts import concepts, path_overlap
from graphs.comparison.correspond import correspond
from graphs.core.annotations import Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind, NodeTable
from graphs.core.provenance import DictionaryIdentity, ModelIdentity, Provenance, Target
from graphs.groups.collapse import collapse
from graphs.groups.grouping import find_groups, named_groups

N_LAYERS, N_POS, N_TARGETS = 26, 30, 10
CASES = (
    "prune",
    "compare by identity",
    "compare by evidence",
    "find groups",
    "collapse",
    "10 strongest paths",
)
LIMITS = {"prune": 3.0, "compare by identity": 5.0, "compare by evidence": 5.0}
LIMITS |= {"collapse": 1.0, "10 strongest paths": 1.0}


def random_graph(nodes: int, edges: int, seed: int) -> AttributionGraph:
    """Features at random layers and positions; the sizes of a row's weights differ widely."""
    rng = np.random.default_rng(seed)
    n_features = nodes - N_POS - N_TARGETS
    layer = np.sort(rng.integers(0, N_LAYERS, n_features))
    pos = rng.integers(1, N_POS, n_features)
    kind = np.r_[
        np.full(N_POS, NodeKind.TOKEN),
        np.full(n_features, NodeKind.FEATURE),
        np.full(N_TARGETS, NodeKind.LOGIT),
    ]
    first = np.searchsorted(layer, layer)  # features below a feature's layer
    below = N_POS + np.r_[first, np.full(N_TARGETS, n_features)]
    counts = np.minimum(below, rng.poisson(edges / (nodes - N_POS), len(below)))
    rows = np.repeat(N_POS + np.arange(len(below)), counts)
    columns = (rng.random(len(rows)) * np.repeat(below, counts)).astype(np.int64)
    weights = csr_array(
        (rng.standard_cauchy(len(rows)).astype(np.float32), (rows, columns)), shape=(nodes, nodes)
    )
    nan = np.full(nodes, np.nan)
    promoted = rng.integers(0, 5000, (n_features, 5))
    return AttributionGraph(
        nodes=NodeTable(
            kind=kind,
            layer=np.r_[np.full(N_POS, -1), layer, np.full(N_TARGETS, -1)],
            pos=np.r_[np.arange(N_POS), pos, np.full(N_TARGETS, N_POS - 1)],
            index=np.r_[np.arange(N_POS), np.arange(n_features), np.arange(N_TARGETS)],
            activation=nan,
            value=nan,
        ),
        weights=weights,
        seed=np.r_[np.zeros(nodes - N_TARGETS), np.full(N_TARGETS, 1 / N_TARGETS)],
        dropped=np.zeros(nodes),
        dropped_absolute=np.zeros(nodes),
        expanded=kind != NodeKind.TOKEN,
        provenance=Provenance(
            generator="benchmark",
            model=ModelIdentity(name="random", architecture="none", n_layers=N_LAYERS),
            dictionary=DictionaryIdentity(kind="random", name=f"random {seed}"),
            dtype="float32",
            prompt="",
            tokens=tuple(f" {word}" for word in range(N_POS)),
            token_ids=tuple(range(N_POS)),
            targets=tuple(
                Target(text=f" {rank}", token_id=rank, probability=1 / N_TARGETS)
                for rank in range(N_TARGETS)
            ),
        ),
        output_tokens={
            N_POS + row: tuple(f" t{token}" for token in tokens)
            for row, tokens in enumerate(promoted.tolist())
        },
    )


def automatic(graph: AttributionGraph) -> dict[str, np.ndarray]:
    """Groups as `headwater group` finds them."""
    return Annotations().with_automatic(named_groups(graph, find_groups(graph))).rows(graph)


def by_evidence(one: AttributionGraph, other: AttributionGraph) -> None:
    """Everything that `headwater compare` computes for two models."""
    found = correspond(one, other)
    groups = (automatic(one), automatic(other))
    match = found.comparison.match
    concepts(one, other, match, groups)
    path_overlap(one, other, match, found.null_matches, groups)


def measure(case: str) -> dict[str, float]:
    """Seconds of the faster of two runs, and memory above that of the graphs."""
    if case == "prune":
        made = (random_graph(60_000, 5_200_000, 0),)
    else:
        made = (random_graph(2_000, 110_000, 0), random_graph(2_000, 110_000, 1))
    groups = automatic(made[0]) if case == "collapse" else {}
    work = {
        "prune": lambda: prune(made[0]),
        "compare by identity": lambda: compare(made[0], made[-1]),
        "compare by evidence": lambda: by_evidence(made[0], made[-1]),
        "find groups": lambda: find_groups(made[0]),
        "collapse": lambda: collapse(made[0], groups),
        "10 strongest paths": lambda: strongest_paths(made[0], inputs_to_targets(made[0]), 10),
    }[case]
    seconds: list[float] = []
    before = anonymous()
    with Watch() as watch:
        for _ in range(2):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
    return {
        "nodes": len(made[0]),
        "edges": made[0].weights.nnz,
        "seconds": min(seconds),
        "before": before / 1e9,
        "peak": watch.peak / 1e9,
    }


def main() -> None:
    """Measure each case in its own process and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/reading.md"))
    parser.add_argument("--case", choices=CASES, help="measure one case here")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case)))
        return
    lines = [
        "# Reading graphs",
        "",
        f"{date.today()} · {os.cpu_count()} cores · Python {platform.python_version()}, "
        f"numpy {np.__version__}, random graphs",
        "",
        "| | nodes | edges | s | limit s | GB with the graphs | GB at the peak |",
        "|---|" + "--:|" * 6,
    ]
    for case in CASES:
        command = [sys.executable, __file__, "--case", case]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        cells = [
            case,
            f"{found['nodes']:,}",
            f"{found['edges']:,}",
            f"{found['seconds']:.2f}",
            f"{LIMITS[case]:.0f}" if case in LIMITS else "",
            f"{found['before']:.2f}",
            f"{found['peak']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
