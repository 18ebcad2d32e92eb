"""The command that compares two graphs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import graphs
from graphs.comparison.many_prompts import SHUFFLES
from headwater.arguments.files import file_option
from headwater.arguments.options import MOST_DRAWN, AsJson
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.comparing import Comparison, ModelComparison, PromptComparison, compared, remarks_on
from headwater.graph import Graph
from headwater.graph_folders import compare_folders, finite, score_numbers
from headwater.opened import open_graph
from headwater.outputs.places import Kind, graph_files, output_to, require_outputs
from headwater.terminal.printing import output, print_json, print_line, remark

CORRESPOND = graphs.CorrespondSettings()  # defaults, so that they cannot differ
PLANS = 10  # transport plans for the null; each takes as long as the rest of the comparison


@app.command("compare")
def compare_command(
    first: Annotated[Path, typer.Argument(help="Graph file, or a folder of graphs.")],
    second: Annotated[
        Path, typer.Argument(help="What to compare it with; graphs in folders are paired by name.")
    ],
    profile: Annotated[
        list[Path] | None,
        typer.Option(help="Profiles of both dictionaries, in the order of the graphs."),
    ] = None,
    least: Annotated[
        float, typer.Option(help="Least similarity at which features of two dictionaries match.")
    ] = CORRESPOND.min_similarity,
    permutations: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MOST_DRAWN,
            help="Random exchanges (for folders: orders) that give the null.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random exchanges.")] = 0,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="For two models: also find a transport plan of influence."),
    ] = False,
    html: Annotated[
        Path | None, file_option("--out", "--html", help="Write a page with figures here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two graphs, of two prompts or of two models, and test their overlap against a null.

    Two folders are compared prompt by prompt; graphs of different prompts give the null.
    """
    page = output_to(html, Kind.PAGE)
    require_outputs(page, *graph_files(first, second), *(profile or ()))
    if profile is not None and len(profile) != 2:
        raise UsageError(f"Expected --profile twice or not at all, got it {len(profile)} times.")
    if not 0.0 <= least < 1.0:
        raise UsageError(f"--least must be from 0 to below 1, got {least}.")
    settings = graphs.CorrespondSettings(
        min_similarity=least, plans=PLANS if plan else 0, seed=seed
    )
    read = [graphs.read_profile(path) for path in profile or ()]
    profiles = (read[0], read[1]) if read else None
    if first.is_dir() or second.is_dir():
        if plan:
            raise UsageError("--plan is for two graphs, not for folders: leave it out.")
        shuffles = SHUFFLES if permutations is None else permutations
        found, text = compare_folders(first, second, settings, profiles, shuffles, html)
    else:
        read_both = open_graph(first), open_graph(second)
        one, other = (Graph.of(one.graph, one.annotations) for one in read_both)
        for sentence in remarks_on(one, other):
            remark(sentence)
        pair = compared(one, other, profiles, permutations, settings)
        if html is not None:
            pair.save(html)
        found, text = _numbers(pair), pair.text()
    if as_json:
        print_json({**found, "page": None if html is None else str(html)})
        return
    output.print(text)
    if html is not None:
        print_line(f"page: {html}")


def _numbers(pair: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    match pair:
        case PromptComparison():
            numbers = _compared(pair.first, pair.second, pair.found)
            return numbers | {"heads": _heads(pair)}
        case ModelComparison():
            return _corresponding(pair)
        case _:
            raise TypeError(type(pair).__name__)


def _compared(
    one: graphs.AttributionGraph, other: graphs.AttributionGraph, found: graphs.Comparison
) -> dict[str, Any]:
    pairs = zip(found.match.first, found.match.second, found.influence, strict=True)
    return {
        "positions": found.positions.tolist(),
        "scores": {
            "features": score_numbers(found.features),
            "edges": score_numbers(found.edges),
            "ranks": score_numbers(found.ranks),
        },
        "both": [
            {
                "first": str(one.nodes[int(row)]),
                "second": str(other.nodes[int(partner)]),
                "influence": shares.tolist(),
            }
            for row, partner, shares in pairs
        ],
        "only_first": [str(one.nodes[int(row)]) for row in found.only_first],
        "only_second": [str(other.nodes[int(row)]) for row in found.only_second],
    }


def _heads(pair: PromptComparison) -> dict[str, Any] | None:
    heads = pair.heads
    if heads is None:
        return None
    changed = heads.changed(heads.first.size)
    return {
        "overlap": score_numbers(heads.overlap),
        "changed": [
            {"layer": layer, "head": head, "pos": pos, "influence": [before, after]}
            for layer, head, pos, before, after in changed
        ],
    }


def _corresponding(pair: ModelComparison) -> dict[str, Any]:
    one, other, found, paths = pair.first, pair.second, pair.found, pair.paths
    compared = _compared(one, other, found.comparison)
    similarity = {
        (int(row), int(partner)): value
        for (row, partner), value in zip(found.pairs, found.similarity.tolist(), strict=True)
    }
    match = found.comparison.match
    for entry, row, partner in zip(compared["both"], match.first, match.second, strict=True):
        entry["alike"] = similarity.get((int(row), int(partner)))
    compared["scores"] |= {
        "matched": score_numbers(found.matched),
        "alike": score_numbers(found.matched_weighted),
        "paths": score_numbers(paths),
    }
    if found.transported is not None:
        mass, agreement = map(score_numbers, found.transported)
        compared["scores"] |= {"moved": mass, "moved_alike": agreement}
    return compared | {
        "evidence": [
            {name: finite(value) for name, value in asdict(kind).items()} for kind in found.evidence
        ],
        "shift": found.shift,
        "shift_curve": found.shift_curve().tolist(),
        "concepts": [asdict(concept) for concept in pair.concepts],
    }
