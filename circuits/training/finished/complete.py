"""A complete run: a dictionary is trained, written with feature files, and read and measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from circuits.corpora.corpus import held_out
from circuits.features.files.reading import read_transcoders
from circuits.features.labels import write_feature_files
from circuits.features.transcoder import Transcoder, with_gaps
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from circuits.training.activations import Stream
from circuits.training.finished.describe import describe
from circuits.training.finished.export import write_transcoders
from circuits.training.finished.report import DOCUMENTS, TrainingReport, report
from circuits.training.log import Logged
from circuits.training.loop import train
from circuits.training.needs import require_memory
from circuits.training.processes import ALONE, Processes
from circuits.training.run import Run
from circuits.training.settings import Kind
from graphs.core.provenance import DictionaryIdentity
from graphs.disk.files import atomic_write

DESCRIBED = 2000  # documents at most from which feature examples come
LEAST_TOKENS = 512  # that are measured and described
GRAPH_TOKENS = 100_000  # trained for each graph of the report
NAMES = {
    Kind.PER_LAYER: "transcoder",
    Kind.SKIP: "transcoder",
    Kind.CROSS_LAYER: "cross-layer transcoder",
}


def train_and_measure(
    subject: Subject,
    run: Run,
    out: Path,
    progress: Progress = ignore_progress,
    checkpoint_every: int = 1000,
    processes: Processes = ALONE,
) -> TrainingReport:
    """Write a dictionary, its feature files and `report.json` into a folder.

    Resumes from the folder's checkpoint.  Of several processes the first one calls this, and the
    others `train` alone.

    Raises TrainingError as `train` and if there is too little memory, GraphFileError for files
    that cannot be written.
    """
    settings, n_prefix = run.settings, run.documents.n_prefix
    # A short run must not be measured and described for longer than it has lasted.
    tokens = settings.all_steps * settings.batch_tokens
    documents_held_out = held_out(
        run.corpus,
        subject.tokenizer,
        DOCUMENTS,
        n_prefix,
        progress,
        within=tokens // 2,
        enough=max(tokens // 1000, LEAST_TOKENS),
    )

    def on_step(logged: Logged) -> None:
        text = (
            f"loss {logged.loss:.3f} · L0 {logged.l0:.1f} · explained {logged.explained:.1%} "
            f"· dead {logged.dead:.1%}"
        )
        progress(text, logged.step, settings.all_steps)

    stream = stream_of(subject, run, progress, processes)
    require_memory(stream)
    layers = train(stream, out, run.name, on_step, checkpoint_every)
    identity = DictionaryIdentity(
        kind=NAMES[settings.kind], name=out.resolve().name, documents=run.documents
    )
    transcoders = trained_set(layers, stream, identity)
    progress("write", 0, 1)
    crossing = settings.kind == Kind.CROSS_LAYER
    write_transcoders(transcoders, out, subject.identity.name, cross_layer=crossing)
    written = read_transcoders(out)
    progress("describe", 0, 1)
    documents = some(islice(run.corpus.documents(0), DESCRIBED), tokens // 80)
    write_feature_files(out, identity.name, describe(subject, written, documents))
    progress("report", 0, 1)
    found = report(subject, written, documents_held_out, tokens // GRAPH_TOKENS)
    with atomic_write(out / "report.json") as temporary:
        content = json.dumps(found.as_json(), indent=1)
        temporary.write_text(content, encoding="utf-8", newline="\n")
    return found


def some(documents: Iterable[list[int]], tokens: int) -> list[list[int]]:
    """The first documents, up to this number of tokens, or LEAST_TOKENS if that is less."""
    found: list[list[int]] = []
    tokens = max(tokens, LEAST_TOKENS)
    for ids in documents:
        if tokens <= 0:
            break
        found.append(ids)
        tokens -= len(ids)
    return found


def stream_of(
    subject: Subject,
    run: Run,
    progress: Progress = ignore_progress,
    processes: Processes = ALONE,
) -> Stream:
    """The activations that a run is trained on.  Raises DeviceError for several devices."""
    subject.frozen.require_one_device("Training")
    settings, n_prefix = run.settings, run.documents.n_prefix
    frozen, tokenizer = subject.frozen, subject.tokenizer
    return Stream(frozen, tokenizer, run.corpus, settings, n_prefix, progress, processes)


def trained_set(
    trained: tuple[Transcoder, ...], stream: Stream, identity: DictionaryIdentity
) -> TranscoderSet:
    """A set of what was trained, without features in the model's other layers."""
    settings = stream.settings
    layers = with_gaps(dict(zip(stream.layers, trained, strict=True)))
    return TranscoderSet(
        layers, settings.read, settings.write, identity, partial=settings.layers is not None
    )
