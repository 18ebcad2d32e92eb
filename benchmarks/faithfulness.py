"""Report cards of many graphs: how true are they, and how much truer than chance?

    python benchmarks/faithfulness.py --out benchmarks/results/faithfulness.md

Atlas models with their cross-layer transcoders on the prompts of the known circuits, Gemma 3 270M
with its neurons on facts.  Every number is the median over the prompts of a model; nulls are random
sets of the circuit's size and layers, and random orders of the features.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

from rich.console import Console

from circuits.atlas.known import known_circuits
from circuits.atlas.shipped import ATLAS, atlas_transcoders
from circuits.check import check
from circuits.experiment import prepare
from circuits.features import FeatureSource
from circuits.neurons import Neurons
from circuits.packaged import PACKAGED
from circuits.subject import Subject, read_subject
from circuits.tokens import read_prompt
from circuits.trace import trace
from circuits.weights import read_transcoders
from graphs import Regime, Report

GEMMA = "gemma-3-270m"
PROMPTS = 20  # of an atlas model
NEURONS = 1024
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
        f"{which} effects on {on}: {said}": effect(which, on, name)
        for which in (Regime.CONSTRAINED, Regime.FREE)
        for on in ("targets", "features")
        for said, name in (
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


def reports(name: str) -> list[Report]:
    """One per prompt."""
    subject = read_subject(name)
    source, prompts = material(name)
    return [report_of(subject, source, prompt) for prompt in prompts]


def material(name: str) -> tuple[FeatureSource, list[str]]:
    """Dictionary and prompts of a model."""
    if name in ATLAS:
        source = read_transcoders(str(atlas_transcoders(name)))
        return source, [circuit.prompt for circuit in known_circuits()][:PROMPTS]
    return Neurons(NEURONS), list(FACTS)


def report_of(subject: Subject, source: FeatureSource, prompt: str) -> Report:
    """Trace a prompt and test its graph."""
    graph = trace(read_prompt(prompt, subject.tokenizer), subject, source)
    return check(prepare(graph, subject, source))


def middle(number: Number, found: list[Report]) -> str:
    """The median of a number over reports that have it."""
    known = [value for report in found if (value := number(report)) is not None]
    return f"{median(known):.3g}" if known else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--models", nargs="*", default=[*ATLAS, GEMMA])
    arguments = parser.parse_args()
    assert GEMMA in PACKAGED
    found = {name: reports(name) for name in arguments.models}
    lines = [
        f"Report cards, medians over prompts, {date.today():%Y-%m-%d}, {platform.machine()}.",
        "",
        "| | " + " | ".join(f"{name} ({len(some)} prompts)" for name, some in found.items()) + " |",
        "|---|" + "--:|" * len(found),
    ]
    for said, number in NUMBERS.items():
        cells = [middle(number, some) for some in found.values()]
        lines.append(f"| {said} | " + " | ".join(cells) + " |")
    failed = {name: sum(bool(report.failures) for report in some) for name, some in found.items()}
    lines.append("| graphs that fail a check | " + " | ".join(map(str, failed.values())) + " |")
    text = "\n".join([*lines, ""])
    Console(width=200).print(text, markup=False, highlight=False)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
