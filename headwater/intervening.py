"""One call from a graph to what happens in its model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console, Group

import graphs
import viz
from circuits.attention.pattern_effects import pattern_effects
from circuits.interventions import intervene as running
from circuits.interventions.effects import effects
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.from_graph import experiment_on, most_neurons
from circuits.interventions.intervene import Continuations
from circuits.progress import progress_bar
from graphs.core.regime import Regime
from graphs.interventions.effects import SHOWN
from graphs.interventions.heads import chosen_heads, require_no_new_tokens, row_place
from headwater.choosing import one_of
from headwater.errors import ArgumentError
from headwater.graph import Graph, as_graph, read
from headwater.model import Model
from headwater.printed import Printed, printed
from viz.text.words import one_line


@dataclass(frozen=True, repr=False)
class Effects(Printed, graphs.Effects):
    """The effects of an intervention; `print` shows what `headwater intervene` does."""

    continuations: Continuations | None = None  # of the prompt, if tokens were generated

    def __repr__(self) -> str:
        shown = [f"{one.text!r} {one.measured:+.3f}" for one in self.targets[:3] if one.measured]
        then = [] if self.continuations is None else [f"then {self.continuations.after!r}"]
        return f"<Effects of {one_line(self.what)} ({self.regime})\n  {', '.join([*shown, *then])}>"

    def __str__(self) -> str:
        lines = ["", *self.continuations.lines()] if self.continuations else []
        return printed(Group(viz.effects_tables(self), *lines))


def intervene(
    graph: graphs.AttributionGraph | str | Path,
    *edits: graphs.Edit,
    model: Model | str | Path | None = None,
    transcoders: str | Path | None = None,
    regime: str = Regime.CONSTRAINED,
    through: int | None = None,
    only_queries: str | Sequence[str] = (),
    only_keys: str | Sequence[str] = (),
    only_values: str | Sequence[str] = (),
    run_patterns: str | Sequence[str] = (),
    attention: str | Sequence[str] = (),
    generate: int = 0,
    device: str = "auto",
    most: int = SHOWN,
) -> Effects:
    """Edit features in the model itself, all edits at once, and compare with the graph.

        hw.intervene(graph, hw.Scale("concept:Texas", 0), regime="free")
        hw.intervene(graph, hw.Swap("Texas", "California", oakland), generate=1)
        hw.intervene(graph, hw.Scale("head:4.5@is<capital", 0), regime="free")
        hw.intervene(graph, hw.Scale("feature:2/102@8", 0), only_queries="4.5", attention="4.5@is")

    graph: a graph, or its file.
    edits: SetTo, Scale, Add, Swap and Steer, with nodes by name (`graphs.interventions.edits`).
    model: what `load` returned, or a name or folder; by default the model that the graph names.
    transcoders: a folder or a name; by default those that the graph names.
    regime: "frozen", "constrained" or "free"; through: the last block that is held if constrained.
    only_queries, only_keys, only_values: heads, as "4.5" or "4.1,4.2", through which alone the
    edits act.  They are made in a first pass; in a second one, which is measured, nothing is edited
    but the queries (keys, values) of these heads, which are those of the first, and the patterns of
    heads whose queries or keys are given run in every regime.  The graph predicts nothing of it.
    run_patterns: heads whose patterns run where those of all others are held.
    attention: rows of patterns, HEAD@QUERY, that are shown before and after, with their change as
    predicted to first order.
    generate: number of tokens to generate, with nothing frozen.
    most: tokens and features that are listed.

    Raises EditError for edits that cannot be made, SelectionError for names of no node, and
    ExperimentError if the model is not the graph's.
    """
    if not edits:
        raise graphs.EditError('There is no edit: give some, as in hw.Scale("concept:Texas", 0).')
    if generate < 0:
        raise ArgumentError(f"generate is a number of tokens, got {generate}.")
    edited = as_graph(graph)
    names = map(_listed, (only_queries, only_keys, only_values, run_patterns))
    heads = chosen_heads(edited, *names)
    rows = [row_place(edited, one) for one in _listed(attention)]
    require_no_new_tokens(heads, generate)
    intervention = graphs.intervention(edited, map(_noted, edits), edited.annotations)
    with progress_bar(Console(file=sys.stderr, force_jupyter=False)) as progress:
        progress("load", 0, 1)
        experiment = experiment_of(edited, model, transcoders, device)
        chosen = one_of(Regime, "regime", regime)
        outcomes = running.intervene(experiment, [intervention], chosen, through, progress, heads)
        texts = running.generate(experiment, intervention, generate) if generate else None
        patterns = pattern_effects(experiment, outcomes, 0, rows)
    found = replace(effects(experiment, outcomes, 0, most), patterns=patterns)
    return Effects(**vars(found), continuations=texts)


def _listed(names: object) -> tuple[str, ...]:
    """One name or several.  Raises ArgumentError for anything else."""
    given = (names,) if isinstance(names, str) else names
    if not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
        raise ArgumentError(f'Heads are given by name, as "4.5", got {names!r}.')
    return tuple(given)


def _noted(edit: object) -> graphs.Edit:
    """An edit; a swap knows the annotations of its graph.  Raises EditError for anything else."""
    match edit:
        case graphs.Swap(graph=Graph() as other, annotations=graphs.NO_ANNOTATIONS):
            return replace(edit, annotations=other.annotations)
        case graphs.Swap() if isinstance(edit.graph, str | Path):
            other = read(edit.graph)
            return replace(edit, graph=other, annotations=other.annotations)
        case graphs.SetTo() | graphs.Scale() | graphs.Add() | graphs.Swap() | graphs.Steer():
            return edit
        case _:
            raise graphs.EditError(
                f'An edit is made as in hw.Scale("concept:Texas", 0), got {type(edit).__name__}.'
            )


def experiment_of(
    graph: Graph, model: object, transcoders: str | Path | None, device: str
) -> Experiment:
    match model:
        case Model() if transcoders is None:
            return prepare(graph, model.subject, model.choosing(most_neurons(graph)))
        case str() | Path() | None:
            names = (None if one is None else str(one) for one in (model, transcoders))
            return experiment_on(graph, *names, device=device)
        case Model():
            raise ArgumentError(
                "transcoders has no effect on a model that is loaded already: leave it out."
            )
        case _:
            raise ArgumentError(
                f"model is what hw.load returned, a name or a folder, got {type(model).__name__}."
            )
