"""The command that compares two graphs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import graphs
import viz
from circuits.cli.app import app, output, plain_errors, print_json
from circuits.cli.opened import open_graph
from circuits.cli.options import AsJson, GraphPath
from circuits.cli.reading import grouped
from circuits.cli.usage import UsageError, require_places

CORRESPOND = graphs.CorrespondSettings()  # defaults, so that they cannot differ
PLANS = 10  # transport plans that tell what chance gives; each takes as long as all else


@app.command("compare")
@plain_errors
def compare_command(
    first: GraphPath,
    second: Annotated[Path, typer.Argument(help="Graph file to compare it with.")],
    profile: Annotated[
        list[Path] | None,
        typer.Option(help="Profiles of both dictionaries, in the order of the graphs."),
    ] = None,
    least: Annotated[
        float, typer.Option(help="How alike features of two dictionaries must be to be matched.")
    ] = CORRESPOND.least,
    permutations: Annotated[
        int | None, typer.Option(min=0, help="Random exchanges that tell what chance gives.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random exchanges.")] = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Of two models: also move influence as a transport plan.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with figures here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two graphs, of two prompts or of two models: what both have and what is chance."""
    require_places(html)
    pair = open_graph(first), open_graph(second)
    one, other = pair[0].graph, pair[1].graph
    if profile is not None and len(profile) != 2:
        raise UsageError(f"Expected --profile twice or not at all, got it {len(profile)} times.")
    if not 0.0 <= least < 1.0:
        raise UsageError(f"--least must be from 0 to below 1, got {least}.")
    if _one_dictionary(one, other):
        if profile is not None:
            raise UsageError(
                "Both graphs have features of one dictionary, which are matched by their numbers: "
                "leave out --profile."
            )
        count = graphs.PERMUTATIONS if permutations is None else permutations
        found = graphs.compare(one, other, permutations=count, seed=seed)
        said, text = _compared(one, other, found), viz.comparison_text(one, other, found)
        if html is not None:
            listed = graphs.concepts(one, other, found.match, _groups(*pair))
            viz.write_comparison(one, other, viz.comparison_scores(found), listed, html)
    else:
        settings = graphs.CorrespondSettings(
            least=least,
            permutations=CORRESPOND.permutations if permutations is None else permutations,
            plans=PLANS if plan else 0,
            seed=seed,
        )
        read = [graphs.read_profile(path) for path in profile or ()]
        found = graphs.correspond(one, other, settings, (read[0], read[1]) if read else None)
        groups = _groups(*pair)
        listed = graphs.concepts(one, other, found.comparison.match, groups)
        paths = graphs.path_overlap(one, other, found.comparison.match, found.by_chance, groups)
        said = _corresponding(one, other, found, listed, paths)
        text = viz.correspondence_text(one, other, found, listed, paths)
        if html is not None:
            scores = viz.correspondence_scores(found, paths)
            viz.write_comparison(one, other, scores, listed, html)
    if as_json:
        print_json({**said, "page": None if html is None else str(html)})
        return
    output.print(text)
    if html is not None:
        output.print(f"page: {html}", markup=False, soft_wrap=True)


def _groups(*pair: graphs.ReadGraph) -> tuple[graphs.Groups, graphs.Groups]:
    """A person's groups of both graphs, and automatic ones."""
    one, other = (grouped(read.graph, read.annotations).rows(read.graph) for read in pair)
    return one, other


def _one_dictionary(one: graphs.AttributionGraph, other: graphs.AttributionGraph) -> bool:
    """Whether features are the same by their numbers; neurons are if the model is."""
    first, second = one.provenance, other.provenance
    return first.dictionary == second.dictionary and first.model == second.model


def _compared(
    one: graphs.AttributionGraph, other: graphs.AttributionGraph, found: graphs.Comparison
) -> dict[str, Any]:
    pairs = zip(found.match.first, found.match.second, found.influence, strict=True)
    return {
        "positions": found.positions.tolist(),
        "scores": {
            "features": _score(found.features),
            "edges": _score(found.edges),
            "ranks": _score(found.ranks),
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
    likeness = {
        (int(row), int(partner)): value
        for (row, partner), value in zip(found.pairs, found.similarity.tolist(), strict=True)
    }
    match = found.comparison.match
    for entry, row, partner in zip(compared["both"], match.first, match.second, strict=True):
        entry["alike"] = likeness.get((int(row), int(partner)))
    compared["scores"] |= {
        "matched": _score(found.matched),
        "alike": _score(found.alike),
        "paths": _score(paths),
    }
    if found.moved is not None:
        mass, agreement = map(_score, found.moved)
        compared["scores"] |= {"moved": mass, "moved_alike": agreement}
    return compared | {
        "evidence": [
            {name: _finite(value) for name, value in asdict(kind).items()}
            for kind in found.witnesses
        ],
        "shift": found.shift,
        "shift_curve": found.shift_curve().tolist(),
        "concepts": [asdict(concept) for concept in concepts],
    }


def _score(score: graphs.Score) -> dict[str, Any]:
    null = [value for value in score.null if not np.isnan(value)]
    return {"value": _finite(score.value), "null": null, "chance": score.chance}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
