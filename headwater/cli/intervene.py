"""The command that edits features in the model: intervene."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

import circuits
import graphs
import viz
from circuits.graph_files.opened import is_ours
from circuits.progress import progress_bar
from graphs import Regime
from graphs.formats.updates import keep_measured
from graphs.interventions.effects import SHOWN
from graphs.interventions.heads import chosen_heads, require_no_new_tokens, row_place
from headwater.arguments.edits import named, steered, swapped
from headwater.arguments.files import file_option
from headwater.arguments.options import (
    AsJson,
    Device,
    GraphPath,
    TracedModel,
    TracedTranscoders,
)
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.cli.reading import SELECTION
from headwater.explaining import vector_in
from headwater.opened import open_graph
from headwater.outputs.formats import figure_output
from headwater.outputs.kept import storing_error
from headwater.outputs.places import Kind, graph_files, output_to, require_outputs
from headwater.picturing import intervention_figure
from headwater.terminal.printing import errors, output, print_json, print_line, remark
from viz.paper.formats import Width

OnlyHeads = Annotated[
    list[str] | None,
    typer.Option(help="HEADS, as 4.1,4.2: the edit acts only through these of theirs."),
]


@app.command("intervene")
def intervene_command(
    graph: GraphPath,
    set_to: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help=f"NODES=NUMBER: set activations. NODES: {SELECTION}; NODES+ adds later positions.",
        ),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(
            help="NODES=NUMBER: multiply activations, errors, heads (head:4.5, at a query "
            "head:4.5@8) or entries of patterns (head:4.5@8<2)."
        ),
    ] = None,
    add: Annotated[list[str] | None, typer.Option(help="NODES=NUMBER: add to activations.")] = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            help="LAYER@POS:FILE.npy=NUMBER: add NUMBER times the vector to the residual stream "
            "behind that block."
        ),
    ] = None,
    swap: Annotated[
        list[str] | None,
        typer.Option(
            help='"ONE>OTHER", concepts: at all layers and positions at which both occur, every '
            "feature takes its activation from --with.  Of groups: ablate ONE, set OTHER.  Of a "
            "head, named twice: it writes what it writes there."
        ),
    ] = None,
    other_graph: Annotated[
        Path | None, typer.Option("--with", help="Graph in which OTHER of --swap is active.")
    ] = None,
    regime: Annotated[
        Regime,
        typer.Option(help="What is frozen: everything, the blocks up to one, or nothing."),
    ] = Regime.CONSTRAINED,
    through: Annotated[
        int | None, typer.Option(help="Last frozen block; default: the highest with an edit.")
    ] = None,
    only_queries: OnlyHeads = None,
    only_keys: OnlyHeads = None,
    only_values: OnlyHeads = None,
    run_patterns: Annotated[
        list[str] | None,
        typer.Option(help="HEADS, as 4.1,4.2: their patterns run, those of others are held."),
    ] = None,
    attention: Annotated[
        list[str] | None,
        typer.Option(help="HEAD@QUERY, as 4.5@8: show what it attends to, before and after."),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Make each edit an intervention of its own.")
    ] = False,
    new_tokens: Annotated[
        int,
        typer.Option("--generate", min=0, help="Tokens to generate, with nothing frozen."),
    ] = 0,
    top: Annotated[int, typer.Option(min=1, help="Tokens and features to show.")] = SHOWN,
    save: Annotated[
        bool, typer.Option("--save", help="Store predicted and measured effects in the graph file.")
    ] = False,
    figure: Annotated[
        Path | None,
        file_option(
            "--figure",
            help="Draw a figure with every group and target before and after: .svg, .pdf or .png.",
        ),
    ] = None,
    width: Annotated[
        Width | None,
        typer.Option(help="Of the figure: a column (85 mm, the default) or a page (174 mm)."),
    ] = None,
    model: TracedModel = None,
    transcoders: TracedTranscoders = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Edit features in the model itself, and compare the effects with the graph's predictions."""
    require_outputs(figure_output(figure, "--figure"), *graph_files(graph), model, transcoders)
    read, annotations, _ = open_graph(graph)
    if save:
        _require_ours(graph)
        require_outputs(output_to(graph, Kind.GRAPH, "--save"), model, transcoders)
    edits = [
        *(graphs.SetTo(*named(text, "--set")) for text in set_to or ()),
        *(graphs.Scale(*named(text, "--scale")) for text in scale or ()),
        *(graphs.Add(*named(text, "--add")) for text in add or ()),
        *(steered(text, "--steer", lambda file: vector_in(Path(file))) for text in steer or ()),
        *_swaps(swap or [], other_graph),
    ]
    if not edits:
        raise UsageError("There is no edit: give --set, --scale, --add, --steer or --swap.")
    if each and new_tokens:
        raise UsageError("--generate needs a single intervention: leave out --each.")
    if each and figure is not None:
        raise UsageError("--figure needs a single intervention: leave out --each.")
    if width is not None and figure is None:
        raise UsageError("--width is the width of a figure: give --figure too.")
    choice = chosen_heads(
        read, only_queries or (), only_keys or (), only_values or (), run_patterns or ()
    )
    require_no_new_tokens(choice, new_tokens)
    rows = [row_place(read, one) for one in attention or ()]
    parts = [[edit] for edit in edits] if each else [edits]
    interventions = [graphs.intervention(read, part, annotations) for part in parts]
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        experiment = circuits.experiment_on(read, model, transcoders, device)
        outcomes = circuits.intervene(experiment, interventions, regime, through, progress, choice)
        texts = circuits.generate(experiment, interventions[0], new_tokens) if new_tokens else None
        shown = [
            replace(
                circuits.effects(experiment, outcomes, row, top),
                patterns=circuits.pattern_effects(experiment, outcomes, row, rows),
            )
            for row in range(len(interventions))
        ]
    measured = circuits.at_targets(experiment, outcomes)
    problem = storing_error(lambda: keep_measured(graph, read, measured)) if save else None
    file = str(graph) if save and problem is None else None
    if figure is not None:
        drawn = intervention_figure(
            *(read, annotations, interventions[0], outcomes.measured[0], outcomes.through[0]),
            width or Width.COLUMN,
        )
        if figure_remark := drawn.write(figure):
            remark(figure_remark)
    if as_json:
        print_json(
            {
                "interventions": [asdict(one) for one in shown],
                "generated": None
                if texts is None
                else {"before": texts.before, "after": texts.after},
                "file": file,
                "figure": None if figure is None else str(figure),
            }
        )
    else:
        for one in shown:
            output.print(viz.effects_tables(one))
            output.print()
        if texts is not None:
            for line in texts.lines():
                print_line(line)
        if file is not None:
            print_line(f"graph: {file}")
        if figure is not None:
            print_line(f"figure: {figure}")
    if problem is not None:
        raise problem


def _require_ours(graph: Path) -> None:
    if not is_ours(graph):
        raise UsageError(
            f"{graph} is another program's file, in which measurements cannot be stored: convert "
            "it with `headwater import` first."
        )


def _swaps(texts: list[str], other_graph: Path | None) -> list[graphs.Swap]:
    if not texts:
        return []
    if other_graph is None:
        raise UsageError("--swap needs --with: a graph of a prompt in which the other is active.")
    other, annotations, _ = open_graph(other_graph)
    return [swapped(text, other, annotations) for text in texts]
