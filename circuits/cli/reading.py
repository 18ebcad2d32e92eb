"""Commands that read graphs: paths, group, compare."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import graphs
import viz
from circuits.cli.app import app, output, plain_errors, print_json
from circuits.cli.options import AsJson, GraphPath
from circuits.cli.usage import UsageError

GROUPING = graphs.GroupSettings()  # defaults come from the settings, so that they cannot differ
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
    own = {group.name for group in annotations.groups if not group.automatic}
    kept = {name: rows for name, rows in annotations.rows(read).items() if name in own}
    graphs.collapse(read, kept)  # refuses a person's groups that feed each other
    found = graphs.find_groups(
        read, graphs.GroupSettings(tightness=tightness), tuple(kept.values())
    )
    annotations = annotations.with_automatic(graphs.named(read, found))
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


@app.command("compare")
@plain_errors
def compare_command(
    first: GraphPath,
    second: Annotated[Path, typer.Argument(help="Graph file to compare it with.")],
    permutations: Annotated[
        int, typer.Option(min=0, help="Random exchanges that tell what chance gives.")
    ] = graphs.PERMUTATIONS,
    seed: Annotated[int, typer.Option(min=0, help="Of the random exchanges.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two graphs of one dictionary: what both have, what changed, what is chance."""
    one, other = graphs.read_graph(first), graphs.read_graph(second)
    if one.provenance.dictionary != other.provenance.dictionary:
        raise UsageError(
            f"{first} has features of {one.provenance.dictionary.name!r}, {second} of "
            f"{other.provenance.dictionary.name!r}: trace both with one dictionary."
        )
    found = graphs.compare(one, other, permutations=permutations, seed=seed)
    if not as_json:
        output.print(viz.comparison_text(one, other, found))
        return
    pairs = zip(found.match.first, found.match.second, found.influence, strict=True)
    print_json(
        {
            "positions": found.positions.tolist(),
            "scores": {
                name: {
                    "value": None if np.isnan(score.value) else score.value,
                    "null": [value for value in score.null if not np.isnan(value)],
                    "chance": score.chance,
                }
                for name, score in (
                    ("features", found.features),
                    ("edges", found.edges),
                    ("ranks", found.ranks),
                )
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
    )


def _annotated(graph: Path) -> tuple[graphs.AttributionGraph, graphs.Annotations]:
    """A graph and what is said beside it."""
    beside = graphs.annotations_path(graph)
    read = graphs.read_graph(graph)
    return read, graphs.read_annotations(beside) if beside.exists() else graphs.Annotations()
