"""Reports of many graphs: how faithful are they, compared with nulls?

    python benchmarks/faithfulness.py --out benchmarks/results/faithfulness.md

Atlas models with their cross-layer transcoders on the prompts of the known circuits, Gemma 3 270M
with its neurons on facts.  Every number is the median over the prompts of a model; nulls are random
sets of the circuit's size and layers, and random orders of the features.

Effects are predicted from graphs as they are traced by default, and from graphs with rows of norms
and gates inside the model.  A second table holds more and more blocks while features are ablated,
on fewer prompts: with all of them held only the final norm still runs.  A third says how many
graphs hold the limits of predicted effects (`graphs.core.report`), which were chosen on every
second prompt: of these prompts, of the others, and of graphs that are wrong.  `held.py` says what
bounds predictions.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
from rich.console import Console

from circuits.atlas.known import known_circuits
from circuits.atlas.shipped import ATLAS, atlas_transcoders
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.evaluation.ablation import Ablation
from circuits.evaluation.check import check, effect_reports
from circuits.evaluation.evaluation_settings import CheckSettings
from circuits.features.active import FeatureSource
from circuits.features.files.reading import read_transcoders
from circuits.features.neurons import Neurons
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.intervene import intervene
from circuits.interventions.origin import ExperimentError
from circuits.model.packaged import PACKAGED
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from graphs import AttributionGraph, Intervention, Regime, Report
from graphs.interventions.permuted import with_permuted_edges

GEMMA = "gemma-3-270m"
PROMPTS = 20  # of an atlas model
NEURONS = 1024
INSIDE = 2000  # rows of norms and gates
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


def effect(which: Regime, on: str, name: str, order: str = "first") -> Number:
    """A number of the effects of one regime."""

    def read(report: Report) -> float | None:
        asked = (which, on, order)
        found = (one for one in report.effects if (one.regime, one.on, one.order) == asked)
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
            ("rank correlation of permuted edges", "null_rank_correlation"),
            ("same sign", "same_sign"),
            ("same sign of permuted edges", "null_same_sign"),
            ("error", "error"),
        )
    },
    "features of the circuit": within("necessity", "features"),
    "necessity": within("necessity", "share"),
    "necessity, predicted": within("necessity", "predicted"),
    "necessity of random sets": within("necessity", "random_mean"),
    "sufficiency": within("sufficiency", "share"),
    "sufficiency, predicted": within("sufficiency", "predicted"),
    "sufficiency of random sets": within("sufficiency", "random_mean"),
    "share changed by 8 features outside that change most": within("adversarial", "share"),
    "share changed by 8 random ones outside": within("adversarial", "random_mean"),
    "sufficiency is weak": within("adversarial", "is_weak"),
    "drop without the 20 strongest": within("strongest", "drop"),
    "drop without 20 random ones": within("strongest", "random_drop"),
    "CPR": within("curve", "cpr"),
    "CPR of random orders": within("curve", "random_cpr"),
    "faithfulness of circuits, predicted less measured": lambda report: _curve_miss(report),
    "CMD": within("curve", "cmd"),
    "CMD of random orders": within("curve", "random_cmd"),
    "replacement keeps the top token": within("replacement", "same_top"),
    "replacement: nats": within("replacement", "divergence"),
}


CONSTRAINED: dict[str, Number] = {
    f"constrained effects on {on}: {title}": effect(Regime.CONSTRAINED, on, name, order)
    for on in ("targets", "features")
    for title, name, order in (
        ("rank correlation", "rank_correlation", "first"),
        ("rank correlation of permuted edges", "null_rank_correlation", "first"),
        ("rank correlation with thresholds and activation functions", "rank_correlation", "full"),
        ("same sign", "same_sign", "first"),
        ("same sign of permuted edges", "null_same_sign", "first"),
        ("error", "error", "first"),
    )
}


def _curve_miss(report: Report) -> float | None:
    """Mean difference of the predicted from the measured curve."""
    curve = report.curve
    if curve is None or curve.predicted is None:
        return None
    pairs = zip(curve.predicted, curve.faithfulness, strict=True)
    return fmean(abs(predicted - measured) for predicted, measured in pairs)


class Tested(NamedTuple):
    """What was found of one prompt."""

    report: Report
    inside: Report  # constrained effects alone, predicted with rows inside the model
    permuted: Report  # the same of the graph as it is by default, with permuted edges
    refused: bool  # whether the graph of the prompt before is refused for this one


@dataclass(frozen=True)
class Material:
    """A model with the graphs of its prompts."""

    subject: Subject
    source: FeatureSource
    prompts: list[str]

    def experiment(
        self, prompt: str, inner_rows: int = 0, max_features: int = Expansion().max_features
    ) -> Experiment:
        """Trace a prompt, and prepare interventions on its graph."""
        text = read_prompt(prompt, self.subject.tokenizer)
        settings = TraceSettings(expansion=Expansion(max_features), inner_rows=inner_rows)
        graph = trace(text, self.subject, self.source, settings)
        return prepare(graph, self.subject, self.source)

    def tested(self) -> list[Tested]:
        """One per prompt."""
        found: list[Tested] = []
        before: AttributionGraph | None = None
        for prompt in self.prompts:
            experiment = self.experiment(prompt)
            graph = experiment.graph
            wrong = with_permuted_edges(graph, np.random.default_rng(1))
            found.append(
                Tested(
                    check(experiment),
                    _effects_held(self.experiment(prompt, INSIDE), None),
                    _effects_held(replace(experiment, graph=wrong), None),
                    before is not None and self._is_refused(before, graph),
                )
            )
            before = graph
        return found

    def _is_refused(self, other: AttributionGraph, graph: AttributionGraph) -> bool:
        """Whether another prompt's graph is refused where it claims to be of this prompt."""
        names = ("prompt", "tokens", "token_ids", "targets")
        update = {name: getattr(graph.provenance, name) for name in names}
        claims = other.provenance.model_copy(update=update)
        try:
            prepare(replace(other, provenance=claims), self.subject, self.source)
        except (ExperimentError, ValueError):
            return True
        return False

    def frozen_up_to(self) -> list[tuple[str, str]]:
        """Rank correlation on targets and on features, with more and more blocks frozen."""
        last = self.subject.frozen.n_layers - 1
        experiments = [self.experiment(prompt) for prompt in self.prompts[:FEWER]]
        found: list[tuple[str, str]] = []
        for part in PARTS:
            reports = [_effects_held(one, round(part * last)) for one in experiments]
            found.append(
                (
                    middle(effect(Regime.CONSTRAINED, "targets", "rank_correlation"), reports),
                    middle(effect(Regime.CONSTRAINED, "features", "rank_correlation"), reports),
                )
            )
        return found


def ablations(experiment: Experiment) -> list[Intervention]:
    """The strongest features of the graph, each ablated alone."""
    graph, ablation = experiment.graph, Ablation(experiment)
    changes = [ablation.changes[number] for number in ablation.order[:ABLATED]]
    return [Intervention(str(one.node), (one,)) for one in changes if one.node in graph]


def _effects_held(experiment: Experiment, through: int | None) -> Report:
    """Effects of the strongest features, with blocks held up to one, or to what is ablated."""
    outcomes = intervene(experiment, ablations(experiment), Regime.CONSTRAINED, through)
    permutations = CheckSettings().permutations
    return Report(generator="", effects=effect_reports(experiment.graph, outcomes, permutations))


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


def limits(found: dict[str, list[Tested]]) -> list[tuple[str, list[str]]]:
    """How many graphs of each model hold the limits of constrained effects."""

    def held(reports: list[Report]) -> str:
        good = [not any("constrained" in name for name, _ in report.problems) for report in reports]
        return f"{sum(good)} of {len(good)}"

    some = list(found.values())
    return [
        (
            "prompts by which limits were chosen",
            [held([t.report for t in one[::2]]) for one in some],
        ),
        ("other prompts", [held([t.report for t in one[1::2]]) for one in some]),
        ("the same, with rows inside", [held([t.inside for t in one[1::2]]) for one in some]),
        ("graphs with permuted edges", [held([t.permuted for t in one]) for one in some]),
        (
            "graphs of another prompt that are not refused",
            [f"{sum(not t.refused for t in one[1:])} of {len(one) - 1}" for one in some],
        ),
    ]


def table(numbers: dict[str, Number], found: dict[str, list[Report]]) -> list[str]:
    """Lines of a table of medians."""
    head = " | ".join(f"{name} ({len(some)} prompts)" for name, some in found.items())
    lines = [f"| | {head} |", "|---|" + "--:|" * len(found)]
    for title, number in numbers.items():
        cells = [middle(number, some) for some in found.values()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options of a benchmark of these models."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--out", type=Path)
    found.add_argument("--models", nargs="*", default=[*ATLAS, GEMMA])
    return found


def show(lines: list[str], out: Path | None) -> None:
    """Print the lines, and write them to a file if one is given."""
    text = "\n".join([*lines, ""])
    Console(width=200).print(text, markup=False, highlight=False)
    if out:
        out.write_text(text, encoding="utf-8")


def main() -> None:
    arguments = parser(__doc__).parse_args()
    assert GEMMA in PACKAGED
    models = {name: material(name) for name in arguments.models}
    found = {name: one.tested() for name, one in models.items()}
    reports = {name: [one.report for one in some] for name, some in found.items()}
    inside = {name: [one.inside for one in some] for name, some in found.items()}
    lines = [
        "Reports of `headwater check`, medians over prompts, "
        f"{date.today():%Y-%m-%d}, {platform.machine()}.",
        "",
        *table(NUMBERS, reports),
        *(f"| {title} | {' | '.join(cells)} |" for title, cells in failed(reports)),
        "",
        f"Constrained effects, predicted by graphs with up to {INSIDE:,} rows of norms and gates "
        "inside the model (`--inner-rows`):",
        "",
        *table(CONSTRAINED, inside),
    ]
    frozen = {name: one.frozen_up_to() for name, one in models.items()}
    lines += [
        "",
        "Constrained effects, rank correlation on targets | on features, with blocks held up to "
        f"a part of the model's depth (0 the first block, 1 the last; {FEWER} prompts):",
        "",
        "| held up to | " + " | ".join(frozen) + " |",
        "|--:|" + "--:|" * len(frozen),
    ]
    for place, part in enumerate(PARTS):
        cells = [" \\| ".join(some[place]) for some in frozen.values()]
        lines.append(f"| {part:.2g} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Graphs that hold the limits of constrained effects:",
        "",
        "| | " + " | ".join(found) + " |",
        "|---|" + "--:|" * len(found),
        *(f"| {title} | {' | '.join(cells)} |" for title, cells in limits(found)),
    ]
    show(lines, arguments.out)


if __name__ == "__main__":
    main()
