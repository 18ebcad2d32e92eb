"""The command that changes features in the model: intervene."""

from __future__ import annotations

from dataclasses import asdict
from math import nan
from pathlib import Path
from typing import Annotated

import typer

import graphs
import viz
from circuits.graph_files.opened import is_ours
from circuits.interventions.effects import SHOWN, effects
from circuits.interventions.experiment import Experiment
from circuits.interventions.from_graph import experiment_on
from circuits.interventions.intervene import at_targets, generate, intervene
from circuits.progress import progress_bar
from graphs import Regime
from graphs.disk.npy import read_vector
from headwater.cli.app import app
from headwater.cli.options import MOST, AsJson, Device, GraphPath, TracedModel, TracedTranscoders
from headwater.cli.reading import SELECTION
from headwater.cli.usage import UsageError
from headwater.opened import open_graph
from headwater.outputs.kept import why_not_kept
from headwater.outputs.places import Kind, output_to, require_outputs
from headwater.terminal.printing import errors, output, print_json, say


@app.command("intervene")
def intervene_command(
    graph: GraphPath,
    set_to: Annotated[
        list[str] | None,
        typer.Option("--set", help=f"NODES=NUMBER: the activation of {SELECTION}; NODES+ for new."),
    ] = None,
    scale: Annotated[
        list[str] | None, typer.Option(help="NODES=NUMBER: so many times, errors too.")
    ] = None,
    add: Annotated[list[str] | None, typer.Option(help="NODES=NUMBER: so much more.")] = None,
    push: Annotated[
        list[str] | None,
        typer.Option(help="LAYER@POS:FILE.npy=NUMBER: so many of a vector behind that block."),
    ] = None,
    swap: Annotated[
        list[str] | None,
        typer.Option(help="ONE>OTHER: one off, the other as in --with, as in Texas>California."),
    ] = None,
    beside: Annotated[
        Path | None, typer.Option("--with", help="Graph in which the other of --swap is.")
    ] = None,
    regime: Annotated[
        Regime,
        typer.Option(help="What is held: everything, up to a block, or nothing."),
    ] = Regime.CONSTRAINED,
    through: Annotated[
        int | None, typer.Option(help="Block up to which; else the highest that is changed.")
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Every edit an intervention of its own.")
    ] = False,
    new_tokens: Annotated[
        int,
        typer.Option(
            "--generate", min=0, max=MOST, help="Tokens to go on with, model running freely."
        ),
    ] = 0,
    top: Annotated[int, typer.Option(min=1, max=MOST, help="Tokens and features shown.")] = SHOWN,
    save: Annotated[
        bool, typer.Option("--save", help="Keep predicted and measured in the graph file.")
    ] = False,
    model: TracedModel = None,
    transcoders: TracedTranscoders = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Change features in the model itself, and compare with what the graph predicts."""
    read, annotations, _ = open_graph(graph)
    if save:
        _require_ours(graph)
        require_outputs(output_to(graph, Kind.GRAPH, "--save"), model, transcoders)
    edits = [
        *(graphs.Set(*_named(text, "--set")) for text in set_to or ()),
        *(graphs.Scale(*_named(text, "--scale")) for text in scale or ()),
        *(graphs.Add(*_named(text, "--add")) for text in add or ()),
        *(_push(text) for text in push or ()),
        *_swaps(swap or [], beside),
    ]
    if not edits:
        raise UsageError("Nothing is changed: give --set, --scale, --add, --push or --swap.")
    if each and new_tokens:
        raise UsageError("--generate goes on from one intervention: leave out --each.")
    parts = [[edit] for edit in edits] if each else [edits]
    made = [graphs.intervention(read, part, annotations) for part in parts]
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        experiment = experiment_on(read, model, transcoders, device)
        outcomes = intervene(experiment, made, regime, through, progress)
        texts = _generated(experiment, made[0], new_tokens) if new_tokens else None
    told = [effects(experiment, outcomes, row, top) for row in range(len(made))]
    measured = at_targets(experiment, outcomes)
    refusal = why_not_kept(lambda: graphs.keep_measured(graph, read, measured)) if save else None
    file = str(graph) if save and refusal is None else None
    if as_json:
        print_json(
            {
                "interventions": [asdict(one) for one in told],
                "generated": texts,
                "file": file,
            }
        )
    else:
        for one in told:
            output.print(viz.effects_tables(one))
            output.print()
        if texts is not None:
            say(f"before: {texts['before']}")
            say(f"after:  {texts['after']}")
        if file is not None:
            say(f"graph: {file}")
    if refusal is not None:
        raise refusal


def _require_ours(graph: Path) -> None:
    if not is_ours(graph):
        raise UsageError(
            f"{graph} is a file of another program, which cannot hold what is measured: make it "
            "ours with `headwater import` first."
        )


def _named(text: str, option: str) -> tuple[str, float]:
    nodes, equals, number = text.rpartition("=")
    value = _number(number)
    if not equals or not nodes or value is None:
        raise UsageError(f"{option} expects NODES=NUMBER, as in feature:12/345@7=0, got {text!r}.")
    return nodes, value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _push(text: str) -> graphs.Push:
    place, _, rest = text.partition(":")
    file, amount = _named(rest, "--push") if "=" in rest else ("", nan)
    layer, _, pos = place.partition("@")
    if not file or not layer.isdecimal() or not pos.removesuffix("+").isdecimal():
        raise UsageError(
            f"--push expects LAYER@POS:FILE.npy=NUMBER, as in 4@7:direction.npy=2, got {text!r}."
        )
    try:
        vector = read_vector(file)
    except graphs.GraphFileError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{file} is no vector that numpy wrote ({error}): save one with numpy.save."
        ) from error
    return graphs.Push(
        int(layer), int(pos.removesuffix("+")), vector, amount, onward=pos.endswith("+")
    )


def _swaps(texts: list[str], beside: Path | None) -> list[graphs.Swap]:
    if not texts:
        return []
    if beside is None:
        raise UsageError("--swap needs --with: a graph of a prompt in which the other is active.")
    other, annotations, _ = open_graph(beside)
    swaps: list[graphs.Swap] = []
    for text in texts:
        one, sign, two = (part.strip() for part in text.partition(">"))
        if not (one and sign and two):
            raise UsageError(f"--swap expects ONE>OTHER, as in Texas>California, got {text!r}.")
        swaps.append(graphs.Swap(one, two, other, annotations))
    return swaps


def _generated(experiment: Experiment, made: graphs.Intervention, n_tokens: int) -> dict[str, str]:
    before, after = generate(experiment, made, n_tokens)
    decode = experiment.subject.tokenizer.decode
    return {"before": str(decode(list(before))), "after": str(decode(list(after)))}
