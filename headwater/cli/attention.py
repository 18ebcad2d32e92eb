"""Commands that take attention apart: heads, score, why."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer

import circuits
from circuits.progress import progress_bar
from graphs.attention.places import edges_named
from graphs.attention.scores import AttentionScore
from graphs.core.attended import KEPT_LOOKS
from graphs.core.graph import edge_targets
from headwater.arguments.options import (
    AsJson,
    Device,
    GraphOut,
    GraphPath,
    PageOut,
    TracedModel,
    TracedTranscoders,
)
from headwater.attended import (
    COMPONENTS,
    EDGES,
    Heads,
    Reasons,
    Scores,
    asked,
    edges_asked,
    heads_in,
    reasons_in,
    scores_in,
)
from headwater.cli.app import app
from headwater.graph import Graph
from headwater.opened import open_graph
from headwater.outputs.formats import graph_output, write_both
from headwater.outputs.places import Kind, graph_files, output_to, require_outputs
from headwater.terminal.printing import errors, output, print_json, print_line
from viz.text.attended import NAMED, strongest_components

attention = typer.Typer(
    help="Take attention apart: which heads carry each edge, and why they look where they look."
)
app.add_typer(attention, name="attention")
REASONS = 3  # heads


@attention.command("heads")
def heads_command(
    graph: GraphPath,
    edge: Annotated[
        str | None,
        typer.Argument(
            help='"SOURCE>TARGET", names of nodes as in "token:Dallas>concept:Texas": these edges, '
            "and the paths of heads of the strongest; default: all edges."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Edges to show.")] = EDGES,
    looks: Annotated[
        int, typer.Option(min=1, max=1000, help="Heads of which is kept why they look there.")
    ] = KEPT_LOOKS,
    model: TracedModel = None,
    transcoders: TracedTranscoders = None,
    device: Device = "auto",
    out: GraphOut = None,
    html: PageOut = None,
    as_json: AsJson = False,
) -> None:
    """Find the heads that carry each edge of a graph, and what they carry into its prediction.

    With --out or --html, the heads of all edges and why the strongest look where they look are
    kept.
    """
    outputs = (*graph_output(out), *output_to(html, Kind.PAGE, "--html"))
    require_outputs(outputs, *graph_files(graph), model, transcoders)
    read, annotations, _ = open_graph(graph)
    taken = Graph.of(read, annotations)
    edges = edges_asked(taken, edge)
    experiment = _loaded(taken, model, transcoders, device)
    found = heads_in(experiment, taken, edges, looks if outputs else 0)
    written = write_both(found.graph, out, html, annotations, graph)
    if as_json:
        print_json({**_heads_json(found, top), "files": written})
    else:
        output.print(found.shown(top))
        for name, path in written.items():
            print_line(f"{name}: {path}")
    raise typer.Exit(1 if found.graph.provenance.checks.failures else 0)


@attention.command("score")
def score_command(
    graph: GraphPath,
    head: Annotated[str, typer.Argument(help="LAYER.HEAD, as in 4.5.")],
    key: Annotated[str, typer.Option(help="Token that is looked at: its text, or @POSITION.")],
    query: Annotated[
        str | None, typer.Option(help="Token that looks; default: the last of the prompt.")
    ] = None,
    rivals: Annotated[
        list[str] | None,
        typer.Option(
            "--not", help="Token that it might look at instead; default: all but the prefix."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Components of each side.")] = COMPONENTS,
    model: TracedModel = None,
    transcoders: TracedTranscoders = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say why a head looks at a token: its score by what is at the query and at the key."""
    read, annotations, _ = open_graph(graph)
    taken = Graph.of(read, annotations)
    last = f"@{len(read.provenance.tokens) - 1}"
    score = asked(taken, head, last if query is None else query, key, rivals or ())
    found = scores_in(_loaded(taken, model, transcoders, device), taken, score)
    if as_json:
        print_json(_score_json(found, top))
        return
    output.print(found.shown(top))


@attention.command("why")
def why_command(
    graph: GraphPath,
    edge: Annotated[str, typer.Argument(help='"SOURCE>TARGET", names of nodes.')],
    top: Annotated[int, typer.Option(min=1, max=100, help="Heads to show.")] = REASONS,
    model: TracedModel = None,
    transcoders: TracedTranscoders = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say why an edge is there: its main heads, and what made each look from target to source."""
    read, annotations, _ = open_graph(graph)
    taken = Graph.of(read, annotations)
    place = int(edges_named(taken, edge, annotations)[0])
    ends = int(taken.weights.indices[place]), int(edge_targets(taken.weights)[place])
    found = reasons_in(_loaded(taken, model, transcoders, device), taken, *ends, top)
    if as_json:
        print_json(_reasons_json(found))
        return
    output.print(found.shown())


def _loaded(
    graph: Graph, model: str | None, transcoders: str | None, device: str
) -> circuits.Experiment:
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        return circuits.experiment_on(graph, model, transcoders, device)


def _heads_json(found: Heads, top: int) -> dict[str, Any]:
    nodes, entries = found.graph.nodes, found.entries
    carried, past = found.carried(found.graph)
    return {
        "miss": found.miss,
        "past_attention": past,
        "heads": [
            {"layer": layer, "head": head, "carries": float(carried[layer, head])}
            for layer, head in np.ndindex(carried.shape)
        ],
        "entries": [
            {
                "layer": int(entries.layer[at]),
                "head": int(entries.head[at]),
                "query": int(entries.query[at]),
                "key": int(entries.key[at]),
                "flow": float(entries.flow[at]),
                "attention": float(entries.attention[at]),
            }
            for at in range(len(entries.flow))
        ],
        "edges": [
            {
                "source": str(nodes[int(found.source[edge])]),
                "target": str(nodes[int(found.target[edge])]),
                "weight": float(found.weight[edge]),
                "past_attention": float(found.bypass[edge]),
                "heads": [
                    {"layer": layer, "head": head, "part": part}
                    for layer, head, part in found.strongest(edge, found.parts[edge].size)
                ],
            }
            for edge in range(min(top, len(found.weight)))
        ],
        "paths": None
        if found.paths is None
        else [
            {"heads": [list(head) for head in path.heads], "part": path.weight}
            for path in found.paths.paths
        ],
    }


def _score_json(found: Scores, top: int) -> dict[str, Any]:
    def side(which: str) -> list[dict[str, Any]]:
        score = getattr(found.score, which)
        odds = None if found.odds is None else getattr(found.odds, which)
        return [
            {
                "node": str(found.nodes[at]),
                "label": found.labels.get(at, ""),
                "score": float(score.weight[at]),
                "difference": None if odds is None else float(odds.weight[at]),
                "norms_run": None if odds is None else float(odds.running[at]),
            }
            for at in strongest_components(found, which, top)
        ]

    pairs = found.pairs
    ends = zip(pairs.query.tolist(), pairs.key.tolist(), pairs.weight.tolist(), strict=True)
    return {
        "layer": found.layer,
        "head": found.head,
        "query": found.query,
        "key": found.key,
        "attention": float(found.attention[found.key]),
        "score": found.score.value,
        "difference": None if found.odds is None else found.odds.value,
        "log_odds": found.log_odds,
        "miss": found.score.miss,
        "at_query": side("at_query"),
        "at_keys": side("at_keys"),
        "pairs": [
            {
                "query": None if query < 0 else str(found.nodes[query]),
                "key": None if key < 0 else str(found.nodes[key]),
                "part": part,
            }
            for query, key, part in ends
        ],
    }


def _reasons_json(found: Reasons) -> dict[str, Any]:
    def side(score: AttentionScore, which: str) -> list[dict[str, Any]]:
        weight = getattr(score.explained, which).weight
        return [
            {
                "node": str(score.nodes[at]),
                "label": found.labels.get(at, ""),
                "part": float(weight[at]),
            }
            for at in strongest_components(score, which, NAMED)
        ]

    nodes = found.graph.nodes
    return {
        "source": str(nodes[found.source]),
        "target": str(nodes[found.target]),
        "weight": found.paths.weight,
        "heads": [
            {
                "layer": one.score.layer,
                "head": one.score.head,
                "part": one.part,
                "attention": float(one.score.attention[one.score.key]),
                "log_odds": one.score.log_odds,
                "at_query": side(one.score, "at_query"),
                "at_keys": side(one.score, "at_keys"),
            }
            for one in found.reasons
        ],
    }
