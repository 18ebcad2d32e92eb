"""The summary of a graph that commands print."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

import graphs
import viz
from headwater.terminal.printing import output, print_json, print_line


def show_summary(
    graph: graphs.AttributionGraph,
    as_json: bool,
    files: dict[str, str],
    per_layer: int = 3,
    scores: dict[str, graphs.Scores] | None = None,
    annotations: graphs.Annotations = graphs.NO_ANNOTATIONS,
) -> None:
    """Print a graph's summary, scores of its parts and the files that were written."""
    summary = graphs.summarise(graph, per_layer, annotations)
    if as_json:
        parts = {name: asdict(found) for name, found in (scores or {}).items()}
        print_json({**summary.as_json(), "files": files, "scores_by_convention": parts})
        return
    output.print(viz.summary_tables(summary))
    for name, found in (scores or {}).items():
        print_line(
            f"{name}: replacement {found.replacement:.3f}, completeness {found.completeness:.3f}"
        )
    for name, path in files.items():
        print_line(f"{name}: {path}")


def scores_of_part(
    whole: graphs.AttributionGraph, part: graphs.AttributionGraph
) -> dict[str, graphs.Scores]:
    """Scores of the full graph and of a pruned one, in both conventions."""
    kept = np.zeros(len(whole), dtype=bool)
    kept[[whole.find(node) for node in part.nodes]] = True
    return {
        "full graph": graphs.scores(whole),
        "kept nodes, the rest absorbed into errors": graphs.scores(whole, kept, "absorbed"),
        "kept nodes, the rest left out": graphs.scores(whole, kept, "renormalised"),
    }
