"""The command that finds what stays of a graph when something else is varied: stability."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
import graphs
import viz
from circuits.progress import progress_bar
from graphs.core.stability import Stability
from headwater.arguments.options import (
    AsJson,
    Device,
    EdgeThreshold,
    GraphOut,
    GraphPath,
    NodeThreshold,
    PageOut,
    TracedModel,
    TracedTranscoders,
)
from headwater.arguments.prompted import INPUT, standard_input
from headwater.arguments.usage import UsageError
from headwater.arguments.variants import GRAPH_SUFFIXES, Graphs, paraphrased, remarks_on
from headwater.cli.app import app
from headwater.graph import Graph
from headwater.opened import open_graph
from headwater.outputs.formats import graph_output, write_both
from headwater.outputs.places import Kind, graph_files, output_to, require_outputs
from headwater.terminal.printing import errors, output, print_json, print_line, remark

# Defaults come from the settings, so that they cannot differ.
SETTINGS = graphs.StabilitySettings()


@app.command("stability")
def stability_command(
    graph: GraphPath,
    paraphrase: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Prompt, traced as the graph was, or the file of its graph; repeatable.",
        ),
    ] = None,
    paraphrases: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Text file with a prompt per line, or - for standard input."
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="GRAPH",
            help="Graph file of the same prompt with another dictionary; repeatable.",
        ),
    ] = None,
    core: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Least share of variants in which core stays."),
    ] = SETTINGS.core_limit,
    noise: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of variants below which something is noise."),
    ] = SETTINGS.noise_limit,
    node_threshold: NodeThreshold = SETTINGS.prune.node_threshold,
    edge_threshold: EdgeThreshold = SETTINGS.prune.edge_threshold,
    top: Annotated[int, typer.Option(min=1, help="Nodes to show.")] = 15,
    model: TracedModel = None,
    transcoders: TracedTranscoders = None,
    device: Device = "auto",
    out: GraphOut = None,
    html: PageOut = None,
    as_json: AsJson = False,
) -> None:
    """Find which nodes and edges stay over thresholds, paraphrases and other dictionaries."""
    if noise > core:
        raise UsageError(f"--noise must be at most --core, {core}, got {noise}.")
    outputs = (*graph_output(out), *output_to(html, Kind.PAGE, "--html"))
    files = [Path(one) for one in paraphrase or () if one.lower().endswith(GRAPH_SUFFIXES)]
    read = graph_files(graph, *files, *(against or ()))
    require_outputs(outputs, *read, paraphrases, model, transcoders)
    settings = replace(
        SETTINGS,
        prune=graphs.PruneSettings(node_threshold, edge_threshold),
        core_limit=core,
        noise_limit=noise,
    )
    texts = [*(paraphrase or ()), *_prompts(paraphrases)]
    opened = open_graph(graph)
    reference = Graph.of(opened.graph, opened.annotations)
    for sentence in remarks_on(reference):
        remark(sentence)
    others = [open_graph(one).graph for one in against or ()]
    with progress_bar(errors) as progress:

        def trace(prompts: list[str]) -> Graphs:
            progress("load", 0, 1)
            loaded = circuits.traced_with(reference, model, transcoders, device)
            return circuits.trace_paraphrases(reference, prompts, *loaded, progress)

        traced = paraphrased(texts, trace)
        found = graphs.stability(reference, traced, others, settings)
    stable = reference.with_stability(found)
    written = write_both(stable, out, html, opened.annotations, graph)
    if as_json:
        print_json({**_numbers(found), "files": written})
        return
    output.print(viz.stability_text(stable, found, top))
    for name, path in written.items():
        print_line(f"{name}: {path}")


def _prompts(path: Path | None) -> list[str]:
    """The prompts of a file, one a line."""
    if path is None:
        return []
    given = standard_input(path)
    return circuits.read_texts(path) if given is None else circuits.texts_in(given, INPUT)


def _numbers(found: Stability) -> dict[str, Any]:
    """A stability as JSON, with every node and edge."""
    return {
        **found.as_json(),
        "nodes": [
            {
                "node": name,
                "class": None if share is None else found.class_of(share),
                "influence": influence,
                "stays": {one.kind: one.nodes[place] for one in found.variations},
            }
            for place, (name, share, influence) in enumerate(
                zip(found.nodes, found.node_shares, found.node_influence, strict=True)
            )
        ],
        "edges": [
            {
                "source": found.nodes[source],
                "target": found.nodes[target],
                "class": None if share is None else found.class_of(share),
                "influence": influence,
                "stays": {one.kind: one.edges[place] for one in found.variations},
            }
            for place, (source, target, share, influence) in enumerate(
                zip(
                    found.sources,
                    found.targets,
                    found.edge_shares,
                    found.edge_influence,
                    strict=True,
                )
            )
        ],
    }
