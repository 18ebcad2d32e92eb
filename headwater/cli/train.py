"""The command that trains dictionaries."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from circuits.model.prompt import DEFAULT_RULE, PromptRule
from circuits.model.subject import read_subject
from circuits.progress import progress_bar
from circuits.training.complete import train_and_measure
from circuits.training.corpus_choice import chosen_corpus
from circuits.training.loop import CHECKPOINT
from circuits.training.report import Report
from circuits.training.run import chosen_run
from circuits.training.settings import Kind, Sparsity, TrainingError, TrainSettings
from headwater.cli.app import app
from headwater.cli.options import (
    MOST,
    AsJson,
    BosRule,
    ContextOnly,
    Device,
    DType,
    Model,
    Revision,
    Type,
)
from headwater.cli.trace import DEFAULT_MODEL
from headwater.outputs.places import require_folder
from headwater.terminal.printing import errors, output, print_json, remark, say

DEFAULTS = TrainSettings()


@app.command("train")
def train_command(
    out: Annotated[Path, typer.Option(help="Folder for the dictionary, its log and report.")],
    corpus: Annotated[
        str | None,
        typer.Argument(help="Text file (a document per line), folder of texts, or Hub dataset."),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample-from-model", help="Train on the model's own samples.")
    ] = False,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    kind: Annotated[Kind, typer.Option(help="What to train.")] = DEFAULTS.kind,
    sparsity: Annotated[
        Sparsity, typer.Option(help="What makes features rare.")
    ] = DEFAULTS.sparsity,
    width: Annotated[
        int, typer.Option(min=1, max=2**24, help="Features per layer.")
    ] = DEFAULTS.d_dict,
    l0: Annotated[float, typer.Option(help="Active features per layer and token.")] = DEFAULTS.l0,
    steps: Annotated[int, typer.Option(min=1, max=MOST, help="Training steps.")] = DEFAULTS.steps,
    batch: Annotated[
        int, typer.Option(min=1, max=2**24, help="Tokens per step.")
    ] = DEFAULTS.batch_tokens,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = DEFAULTS.learning_rate,
    prefix: Annotated[
        list[float] | None, typer.Option(help="Matryoshka: share that must do alone; repeatable.")
    ] = None,
    column: Annotated[str, typer.Option(help="Column of a dataset that holds texts.")] = "text",
    length: Annotated[
        int, typer.Option(min=2, max=MOST, help="Tokens per document at most.")
    ] = 256,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="Of everything random.")
    ] = DEFAULTS.seed,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, max=MOST, help="Steps between checkpoints.")
    ] = 1000,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Products with decoders in bfloat16.")
    ] = DEFAULTS.bfloat16,
    penalty: Annotated[
        float, typer.Option(help="Weight of the penalty of jumprelu and tanh.")
    ] = DEFAULTS.penalty,
    bandwidth: Annotated[
        float, typer.Option(help="Of the straight-through thresholds.")
    ] = DEFAULTS.bandwidth,
    shuffled: Annotated[
        int,
        typer.Option(
            "--shuffle", max=2**28, help="Tokens whose activations are shuffled together."
        ),
    ] = DEFAULTS.shuffled_tokens,
    bos: BosRule = DEFAULT_RULE.bos,
    context_only: ContextOnly = DEFAULT_RULE.context_only,
    dtype: Type = DType.FLOAT32,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train transcoders for a model; the same command goes on after an interruption."""
    settings = TrainSettings(
        kind=kind,
        sparsity=sparsity,
        d_dict=width,
        l0=l0,
        steps=steps,
        batch_tokens=batch,
        shuffled_tokens=max(shuffled, batch),
        learning_rate=rate,
        penalty=penalty,
        bandwidth=bandwidth,
        prefixes=tuple(prefix or ()),
        bfloat16=bfloat16,
        seed=seed,
    )
    if (corpus is None) == (not sample):
        raise TrainingError("Give a corpus or --sample-from-model, and not both.")
    if context_only is not None and context_only >= length:
        raise TrainingError(
            f"--context-only {context_only} leaves nothing of documents of {length} tokens: choose "
            "fewer positions."
        )
    require_folder(out, CHECKPOINT, corpus, model)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        read = partial(chosen_corpus, corpus, subject, settings, length, column)
        run = chosen_run(read, subject, settings, PromptRule(bos, context_only), out)
        if run.as_begun:
            remark(f"The run in {out} was begun with BOS in front of its documents and goes on so.")
        found = train_and_measure(subject, run, settings, out, progress, checkpoint_every)
    if as_json:
        print_json(found.as_json())
        return
    show_report(found, out)


def show_report(found: Report, out: Path) -> None:
    """Print a report as a table."""
    fidelity = found.fidelity
    table = Table(box=None)
    for title in ("layer", "unexplained", "L0", "dead"):
        table.add_column(title, justify="right")
    for layer, numbers in enumerate(
        zip(fidelity.unexplained, fidelity.l0, fidelity.dead, strict=True)
    ):
        unexplained, l0, dead = numbers
        table.add_row(str(layer), f"{unexplained:.3f}", f"{l0:.1f}", f"{dead:.1%}")
    output.print(table)
    say(
        f"all MLPs replaced: same next token {fidelity.agreement:.1%}, KL {fidelity.divergence:.3f}"
        f" nats, over {fidelity.tokens:,} held-out tokens"
    )
    if found.replacement is not None:
        say(
            f"{found.traced} graphs: replacement {found.replacement:.3f}, "
            f"completeness {found.completeness:.3f}"
        )
    say(f"dictionary: {out}")
