"""Reports of many graphs: how faithful are they, compared with nulls?

    python benchmarks/faithfulness.py --out benchmarks/results/faithfulness.md

Atlas models with their cross-layer transcoders on the prompts of the known circuits, Gemma 3 270M
with its neurons on facts.  Every number is the median over the prompts of a model; nulls are random
sets of the circuit's size and layers, and random orders of the features.

A second table freezes more and more blocks while features are ablated, on fewer prompts: with all
of them frozen only the final norm still runs, and what remains is its effect.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

from rich.console import Console

from circuits.atlas.known import known_circuits
from circuits.atlas.shipped import ATLAS, atlas_transcoders
from circuits.evaluation.ablation import Ablation
from circuits.evaluation.check import check, effect_reports
from circuits.features.active import FeatureSource
from circuits.features.files.reading import read_transcoders
from circuits.features.neurons import Neurons
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.intervene import intervene
from circuits.model.packaged import PACKAGED
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from graphs import Intervention, Regime, Report

GEMMA = "gemma-3-270m"
PROMPTS = 20  # of an atlas model
NEURONS = 1024
FEWER, ABLATED, PARTS = 5, 100, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
FACTS = (
    "The capital of France is",
    "The capital of Japan is",
    "The opposite of hot is",
    "The Eiffel Tower is in the city of",
    "The first president of the United States was George",
    "Two plus two equals",
    "The largest planet in the solar system is",
    "Romeo and",
)
Number = Callable[[Report], float | None]


def effect(which: Regime, on: str, name: str) -> Number:
    """A number of the effects of one regime."""

    def read(report: Report) -> float | None:
        found = (one for one in report.effects if (one.regime, one.on) == (which, on))
        return getattr(next(found, None), name, None)

    return read


def within(part: str, name: str) -> Number:
    """A number of a part of the report."""

    def read(report: Report) -> float | None:
        found = getattr(report, part)
        return None if found is None else getattr(found, name)

    return read


NUMBERS: dict[str, Number] = {
    **{
        f"frozen effects on {on}: error": effect(Regime.FROZEN, on, "error")
        for on in ("targets", "features")
    },
    **{
        f"{which} effects on {on}: {title}": effect(which, on, name)
        for which in (Regime.CONSTRAINED, Regime.FREE)
        for on in ("targets", "features")
        for title, name in (
            ("rank correlation", "rank_correlation"),
            ("same sign", "same_sign"),
            ("error", "error"),
        )
    },
    "features of the circuit": within("necessity", "features"),
    "necessity": within("necessity", "share"),
    "necessity of random sets": within("necessity", "random_mean"),
    "sufficiency": within("sufficiency", "share"),
    "sufficiency of random sets": within("sufficiency", "random_mean"),
    "drop without the 20 strongest": within("strongest", "drop"),
    "drop without 20 random ones": within("strongest", "random_drop"),
    "CPR": within("curve", "cpr"),
    "CPR of random orders": within("curve", "random_cpr"),
    "CMD": within("curve", "cmd"),
    "CMD of random orders": within("curve", "random_cmd"),
    "replacement keeps the top token": within("replacement", "same_top"),
    "replacement: nats": within("replacement", "divergence"),
}


@dataclass(frozen=True)
class Material:
    """A model with the graphs of its prompts."""

    subject: Subject
    source: FeatureSource
    prompts: list[str]

    def experiment(self, prompt: str) -> Experiment:
        """Trace a prompt, and prepare interventions on its graph."""
        graph = trace(read_prompt(prompt, self.subject.tokenizer), self.subject, self.source)
        return prepare(graph, self.subject, self.source)

    def reports(self) -> list[Report]:
        """One per prompt."""
        return [check(self.experiment(prompt)) for prompt in self.prompts]

    def frozen_up_to(self) -> list[tuple[str, str]]:
        """Rank correlation on targets and on features, with more and more blocks frozen."""
        last = self.subject.frozen.n_layers - 1
        experiments = [self.experiment(prompt) for prompt in self.prompts[:FEWER]]
        found: list[tuple[str, str]] = []
        for part in PARTS:
            reports = [_effects_frozen(one, round(part * last)) for one in experiments]
            found.append(
                (
                    middle(effect(Regime.CONSTRAINED, "targets", "rank_correlation"), reports),
                    middle(effect(Regime.CONSTRAINED, "features", "rank_correlation"), reports),
                )
            )
        return found


def _effects_frozen(experiment: Experiment, through: int) -> Report:
    """Effects of the strongest features, each ablated alone."""
    graph, ablation = experiment.graph, Ablation(experiment)
    changes = [ablation.changes[number] for number in ablation.order[:ABLATED]]
    made = [Intervention(str(one.node), (one,)) for one in changes if one.node in graph]
    outcomes = intervene(experiment, made, Regime.CONSTRAINED, through)
    return Report(generator="", effects=effect_reports(graph, outcomes))


def material(name: str) -> Material:
    """Dictionary and prompts of a model."""
    subject = read_subject(name)
    if name in ATLAS:
        source = read_transcoders(str(atlas_transcoders(name)))
        return Material(subject, source, [one.prompt for one in known_circuits()][:PROMPTS])
    return Material(subject, Neurons(NEURONS), list(FACTS))


def middle(number: Number, found: list[Report]) -> str:
    """The median of a number over reports that have it."""
    values = [value for report in found if (value := number(report)) is not None]
    return f"{median(values):.3g}" if values else "–"


def failed(found: dict[str, list[Report]]) -> list[tuple[str, list[str]]]:
    """How many graphs of each model fail any check, and each check."""
    failing = [
        [{name for name, _ in report.problems} for report in some] for some in found.values()
    ]
    checks = sorted({name for some in failing for names in some for name in names})
    rows = [("graphs that fail a check", [str(sum(map(bool, some))) for some in failing])]
    for check_name in checks:
        counts = [str(sum(check_name in names for names in some)) for some in failing]
        rows.append((f"of them {check_name}", counts))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--models", nargs="*", default=[*ATLAS, GEMMA])
    arguments = parser.parse_args()
    assert GEMMA in PACKAGED
    models = {name: material(name) for name in arguments.models}
    found = {name: one.reports() for name, one in models.items()}
    lines = [
        "Reports of `headwater check`, medians over prompts, "
        f"{date.today():%Y-%m-%d}, {platform.machine()}.",
        "",
        "| | " + " | ".join(f"{name} ({len(some)} prompts)" for name, some in found.items()) + " |",
        "|---|" + "--:|" * len(found),
    ]
    for title, number in NUMBERS.items():
        cells = [middle(number, some) for some in found.values()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in failed(found)]
    frozen = {name: one.frozen_up_to() for name, one in models.items()}
    lines += [
        "",
        "Constrained effects, rank correlation on targets | on features, with blocks frozen up to "
        f"a part of the model's depth (0 the first block, 1 the last; {FEWER} prompts):",
        "",
        "| frozen up to | " + " | ".join(frozen) + " |",
        "|--:|" + "--:|" * len(frozen),
    ]
    for place, part in enumerate(PARTS):
        cells = [" \\| ".join(some[place]) for some in frozen.values()]
        lines.append(f"| {part:.2g} | " + " | ".join(cells) + " |")
    text = "\n".join([*lines, ""])
    Console(width=200).print(text, markup=False, highlight=False)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
