"""What describing and measuring a dictionary take of a run, by its length.

    python benchmarks/training_shares.py --out benchmarks/results/training_shares.md

SmolLM2-135M on the documents of training.py, with its own examples and report: two layers of 30,
and all of them.  Seconds are of CPU, with one thread.  Words that a feature promotes cost the same
whatever the run's length, and the report runs the whole model, whichever layers were trained.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from faithfulness import show
from training import L0, WIDTH, machine, prose

from circuits.corpora.corpus import TextCorpus
from circuits.model.prompt_rule import PromptRule
from circuits.model.subject import Subject, read_subject
from circuits.training.finished.complete import train_and_measure
from circuits.training.run import chosen_run
from circuits.training.settings import Kind, TrainSettings

MODEL, BATCH = "smollm2-135m", 2048
RUNS = (((0, 1), 120), ((0, 1), 480), (None, 120))  # layers and steps
STAGES: tuple[str, ...] = ("train", "describe", "report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    subject = read_subject(MODEL)
    texts = prose(subject)
    corpus = TextCorpus(tuple(texts["train"] + texts["held"]))
    lines = [
        f"What describing and measuring take of a run, {machine()}.",
        "",
        "| layers | tokens | training, CPU s | describing | measuring | both, of all |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for layers, steps in RUNS:
        spent = seconds(subject, corpus, layers, steps)
        both = (spent["describe"] + spent["report"]) / sum(spent.values())
        cells = " | ".join(f"{spent[stage]:.0f}" for stage in STAGES)
        named = "all" if layers is None else f"{len(layers)} of {subject.frozen.n_layers}"
        lines.append(f"| {named} | {steps * BATCH:,} | {cells} | {both:.0%} |")
        show(lines, arguments.out)


def seconds(
    subject: Subject, corpus: TextCorpus, layers: tuple[int, ...] | None, steps: int
) -> dict[str, float]:
    """CPU seconds of each stage of a run, by when the next one is told."""
    settings = TrainSettings(
        kind=Kind.PER_LAYER, d_dict=WIDTH, l0=L0, steps=steps, batch_tokens=BATCH, layers=layers
    )
    spent: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    stage, since = STAGES[0], time.process_time()

    def told(text: str, done: int, total: int) -> None:
        nonlocal stage, since
        now = time.process_time()
        spent[stage] += now - since
        since = now
        stage = text if text in STAGES else stage

    with TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        run = chosen_run(lambda _: corpus, subject, settings, PromptRule(), out)
        train_and_measure(subject, run, out, told, checkpoint_every=10**9)
    told("", 1, 1)
    return spent


if __name__ == "__main__":
    main()
