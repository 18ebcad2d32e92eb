"""Quality against compute: whole replacement models after more and more tokens.

    python benchmarks/training_compute.py                     # every row that is not there yet
    python benchmarks/training_compute.py --only atlas-small  # those of one model
    python benchmarks/training_compute.py --environment FOLDER  # peers too, as in training.py

A row is a run of its own, since the learning rate falls over all of it.  Models are trained on what
training.py and atlas.py train on, and measured on held-out documents with all MLPs replaced: mean
variance unexplained and L0 of layers, KL, and mean replacement score of graphs.  Hours are of one
CPU, of training alone.  Peers are trained per layer for the most steps, on models with documents of
one length, which sparsify needs; it trains on their first tokens too, which do not count where they
are attention sinks.  What is in results/training_compute.json is not measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import atlas
import numpy as np
from training import (
    PEERS,
    RESULTS,
    WIDTH,
    Rows,
    environment,
    machine,
    prose,
    trained,
    write_documents,
)
from training_run import Case, Measured

from circuits.corpora.corpus import TextCorpus
from circuits.model.subject import Subject, read_subject
from circuits.training.first_position import first_sink
from circuits.training.settings import Kind, TrainSettings

TABLE = RESULTS / "training_compute.md"
HELD_OUT = 400  # questions of the atlas world


@dataclass(frozen=True)
class Plan:
    """The rows of one model: every kind with every number of steps."""

    width: int
    l0: int
    batch: int
    steps: tuple[int, ...]
    kl_steps: int  # of the final phase, once more after the most steps
    graphs: int  # that are traced: of SmolLM2 a minute each


PLANS = {
    **{
        name: Plan(shipped.d_dict, round(shipped.l0), 2048, (60, 250, 1000), 50, 10)
        for name, shipped in atlas.SETTINGS.items()
    },
    "smollm2-135m": Plan(WIDTH, 32, 1024, (30, 120), 10, 3),
    "gemma-3-270m": Plan(WIDTH, 32, 1024, (30, 120), 10, 3),
}
BESIDE = {"plain": PEERS["plain torch, rate 3e-3"], "sparsify": PEERS["sparsify"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PLANS, help="one model")
    parser.add_argument("--environment", type=Path, help="sparsify's, for rows of peers")
    arguments = parser.parse_args()
    if arguments.environment is not None:
        environment(arguments.environment)
    rows = Rows(TABLE.with_suffix(".json"))
    with TemporaryDirectory() as folder:
        for model in [arguments.only] if arguments.only else PLANS:
            for case in cases(model, PLANS[model], Path(folder)):
                if case.trainer == "sparsify" and arguments.environment is None:
                    continue
                if row_name(case) not in rows:
                    rows.add(row_name(case), trained(case, arguments.environment, Path(folder)))
                    TABLE.write_text(table(rows.by_case()), encoding="utf-8")


def cases(model: str, plan: Plan, folder: Path) -> Iterator[Case]:
    """Every dictionary of a model that is trained, the cheapest first."""
    subject = read_subject(model)
    texts = questions(subject) if model in atlas.SETTINGS else prose(subject)
    write_documents(model, texts, folder)
    corpus, settings = TextCorpus(tuple(texts["train"])), TrainSettings()
    longest = Case(
        trainer="headwater",
        model=model,
        documents=str(folder / f"{model}-train.json"),
        held_out=str(folder / f"{model}-held.json"),
        layers=tuple(range(subject.frozen.n_layers)),
        width=plan.width,
        l0=plan.l0,
        seed=0,
        steps=plan.steps[-1],
        batch=plan.batch,
        sparsity="batch-topk",
        graphs=plan.graphs,
        n_prefix=1 if first_sink(subject, corpus, settings) else None,  # as `headwater train` does
    )
    lengths = [*((steps, 0) for steps in plan.steps), (plan.steps[-1], plan.kl_steps)]
    for (steps, kl_steps), kind in product(lengths, (Kind.PER_LAYER, Kind.CROSS_LAYER)):
        whole = TrainSettings.write
        yield replace(longest, kind=kind, steps=steps, kl_steps=kl_steps, write=whole)
    if model not in atlas.SETTINGS:
        for peer in BESIDE.values():
            yield replace(longest, **peer)


def questions(subject: Subject) -> dict[str, list[list[int]]]:
    """Token ids of what the transcoders of an atlas model are trained on, and of held-out ones."""
    asked = {"train": atlas.training_questions(), "held": atlas.shuffled(held_out=True)[:HELD_OUT]}
    return {name: [atlas.document(subject, one) for one in some] for name, some in asked.items()}


def row_name(case: Case) -> str:
    """Model, kind or peer, tokens, tokens of the final phase, and seed."""
    sizes = f"{case.steps * case.batch} {case.kl_steps * case.batch}"
    kind = case.kind if case.trainer == "headwater" else case.trainer
    return f"{case.model} {kind} {sizes} {case.seed}"


def table(rows: dict[str, list[Measured]]) -> str:
    """Every row, means over layers."""
    lines = [
        "# Quality against compute",
        "",
        f"{machine()}, BatchTopK, one seed.",
        "",
        "| model | kind | tokens | of the final phase | CPU hours | unexplained | KL "
        "| replacement score | L0 | dead |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    order = list(PLANS)
    for name in sorted(rows, key=lambda name: (order.index(name.split()[0]), name.split()[1])):
        model, kind, tokens, final = name.split()
        (found,) = rows[name]
        unexplained, l0, dead = map(np.mean, (found.unexplained, found.l0, found.dead))
        lines.append(
            f"| {model} | {kind} | {int(tokens):,} | {int(final):,} | {found.seconds / 3600:.3f} "
            f"| {unexplained:.4f} | {found.divergence:.4f} | {found.replacement:.3f} | {l0:.1f} "
            f"| {dead:.1%} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
