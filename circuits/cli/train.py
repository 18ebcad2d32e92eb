"""The command that trains dictionaries."""

from __future__ import annotations

import json
import re
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from circuits.cli.app import app, errors, output, plain_errors, print_json, remark, say
from circuits.cli.options import (
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
from circuits.cli.outputs import require_folder
from circuits.cli.trace import DEFAULT_MODEL
from circuits.descriptions import write_feature_files
from circuits.progress import Progress, progress_bar
from circuits.subject import Subject, read_subject
from circuits.tokens import DEFAULT_RULE, PromptRule
from circuits.training.activations import Stream
from circuits.training.corpus import (
    SUFFIXES,
    Corpus,
    held_out,
    read_corpus,
    require_enough,
    sampled_corpus,
)
from circuits.training.dataset import dataset_corpus
from circuits.training.describe import describe
from circuits.training.export import write_transcoders
from circuits.training.loop import CHECKPOINT, Logged, train
from circuits.training.report import DOCUMENTS, Report, report
from circuits.training.run import Run, chosen_run
from circuits.training.settings import Kind, Sparsity, TrainingError, TrainSettings
from circuits.transcoders import TranscoderSet
from circuits.weights import read_transcoders
from graphs import Bos, DictionaryIdentity
from graphs.files import atomic_write

DEFAULTS = TrainSettings()
DATASET = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")  # a name on the Hub
DESCRIBED = 2000  # documents from which feature examples come
NAMES = {
    Kind.PER_LAYER: "transcoder",
    Kind.SKIP: "transcoder",
    Kind.CROSS_LAYER: "cross-layer transcoder",
}


@app.command("train")
@plain_errors
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
        found = trained_and_measured(subject, run, settings, out, progress, checkpoint_every)
    with atomic_write(out / "report.json") as temporary:
        text = json.dumps(found.as_json(), indent=1)
        temporary.write_text(text, encoding="utf-8", newline="\n")
    if as_json:
        print_json(found.as_json())
        return
    show_report(found, out)


def trained_and_measured(
    subject: Subject,
    run: Run,
    settings: TrainSettings,
    out: Path,
    progress: Progress,
    checkpoint_every: int,
) -> Report:
    """Train, write the dictionary and its feature files, and measure what was written."""
    context_only = run.documents.context_only
    measured = held_out(run.corpus, subject.tokenizer, DOCUMENTS, context_only)

    def tell(logged: Logged) -> None:
        told = (
            f"loss {logged.loss:.3f} · L0 {logged.l0:.1f} · explained {logged.explained:.1%} "
            f"· dead {logged.dead:.1%}"
        )
        progress(told, logged.step, settings.steps)

    stream = Stream(subject.frozen, subject.tokenizer, run.corpus, settings, context_only)
    layers = train(stream, out, run.name, tell, checkpoint_every)
    identity = DictionaryIdentity(
        kind=NAMES[settings.kind], name=out.resolve().name, documents=run.documents
    )
    transcoders = TranscoderSet(layers, settings.read, settings.write, identity)
    progress("write", 0, 1)
    crossing = settings.kind == Kind.CROSS_LAYER
    write_transcoders(transcoders, out, subject.identity.name, cross_layer=crossing)
    written = read_transcoders(out)
    progress("describe", 0, 1)
    documents = list(islice(run.corpus.documents(0), DESCRIBED))
    write_feature_files(out, identity.name, describe(subject, written, documents))
    progress("report", 0, 1)
    return report(subject, written, measured)


def chosen_corpus(
    corpus: str | None,
    subject: Subject,
    settings: TrainSettings,
    length: int,
    column: str,
    bos: Bos,
) -> Corpus:
    """A file, a folder, a dataset on the Hub, or without a name the model's own samples."""
    length = min(length, subject.frozen.context_length or length)
    if corpus is None:
        return sampled_corpus(subject, length, settings.seed, bos)
    if is_dataset_name(corpus):
        return dataset_corpus(corpus, subject.tokenizer, length, column, bos)
    texts = read_corpus(Path(corpus), subject.tokenizer, length, bos)
    require_enough(texts, settings.batch_tokens)
    return texts


def is_dataset_name(corpus: str) -> bool:
    """Whether this can name a dataset on the Hub: `owner/name`, and no file or folder here."""
    owner, _, name = corpus.partition("/")
    if not DATASET.fullmatch(corpus) or owner.startswith(".") or Path(name).suffix in SUFFIXES:
        return False
    return not Path(owner).exists()


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
