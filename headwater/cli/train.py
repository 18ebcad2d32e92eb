"""The command that trains dictionaries."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import circuits
from circuits.atlas.shipped import DEFAULT_MODEL
from circuits.model.data_type import DType
from circuits.model.prompt_rule import DEFAULT_RULE, PromptRule
from circuits.progress import progress_bar
from circuits.training.settings import CHECKPOINT, Kind, Sparsity, TrainingError, TrainSettings
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
    kind: Annotated[Kind, typer.Option(help="Kind of dictionary.")] = DEFAULTS.kind,
    sparsity: Annotated[
        Sparsity, typer.Option(help="How sparsity is enforced.")
    ] = DEFAULTS.sparsity,
    width: Annotated[
        int, typer.Option(min=1, max=2**24, help="Features per layer.")
    ] = DEFAULTS.d_dict,
    l0: Annotated[float, typer.Option(help="Active features per layer and token.")] = DEFAULTS.l0,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = DEFAULTS.steps,
    batch: Annotated[
        int, typer.Option(min=1, max=2**24, help="Tokens per step.")
    ] = DEFAULTS.batch_tokens,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = DEFAULTS.learning_rate,
    matryoshka: Annotated[
        list[float] | None,
        typer.Option(help="Share of the features that must reconstruct alone; repeatable."),
    ] = None,
    column: Annotated[str, typer.Option(help="Column of a dataset that holds texts.")] = "text",
    length: Annotated[int, typer.Option(min=2, help="Tokens per document at most.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = DEFAULTS.seed,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 1000,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Compute products with decoders in bfloat16.")
    ] = DEFAULTS.bfloat16,
    penalty: Annotated[
        float, typer.Option(help="Weight of the penalty of jumprelu and tanh.")
    ] = DEFAULTS.penalty,
    bandwidth: Annotated[
        float, typer.Option(help="Bandwidth of the straight-through estimator of thresholds.")
    ] = DEFAULTS.bandwidth,
    shuffled: Annotated[
        int,
        typer.Option(
            "--shuffle", max=2**28, help="Tokens whose activations are shuffled together."
        ),
    ] = DEFAULTS.shuffled_tokens,
    bos: BosRule = DEFAULT_RULE.bos,
    n_prefix: PrefixLength = DEFAULT_RULE.n_prefix,
    dtype: Type = DType.FLOAT32,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train transcoders for a model; the same command continues after an interruption."""
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
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = circuits.read_subject(model, revision=revision, dtype=dtype, device=device)
        subject.frozen.require_one_device("Training")
        read = partial(circuits.chosen_corpus, corpus, subject, settings, length, column)
        run = circuits.chosen_run(read, subject, settings, PromptRule(bos, n_prefix), out)
        if run.resumed_with_bos:
            remark(f"The run in {out} continues with BOS in front of documents, as it was begun.")
        found = circuits.train_and_measure(subject, run, settings, out, progress, checkpoint_every)
    if as_json:
        print_json(found.as_json())
        return
    show_report(found, out)


def show_report(found: circuits.TrainingReport, out: Path) -> None:
    """Print a report as a table."""
    fidelity = found.fidelity
    headings = ("layer", "unexplained", "L0", "dead")
    table = plain_table(*headings, right=headings)
    for layer, numbers in enumerate(
        zip(fidelity.unexplained, fidelity.l0, fidelity.dead, strict=True)
    ):
        unexplained, l0, dead = numbers
        table.add_row(*map(Text, (str(layer), f"{unexplained:.3f}", f"{l0:.1f}", f"{dead:.1%}")))
    output.print(table)
    print_line(
        f"all MLPs replaced: same next token {fidelity.agreement:.1%}, KL {fidelity.divergence:.3f}"
        f" nats, over {fidelity.tokens:,} held-out tokens"
    )
    if found.replacement is not None:
        print_line(
            f"{found.traced} graphs: replacement {found.replacement:.3f}, "
            f"completeness {found.completeness:.3f}"
        )
    print_line(f"dictionary: {out}")
