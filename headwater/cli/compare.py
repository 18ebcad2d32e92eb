"""The command that compares two graphs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

import graphs
import viz
from headwater.arguments.options import MOST, MOST_DRAWN, AsJson
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.graph_folders import compare_folders, finite, refuse_profiles, score_numbers
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
    seed: Annotated[int, typer.Option(min=0, max=MOST, help="Seed of the random exchanges.")] = 0,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="For two models: also find a transport plan of influence."),
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--out", "--html", help="Write a page with figures here.")
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
        shuffles = graphs.SHUFFLES if permutations is None else permutations
        found, text = compare_folders(first, second, settings, profiles, shuffles, html)
    else:
        pair = open_graph(first), open_graph(second)
        _remark_pruned(pair)
        if graphs.same_dictionary(pair[0].graph, pair[1].graph):
            refuse_profiles(profiles)
            count = graphs.PERMUTATIONS if permutations is None else permutations
            found, text = _two_prompts(pair, count, seed, html)
        else:
            if permutations is not None:
                settings = replace(settings, permutations=permutations)
            found, text = _two_models(pair, settings, profiles, html)
    if as_json:
        print_json({**found, "page": None if html is None else str(html)})
        return
    output.print(text)
    if html is not None:
        print_line(f"page: {html}")


def _remark_pruned(pair: Pair) -> None:
    """Say so if one graph has been pruned and the other has not."""
    pruned = [one.graph.is_part for one in pair]
    if pruned[0] != pruned[1]:
        which = ("first", "second") if pruned[0] else ("second", "first")
        remark(
            f"The {which[0]} graph is pruned and the {which[1]} is not: what was pruned counts as "
            "missing, so prune both alike."
        )


Pair = tuple[graphs.ReadGraph, graphs.ReadGraph]
Answer = tuple[dict[str, Any], RenderableType]  # for machines and for people


def _two_prompts(pair: Pair, permutations: int, seed: int, html: Path | None) -> Answer:
    """Two graphs of one dictionary, matched by identity."""
    one, other = pair[0].graph, pair[1].graph
    found = graphs.compare(one, other, permutations=permutations, seed=seed)
    if html is not None:
        listed = graphs.concepts(one, other, found.match, _groups(*pair))
        viz.write_comparison(one, other, viz.comparison_scores(found), listed, html)
    return _compared(one, other, found), viz.comparison_text(one, other, found)


def _two_models(
    pair: Pair,
    settings: graphs.CorrespondSettings,
    profiles: tuple[graphs.Profile, graphs.Profile] | None,
    html: Path | None,
) -> Answer:
    """Two graphs whose features are matched by evidence."""
    one, other = pair[0].graph, pair[1].graph
    found = graphs.correspond(one, other, settings, profiles)
    groups = _groups(*pair)
    listed = graphs.concepts(one, other, found.comparison.match, groups)
    paths = graphs.path_overlap(one, other, found.comparison.match, found.null_matches, groups)
    if html is not None:
        scores = viz.correspondence_scores(found, paths)
        viz.write_comparison(one, other, scores, listed, html)
    text = viz.correspondence_text(one, other, found, listed, paths)
    return _corresponding(one, other, found, listed, paths), text


def _groups(*pair: graphs.ReadGraph) -> tuple[graphs.Groups, graphs.Groups]:
    """The groups of both graphs: those in their annotations, and automatic ones."""
    one, other = (
        graphs.with_groups(read.graph, read.annotations).rows(read.graph) for read in pair
    )
    return one, other


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


def _corresponding(
    one: graphs.AttributionGraph,
    other: graphs.AttributionGraph,
    found: graphs.Correspondence,
    concepts: list[graphs.Concept],
    paths: graphs.Score,
) -> dict[str, Any]:
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
        "concepts": [asdict(concept) for concept in concepts],
    }
