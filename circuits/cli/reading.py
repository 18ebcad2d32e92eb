"""Commands that read graphs: paths, group, consensus, compare."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import graphs
import viz
from circuits.cli.app import app, output, plain_errors, print_json
from circuits.cli.options import AsJson, GraphPath
from circuits.cli.usage import UsageError, require_places

# Defaults come from the settings, so that they cannot differ.
GROUPING, CORRESPOND = graphs.GroupSettings(), graphs.CorrespondSettings()
PLANS = 10  # transport plans that tell what chance gives; each takes as long as all else
SELECTION = "a node, token:TEXT, logit:TEXT, a kind, layer:N or group:NAME"


@app.command("paths")
@plain_errors
def paths_command(
    graph: GraphPath,
    sources: Annotated[
        list[str] | None, typer.Option("--from", help=f"Where paths start: {SELECTION}.")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--to", help="Where they end; else all that is explained.")
    ] = None,
    through: Annotated[
        list[str] | None, typer.Option(help="What they pass; several in their order on the way.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many paths.")] = 10,
    as_json: AsJson = False,
) -> None:
    """List the strongest paths from tokens to predictions, and tell them in words."""
    read, annotations = _annotated(graph)
    ends = graphs.whole(read)
    groups = annotations.rows(read)

    def chosen(names: list[str] | None, otherwise: np.ndarray) -> np.ndarray:
        masks = [graphs.select(read, name, groups) for name in names or ()]
        return np.logical_or.reduce(masks) if masks else otherwise

    ends = graphs.Ends(
        chosen(sources, ends.sources),
        chosen(targets, ends.targets),
        tuple(graphs.select(read, name, groups) for name in through or ()),
    )
    found = graphs.strongest_paths(read, ends, k)
    if as_json:
        print_json(
            {
                "flow": found.flow,
                "paths": [
                    {
                        "nodes": [str(read.nodes[row]) for row in path.nodes],
                        "weights": path.weights,
                        "share": path.share,
                        "sign": path.sign,
                        "coverage": covered,
                        "story": viz.story(read, path.nodes, annotations),
                    }
                    for path, covered in zip(found.listed, found.coverage, strict=True)
                ],
            }
        )
        return
    output.print(viz.paths_text(read, found, annotations))


@app.command("group")
@plain_errors
def group_command(
    graph: GraphPath,
    tightness: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Similarity that features of a group have."),
    ] = GROUPING.tightness,
    save: Annotated[
        bool, typer.Option("--save", help="Write the groups into the annotations beside the graph.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Group features that play one role; a person's own groups stay as they are."""
    read, annotations = _annotated(graph)
    annotations = grouped(read, annotations, tightness)
    if save:
        graphs.write_annotations(annotations, graphs.annotations_path(graph))
    collapsed = graphs.collapse(read, annotations.rows(read))
    whole = graphs.scores(read)
    if as_json:
        print_json(
            {
                "groups": [group.model_dump(mode="json") for group in annotations.groups],
                "arrived": dict(zip(collapsed.names, collapsed.arrived.tolist(), strict=True)),
                "scores": {"collapsed": asdict(collapsed.scores), "full": asdict(whole)},
                "file": str(graphs.annotations_path(graph)) if save else None,
            }
        )
        return
    automatic = {group.name: group.automatic for group in annotations.groups}
    output.print(viz.groups_text(read, collapsed, whole, automatic))
    if save:
        output.print(f"annotations: {graphs.annotations_path(graph)}", markup=False, soft_wrap=True)


@app.command("consensus")
@plain_errors
def consensus_command(
    files: Annotated[
        list[Path], typer.Argument(metavar="GRAPHS", help="Graph files of one dictionary.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Nodes and edges shown.")] = 15,
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Say what graphs of several prompts have in common, with intervals over the prompts."""
    if len(files) < 2:
        raise UsageError(f"Expected at least two graph files, got {len(files)}.")
    if not 0.0 < level < 1.0:
        raise UsageError(f"--level must be between 0 and 1, got {level}.")
    read = [graphs.read_graph(file) for file in files]
    for file, graph in zip(files, read, strict=True):
        if graph.provenance.dictionary != read[0].provenance.dictionary:
            raise UsageError(
                f"{files[0]} has features of {read[0].provenance.dictionary.name!r}, {file} of "
                f"{graph.provenance.dictionary.name!r}: trace all with one dictionary."
            )
    found = graphs.consensus(read, level)
    if not as_json:
        output.print(viz.consensus_text(read[0], found, top))
        return
    print_json(
        {
            "prompts": len(read),
            "left_out": found.left_out,
            "nodes": [
                {"node": str(node), **numbers}
                for node, numbers in zip(found.nodes, _numbers(found.at_nodes), strict=True)
            ],
            "edges": [
                {"source": str(source), "target": str(target), **numbers}
                for (source, target), numbers in zip(
                    found.ends, _numbers(found.along_edges), strict=True
                )
            ],
        }
    )


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
    one, other = graphs.read_graph(first), graphs.read_graph(second)
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
            listed = graphs.concepts(one, other, found.match, _groups(one, other, first, second))
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
        pair = _groups(one, other, first, second)
        listed = graphs.concepts(one, other, found.comparison.match, pair)
        paths = graphs.path_overlap(one, other, found.comparison.match, found.by_chance, pair)
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


def _groups(
    one: graphs.AttributionGraph, other: graphs.AttributionGraph, first: Path, second: Path
) -> tuple[graphs.Groups, graphs.Groups]:
    """A person's groups of both graphs, and automatic ones."""
    return grouped(one, _beside(first)).rows(one), grouped(other, _beside(second)).rows(other)


def grouped(
    graph: graphs.AttributionGraph,
    annotations: graphs.Annotations,
    tightness: float = GROUPING.tightness,
) -> graphs.Annotations:
    """A person's groups, and automatic ones of what is left."""
    own = {group.name for group in annotations.groups if not group.automatic}
    kept = {name: rows for name, rows in annotations.rows(graph).items() if name in own}
    graphs.collapse(graph, kept)  # refuses a person's groups that feed each other
    settings = graphs.GroupSettings(tightness=tightness)
    found = graphs.find_groups(graph, settings, tuple(kept.values()))
    return annotations.with_automatic(graphs.named(graph, found))


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


def _numbers(common: graphs.Common) -> list[dict[str, float]]:
    """One dictionary per row."""
    columns: dict[str, list[float]] = {
        name: getattr(common, name).tolist() for name in ("present", "mean", "low", "high")
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _annotated(graph: Path) -> tuple[graphs.AttributionGraph, graphs.Annotations]:
    """A graph and what is said beside it."""
    return graphs.read_graph(graph), _beside(graph)


def _beside(graph: Path) -> graphs.Annotations:
    path = graphs.annotations_path(graph)
    return graphs.read_annotations(path) if path.exists() else graphs.Annotations()
