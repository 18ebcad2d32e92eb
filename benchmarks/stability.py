"""What stays of a graph when the dictionary's L0 changes and nothing else does?

    python benchmarks/stability.py --dictionaries FOLDER --out benchmarks/results/stability.md

Per-layer transcoders of one model with different numbers of active features (`--l0`), trained alike
into FOLDER/MODEL/per-layer-L0 unless they are there.  Each known circuit is traced with both, and
`graphs.stability` says of either graph what stays in the other: share of influence at the features
that stay, beside the null of random features at the same layer and position.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import fmean

import torch
from atlas import SETTINGS, trained_transcoders
from faithfulness import parser, show

import graphs
from circuits.atlas.known import known_circuits
from circuits.features.files.reading import read_transcoders
from circuits.model.subject import read_subject
from circuits.pipe import trace
from circuits.training.settings import Kind
from graphs import AttributionGraph, NodeKind
from graphs.comparison.stability import StabilitySettings

THRESHOLDS = StabilitySettings(node_thresholds=(0.8,), edge_thresholds=(0.98,))  # the graph's own


def traced(name: str, l0: float, arguments: argparse.Namespace) -> list[AttributionGraph]:
    """Graphs of all prompts with the transcoders of one L0, which are trained if missing."""
    subject = read_subject(name)
    folder = arguments.dictionaries / name / f"{Kind.PER_LAYER}-{l0:g}"
    settings = replace(SETTINGS[name], kind=Kind.PER_LAYER, steps=arguments.steps, l0=l0)
    source = read_transcoders(str(trained_transcoders(name, settings, folder)))
    asked = known_circuits()[: arguments.prompts]
    return [trace(one.prompt, subject, source) for one in asked]


def row(own: list[AttributionGraph], other: list[AttributionGraph], cells: str) -> str:
    """What of one dictionary's graphs stays in another's: one line of the table."""
    shares: list[tuple[float, float, float, float]] = []
    for graph, against in zip(own, other, strict=True):
        found = graphs.stability(graph, against=[against], settings=THRESHOLDS)
        one = next(one for one in found.variations if one.kind == "dictionaries")
        core = found.classes("dictionaries")[0]
        judged = sum(count is not None for count in one.nodes)
        shares.append((judged, core.nodes, core.node_influence, one.null.mean))
    judged, stay, share, null = map(fmean, zip(*shares, strict=True))
    l0 = fmean(graph.nodes.is_kind(NodeKind.FEATURE).sum() for graph in own)
    return f"| {cells} | {l0:.0f} | {judged:.0f} | {stay:.0f} | {share:.1%} | {null:.1%} |"


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(models=["atlas-small"])
    options.add_argument("--dictionaries", type=Path, required=True)
    options.add_argument("--prompts", type=int, default=12)
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--l0", type=float, nargs=2, default=[12.0, 36.0])
    arguments = options.parse_args()
    lines = [
        f"What stays with another L0, means over the first {arguments.prompts} known circuits, "
        f"{date.today():%Y-%m-%d}, {platform.machine()}, torch {torch.__version__}.",
        "",
        "| model | L0 | other L0 | active features | features of the pruned graph | that stay | "
        "their influence | null |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in arguments.models:
        first, second = (traced(name, l0, arguments) for l0 in arguments.l0)
        one, two = (f"{l0:g}" for l0 in arguments.l0)
        lines.append(row(first, second, f"{name} | {one} | {two}"))
        lines.append(row(second, first, f"{name} | {two} | {one}"))
    show(lines, arguments.out)


if __name__ == "__main__":
    main()
