"""Do cross-layer dictionaries skip steps that per-layer ones take?  Known circuits of atlas.

    python benchmarks/hops.py --dictionaries FOLDER --out benchmarks/results/hops.md

The state is the step between the city and its capital.  For every kind of dictionary: whether
graphs show it; how much influence takes two steps in the graph of the per-layer dictionary and one
in that of this kind, and the other way round (`graphs.skipped_hops`); how much of the influence
from the city to the capital flows through the state; and how much of it does so in the model: the
city is exchanged for one of another state, and features at the layers and positions where labels
name the states get the activations that they have with the first city.  The part of the difference
of the capital's logit that this restores goes through the step.

Cross-layer transcoders ship with the models; others are trained into FOLDER/MODEL/KIND unless they
are there, in as many steps as --steps says.  With --all also a cross-layer one, in as many steps.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from statistics import fmean

import torch
from atlas import SETTINGS, trained_transcoders
from faithfulness import parser, show

import graphs
from circuits.atlas.known import KnownCircuit, flow_through_middle, known_circuits, middle_features
from circuits.atlas.shipped import ATLAS, atlas_transcoders
from circuits.attribution.target_names import candidates
from circuits.attribution.trace_settings import TargetSettings, TraceSettings
from circuits.features.files.reading import read_transcoders
from circuits.features.transcoder_set import TranscoderSet
from circuits.interventions.experiment import prepare
from circuits.interventions.intervene import intervene
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from circuits.training.settings import Kind
from graphs import AttributionGraph, EditError, Regime, SelectionError, Swap
from graphs.comparison.hops import Skips

LABELS = 4096  # every feature
NULL = graphs.CorrespondSettings(permutations=5)
SHIPPED = "cross-layer, shipped"


@dataclass(frozen=True)
class Row:
    """One dictionary over all prompts."""

    shown: int  # prompts whose pruned graphs have a feature that names the state
    skips: tuple[float, float]  # of per-layer steps: skipped by this one, and its null
    skipped: tuple[float, float]  # of the steps of this one, by the per-layer one
    flow: float
    measured: float
    unknown: int  # prompts without features to exchange, which count as 0


class World:
    """One model with one dictionary, and cached graphs."""

    def __init__(self, subject: Subject, source: TranscoderSet) -> None:
        self.subject, self.source = subject, source
        self.graph = cache(self._graph)

    def _graph(self, prompt: str, answer: str) -> AttributionGraph:
        token = candidates(f" {answer}", self.subject.tokenizer)[0]
        settings = TraceSettings(TargetSettings(tokens=(token,)), labels=LABELS)
        return trace(
            read_prompt(prompt, self.subject.tokenizer), self.subject, self.source, settings
        )

    def of(self, circuit: KnownCircuit) -> AttributionGraph:
        return self.graph(circuit.prompt, circuit.answer)

    def restored(self, circuit: KnownCircuit) -> float | None:
        """Share of what another city changes that the step restores; None: nothing to exchange."""
        other = next(o for o in known_circuits() if o.middle != circuit.middle)
        own = self.of(circuit)
        changed = self.graph(circuit.prompt.replace(circuit.start, other.start), circuit.answer)
        try:
            swap = graphs.intervention(changed, [Swap(other.middle, circuit.middle, own)])
        except (EditError, SelectionError):
            return None
        experiment = prepare(changed, self.subject, self.source)
        target = int(changed.target_rows()[0])
        moved = intervene(experiment, [swap], Regime.FREE).measured[0, target]
        values = [float(g.nodes.value[g.target_rows()[0]]) for g in (own, changed)]
        return float(moved) / (values[0] - values[1])


def measure(world: World, per_layer: World, asked: list[KnownCircuit]) -> Row:
    """One dictionary beside the per-layer one."""
    hops = [graphs.skipped_hops(per_layer.of(c), world.of(c), NULL) for c in asked]
    restored = [world.restored(circuit) for circuit in asked]
    return Row(
        shown=sum(bool(middle_features(graphs.prune(world.of(c)), c)) for c in asked),
        skips=mean([found.first for found in hops]),
        skipped=mean([found.second for found in hops]),
        flow=fmean(flow_through_middle(world.of(c), c).share for c in asked),
        measured=fmean(0.0 if one is None else one for one in restored),
        unknown=sum(one is None for one in restored),
    )


def mean(skips: list[Skips]) -> tuple[float, float]:
    return (
        fmean(one.skipped.value for one in skips),
        fmean(one.skipped.null_mean for one in skips),
    )


def dictionaries(name: str, arguments: argparse.Namespace) -> dict[str, Path]:
    """Folders of a model's dictionaries, per-layer first; trains what is missing."""
    kinds = [Kind.PER_LAYER, Kind.SKIP, *([Kind.CROSS_LAYER] if arguments.all else [])]
    found: dict[str, Path] = {}
    for kind in kinds:
        settings = replace(SETTINGS[name], kind=kind, steps=arguments.steps)
        folder = trained_transcoders(name, settings, arguments.dictionaries / name / kind)
        found[f"{kind}, {arguments.steps} steps"] = folder
    return found | {SHIPPED: atlas_transcoders(name)}


def table(name: str, arguments: argparse.Namespace) -> list[str]:
    """Lines of one model."""
    subject = read_subject(name)
    worlds = {
        kind: World(subject, read_transcoders(str(folder)))
        for kind, folder in dictionaries(name, arguments).items()
    }
    asked = [one for one in known_circuits() if one.middle != one.answer][: arguments.prompts]
    per_layer = next(iter(worlds.values()))
    lines: list[str] = []
    for kind, world in worlds.items():
        row = measure(world, per_layer, asked)
        skips = (f"{one[0]:.1%} ({one[1]:.1%})" for one in (row.skips, row.skipped))
        lines.append(
            f"| {name} | {kind} | {row.shown} of {len(asked)} | {' | '.join(skips)} | "
            f"{row.flow:.0%} | {row.measured:.0%} | {row.unknown} |"
        )
    return lines


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(models=list(ATLAS))
    options.add_argument("--dictionaries", type=Path, required=True)
    options.add_argument("--prompts", type=int, default=12)
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--all", action="store_true", help="train a cross-layer one as well")
    arguments = options.parse_args()
    show(
        [
            f"Skipped hops on the first {arguments.prompts} known circuits, "
            f"{date.today():%Y-%m-%d}, {platform.machine()}, torch {torch.__version__}; nulls in "
            "parentheses.",
            "",
            "| model | dictionary | shows the state | per-layer steps that it skips | its steps "
            "that per-layer skips | state, by the graph | state, in the model | nothing to "
            "exchange |",
            "|---|---|--:|--:|--:|--:|--:|--:|",
            *(line for name in arguments.models for line in table(name, arguments)),
        ],
        arguments.out,
    )


if __name__ == "__main__":
    main()
