"""The command that finds steps of one graph which another skips: hops."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import graphs
import viz
from headwater.arguments.options import MOST_DRAWN, AsJson, Device, GraphPath, TracedModel
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.comparing import remarks_on
from headwater.graph import Graph
from headwater.graph_folders import finite, score_numbers
from headwater.opened import open_graph
from headwater.skipping import Hops, hops
from headwater.terminal.printing import output, print_json, remark

CORRESPOND = graphs.CorrespondSettings()  # defaults, so that they cannot differ
SIDES = ("first", "second")


@app.command("hops")
def hops_command(
    graph: GraphPath,
    other: Annotated[
        Path,
        typer.Argument(help="Graph of the same prompt and model, traced with another dictionary."),
    ],
    top: Annotated[int, typer.Option(min=1, max=100, help="Paths of either graph to show.")] = 5,
    least: Annotated[
        float, typer.Option(help="Least similarity at which features of two dictionaries match.")
    ] = CORRESPOND.min_similarity,
    permutations: Annotated[
        int, typer.Option(min=0, max=MOST_DRAWN, help="Random exchanges that give the null.")
    ] = CORRESPOND.permutations,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random exchanges.")] = 0,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Test the first ten in the model: how much of the effect goes through the step.",
        ),
    ] = False,
    model: TracedModel = None,
    transcoders: Annotated[
        list[str] | None,
        typer.Option(help="Transcoders of both graphs, in their order; default: those they name."),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Find two-step paths of one graph that are a single edge in another of the same prompt."""
    if not 0.0 <= least < 1.0:
        raise UsageError(f"--least must be from 0 to below 1, got {least}.")
    if transcoders is not None and len(transcoders) != 2:
        raise UsageError(
            f"Expected --transcoders twice or not at all, got it {len(transcoders)} times."
        )
    settings = graphs.CorrespondSettings(min_similarity=least, permutations=permutations, seed=seed)
    read = [open_graph(path) for path in (graph, other)]
    pair = (
        Graph.of(read[0].graph, read[0].annotations),
        Graph.of(read[1].graph, read[1].annotations),
    )
    found = hops(
        *pair,
        measure=measure,
        model=model,
        transcoders=transcoders or (None, None),
        settings=settings,
        device=device,
    )
    for sentence in remarks_on(*pair):
        remark(sentence)
    if as_json:
        print_json({name: _numbers(found, side, top) for side, name in enumerate(SIDES)})
        return
    output.print(viz.skipped_text(*pair, found, top, found.measured))


def _numbers(found: Hops, side: int, top: int) -> dict[str, Any]:
    """What one graph's steps are in the other, as JSON."""
    own, other = found.pair[side], found.pair[1 - side]
    skips = (found.first, found.second)[side]
    measured = () if found.measured is None else found.measured[side]
    null = score_numbers(skips.skipped)
    return {
        "judged": skips.judged,
        "lost": skips.lost,
        "skipped": null["value"],
        "null": null["null"],
        "absent": skips.absent,
        "hops": [
            {
                **asdict(hop),
                "nodes": [str(own.nodes[row]) for row in hop.nodes],
                "ends": [str(other.nodes[row]) for row in hop.ends],
                "between": [str(other.nodes[row]) for row in hop.between],
                "measured": _mediation(measured[place] if place < len(measured) else None),
            }
            for place, hop in enumerate(skips.hops[:top])
        ],
    }


def _mediation(found: graphs.Mediation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    shares = {"share": found.share, "predicted_share": found.predicted_share}
    return {name: finite(value) for name, value in {**asdict(found), **shares}.items()}
