"""The command that trains dictionaries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import circuits
from circuits.atlas.shipped import DEFAULT_MODEL
from circuits.corpora.unit import Unit
from circuits.model.data_type import DType
from circuits.model.prompt_rule import DEFAULT_RULE, PromptRule
from circuits.progress import Progress, ignore_progress, progress_bar
from circuits.training.settings import (
    CHECKPOINT,
    AnotherFailed,
    Kind,
    Sparsity,
    Split,
    TrainingError,
    TrainSettings,
)
from headwater.arguments.options import (
    AsJson,
    BosRule,
    Device,
    Model,
    PrefixLength,
    Revision,
    Type,
)
from headwater.cli.app import app
from headwater.outputs.places import require_folder
from headwater.terminal.printing import errors, output, print_json, print_line, remark
from viz.text.tables import plain_table

DEFAULTS = TrainSettings()
SHOWN_EVERY = 30.0  # seconds, where there is no terminal
MOST_LAYERS = 10_000  # of a range; no model has as many


@app.command("train")
def train_command(
    out: Annotated[Path, typer.Option(help="Folder for the dictionary, its log and report.")],
    corpus: Annotated[
        str | None,
        typer.Argument(help="Text file (see --document), folder of texts, or Hub dataset."),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample-from-model", help="Train on the model's own samples.")
    ] = False,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    kind: Annotated[Kind, typer.Option(help="Kind of dictionary.")] = DEFAULTS.kind,
    sparsity: Annotated[
        Sparsity, typer.Option(help="How sparsity is enforced.")
    ] = DEFAULTS.sparsity,
    width: Annotated[
        int, typer.Option(min=1, max=2**24, help="Features per layer.")
    ] = DEFAULTS.d_dict,
    layers: Annotated[
        str | None, typer.Option(help="Layers to train, as 0,1 or 4-7; all by default.")
    ] = None,
    l0: Annotated[float, typer.Option(help="Active features per layer and token.")] = DEFAULTS.l0,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = DEFAULTS.steps,
    kl_steps: Annotated[
        int,
        typer.Option(
            min=0,
            help="Steps of a final phase on the predictions of the model with reconstructions.",
        ),
    ] = DEFAULTS.kl_steps,
    batch: Annotated[
        int, typer.Option(min=1, max=2**24, help="Tokens per step.")
    ] = DEFAULTS.batch_tokens,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = DEFAULTS.learning_rate,
    matryoshka: Annotated[
        list[float] | None,
        typer.Option(help="Share of the features that must reconstruct alone; repeatable."),
    ] = None,
    column: Annotated[str, typer.Option(help="Column of a dataset that holds texts.")] = "text",
    document: Annotated[
        Unit, typer.Option(help="What is a document of a text file; blank lines divide paragraphs.")
    ] = Unit.LINE,
    length: Annotated[int, typer.Option(min=2, help="Tokens per document at most.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = DEFAULTS.seed,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 1000,
    bfloat16: Annotated[
        bool | None,
        typer.Option(
            "--bfloat16/--no-bfloat16",
            help="Choose active features in bfloat16, and run the model in TF32 if it is in "
            "float32; default: on an accelerator.",
        ),
    ] = DEFAULTS.bfloat16,
    penalty: Annotated[
        float, typer.Option(help="Weight of the penalty of jumprelu and tanh.")
    ] = DEFAULTS.penalty,
    bandwidth: Annotated[
        float, typer.Option(help="Bandwidth of the straight-through estimator of thresholds.")
    ] = DEFAULTS.bandwidth,
    shuffled: Annotated[
        int | None,
        typer.Option(
            "--shuffle",
            max=2**28,
            help="Tokens whose activations are shuffled together; default: as many as take 2 GiB.",
        ),
    ] = None,
    split: Annotated[
        Split,
        typer.Option(help="Of what each process has a part, where torchrun starts several."),
    ] = Split.FEATURES,
    bos: BosRule = DEFAULT_RULE.bos,
    n_prefix: PrefixLength = DEFAULT_RULE.n_prefix,
    dtype: Type = DType.FLOAT32,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train transcoders for a model; the same command continues after an interruption."""
    # These import torch.
    from circuits.training.finished.complete import stream_of
    from circuits.training.loop import train
    from circuits.training.needs import foreseen
    from circuits.training.processes import joined

    with one_voice(), joined(split, device) as (processes, own_device):
        settings = TrainSettings(
            layers=None if layers is None else layer_numbers(layers),
            kind=kind,
            sparsity=sparsity,
            d_dict=width,
            l0=l0,
            steps=steps,
            kl_steps=kl_steps,
            batch_tokens=batch,
            shuffled_tokens=None if shuffled is None else max(shuffled, batch),
            learning_rate=rate,
            penalty=penalty,
            bandwidth=bandwidth,
            prefixes=tuple(matryoshka or ()),
            bfloat16=bfloat16,
            seed=seed,
        )
        if (corpus is None) == (not sample):
            raise TrainingError("Give a corpus or --sample-from-model, and not both.")
        if n_prefix is not None and n_prefix >= length:
            raise TrainingError(
                f"--prefix {n_prefix} leaves no tokens of documents of {length}: choose "
                "fewer positions."
            )
        require_folder(out, CHECKPOINT, corpus, model)
        with shown(first=processes.first) as progress:
            progress("load", 0, 1)
            subject = circuits.read_subject(
                model, revision=revision, dtype=dtype, device=own_device
            )
            read = partial(
                circuits.chosen_corpus, corpus, subject, seed, batch, length, column, document
            )
            run = circuits.chosen_run(read, subject, settings, PromptRule(bos, n_prefix), out)
            stream = stream_of(subject, run, progress, processes)
            expected = foreseen(stream)  # which all measure together
            if not processes.first:
                train(stream, out, run.name, lambda _: None, checkpoint_every)
                return
            if run.resumed_as_begun:
                remark(f"The run in {out} continues with {run.resumed_as_begun}, as it was begun.")
            if run.first_sink:
                remark(str(run.first_sink))
            remark(expected)
            found = circuits.train_and_measure(
                subject, run, out, progress, checkpoint_every, processes
            )
    if as_json:
        print_json(found.as_json())
        return
    show_report(found, out)


@contextmanager
def one_voice() -> Iterator[None]:
    """Of several processes that fail, only the one that fails first says why."""
    try:
        yield
    except AnotherFailed:
        raise typer.Exit(2) from None


@contextmanager
def shown(*, first: bool) -> Iterator[Progress]:
    """Progress of the first process, as a bar or lines."""
    if not first:
        yield ignore_progress
        return
    with progress_bar(errors, every=SHOWN_EVERY) as progress:
        yield progress


def show_report(found: circuits.TrainingReport, out: Path) -> None:
    """Print a report as a table."""
    fidelity = found.fidelity
    headings = ("layer", "unexplained", "L0", "dead")
    table = plain_table(*headings, right=headings)
    columns = fidelity.layers, fidelity.unexplained, fidelity.l0, fidelity.dead
    for layer, unexplained, l0, dead in zip(*columns, strict=True):
        table.add_row(*map(Text, (str(layer), f"{unexplained:.3f}", f"{l0:.1f}", f"{dead:.1%}")))
    output.print(table)
    print_line(
        f"these MLPs replaced: same next token {fidelity.agreement:.1%}, "
        f"KL {fidelity.divergence:.3f} nats, over {fidelity.tokens:,} held-out tokens "
        "(dead: active at none of them)"
    )
    if found.replacement is not None:
        print_line(
            f"{found.traced} graphs: replacement {found.replacement:.3f}, "
            f"completeness {found.completeness:.3f}"
        )
    for warning in found.warnings:
        print_line(f"warning: {warning}")
    print_line(f"dictionary: {out}")


def layer_numbers(text: str) -> tuple[int, ...]:
    """The numbers in a list such as 0,1,4-7."""
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (0, -1) if found is None else (int(found[1]), int(found[2] or found[1]))
        if last < first:
            raise TrainingError(
                f"--layers takes numbers and ranges such as 0,1 or 4-7, got {text!r}."
            )
        numbers |= set(range(first, min(last, MOST_LAYERS) + 1))
    return tuple(sorted(numbers))
