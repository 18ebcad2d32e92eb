"""Rebuild everything about atlas from scratch: models, transcoders, feature files, report.

    python benchmarks/atlas.py                     # into the package, replacing what ships
    python benchmarks/atlas.py --out /tmp/atlas    # elsewhere
    python benchmarks/atlas.py --transcoders       # transcoders of the models that are there
    python benchmarks/atlas.py --measure           # only the report, on what ships

Results are determined by the seeds; on another machine the last bits may differ.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import torch
from atlas_models import accuracy, train
from rich.console import Console
from transformers import LlamaForCausalLM

import graphs
from atlas_words import atlas_tokenizer
from atlas_world import Question, additions, questions
from circuits.atlas.known import known_circuits, middle_features
from circuits.atlas.shipped import ATLAS, WEIGHTS
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.corpora.corpus import TextCorpus
from circuits.evaluation.fidelity import fidelity
from circuits.evaluation.replacement import Replacement
from circuits.features.files.reading import read_transcoders
from circuits.features.labels import write_feature_files
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from circuits.training import loop
from circuits.training.activations import Stream, padded
from circuits.training.finished.complete import NAMES
from circuits.training.finished.describe import describe
from circuits.training.finished.export import write_transcoders
from circuits.training.log import Logged
from circuits.training.settings import Kind, Sparsity, TrainSettings
from graphs import DictionaryIdentity

RESULTS = Path(__file__).with_name("results")
SETTINGS = {
    name: TrainSettings(
        kind=Kind.CROSS_LAYER,
        sparsity=Sparsity.BATCH_TOP_K,
        d_dict=d_dict,
        l0=7.0,
        steps=steps,
        batch_tokens=2048,
        seed=seed,
        # With the trainer's defaults more is explained, but by features that share what an example
        # means: these keep it (benchmarks/README.md).
        learning_rate=1.5e-3,
        warm_up=0.05,
        cool_down=0.25,
        start_size=2.0,
        shared_budget=False,
        revival=0.25,
        dead_after=200_000,
        bfloat16=True,
    )
    for name, d_dict, steps, seed in (("atlas-small", 992, 900, 2), ("atlas-large", 800, 800, 1))
}
SHORT = {Kind.PER_LAYER: "plt", Kind.SKIP: "skip", Kind.CROSS_LAYER: "clt"}  # in names
REPEATED = 4  # how often documents about countries and landmarks occur, since they are few
RARE = ("country", "city", "language", "currency", "continent")
EXAMPLES = 40_000  # documents from which examples of features are taken
PROMPTS = 2000  # held-out prompts on which replacement models are measured
GRAPHS = 100  # of these, the number that are traced

console = Console(highlight=False)


def keep_memory() -> None:
    """Let the C library keep freed memory: mapping it again takes as long as computing with it."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc
        library.mallopt(-4, 0)  # M_MMAP_MAX
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    torch.set_flush_denormal(True)  # moments of features that no longer fire


def build(name: str, folder: Path) -> None:
    """One atlas model."""
    train(name).bfloat16().save_pretrained(folder)
    atlas_tokenizer().save_pretrained(folder)


def build_transcoders(name: str, folder: Path) -> None:
    """Transcoders and feature files of one atlas model, instead of what is there."""
    subject = read_subject(str(folder))
    with TemporaryDirectory(dir=folder) as made:
        train_transcoders(subject, name, SETTINGS[name], Path(made) / "transcoders")
        rmtree(folder / "transcoders", ignore_errors=True)
        (Path(made) / "transcoders").rename(folder / "transcoders")


def trained_transcoders(name: str, settings: TrainSettings, folder: Path) -> Path:
    """A folder with a model's transcoders, which are trained unless they are there."""
    if not (folder / "features" / "index.json.gz").is_file():
        train_transcoders(read_subject(name), name, settings, folder)
    return folder


def train_transcoders(subject: Subject, name: str, settings: TrainSettings, folder: Path) -> None:
    """Transcoders of a model on what it was trained on, with their feature files."""
    documents = [document(subject, question) for question in training_questions()]
    stream = Stream(subject.frozen, subject.tokenizer, TextCorpus(tuple(documents)), settings)
    start = time.perf_counter()

    def report(logged: Logged) -> None:
        if logged.step % 200 == 0:
            console.print(
                f"{name} {logged.step} loss {logged.loss:.4f} L0 {logged.l0:.1f} "
                f"explained {logged.explained:.4f} dead {logged.dead:.1%} "
                f"{time.perf_counter() - start:.0f} s"
            )

    with TemporaryDirectory() as run:
        layers = loop.train(stream, Path(run), name, report, checkpoint_every=10**9)
    identity = DictionaryIdentity(kind=NAMES[settings.kind], name=f"{name}-{SHORT[settings.kind]}")
    trained = TranscoderSet(layers, settings.read, settings.write, identity)
    crossing = settings.kind == Kind.CROSS_LAYER
    write_transcoders(trained, folder, name, cross_layer=crossing, dtype=torch.bfloat16)
    stored = read_transcoders(folder)
    once = [list(ids) for ids in dict.fromkeys(map(tuple, documents))]
    write_feature_files(folder, identity.name, describe(subject, stored, once[:EXAMPLES]))


def shuffled(held_out: bool) -> list[Question]:
    """All held-out or all other questions, in a fixed random order."""
    chosen = [q for q in (*questions(), *additions()) if q.held_out == held_out]
    random.Random(1).shuffle(chosen)
    return chosen


def training_questions() -> list[Question]:
    """The questions that transcoders are trained on, in a fixed random order."""
    seen = shuffled(held_out=False)
    rare = [q for q in seen if q.relations[0] in RARE]
    chosen = [*seen, *rare * (REPEATED - 1)]
    random.Random(2).shuffle(chosen)
    return chosen


def document(subject: Subject, question: Question) -> list[int]:
    """Token ids of a question and its answer, from <bos> to <eos>."""
    ids = subject.tokenizer.encode(f"{question.prompt} {question.answer}", add_special_tokens=False)
    return [1, *ids, 2]


def measure(name: str, folder: Path) -> dict[str, object]:
    """The report of one model and its transcoders."""
    subject, transcoders = read_subject(str(folder)), read_transcoders(folder / "transcoders")
    asked = shuffled(held_out=True)[:PROMPTS]
    ids = [[1, *subject.tokenizer.encode(q.prompt, add_special_tokens=False)] for q in asked]
    found = fidelity(
        subject.frozen,
        transcoders,
        (padded(batch, subject.tokenizer, subject.frozen.device) for batch in batched(ids)),
    )
    shares = graph_scores(subject, transcoders, [q.prompt for q in asked[:GRAPHS]])
    missed, written, mistaken = circuits_shown(subject, transcoders)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {
        "answers": accuracy(model, atlas_tokenizer()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "agreement_at_answers": agreement(subject, transcoders, ids),
        "fidelity": asdict(found),
        "mean_l0": float(np.mean(found.l0)),
        **shares,
        "known_circuits": len(known_circuits()) - len(missed),
        "written_first": written,
        "other_concepts": mistaken,
        "missed": missed,
    }


def batched(prompts: list[list[int]], count: int = 250) -> Iterator[list[list[int]]]:
    """Batches of prompts."""
    yield from (prompts[start : start + count] for start in range(0, len(prompts), count))


def agreement(subject: Subject, transcoders: TranscoderSet, prompts: list[list[int]]) -> float:
    """Share of prompts whose most likely next token stays when all MLPs are replaced."""
    model = Replacement(subject.frozen, transcoders)
    same = 0
    for batch in batched(prompts):
        ids, counted = padded(batch, subject.tokenizer, subject.frozen.device)
        rows, last = torch.arange(len(batch)), torch.tensor([len(row) - 1 for row in batch])
        own = model.logits(ids, None)[rows, last].argmax(-1)
        replaced = model.logits(ids, counted)[rows, last].argmax(-1)
        same += int((own == replaced).sum())
    return same / len(prompts)


def graph_scores(
    subject: Subject, transcoders: TranscoderSet, prompts: list[str]
) -> dict[str, float]:
    """Mean scores of complete graphs."""
    settings = TraceSettings(expansion=Expansion(everything=True), labels=0)
    scores, worst = [], 0.0
    for text in prompts:
        graph = trace(read_prompt(text, subject.tokenizer), subject, transcoders, settings)
        scores.append(graphs.scores(graph))
        worst = max(worst, graph.provenance.checks.conservation_max or 0.0)
    return {
        "replacement": float(np.mean([score.replacement for score in scores])),
        "completeness": float(np.mean([score.completeness for score in scores])),
        "worst_conservation": worst,
    }


def circuits_shown(subject: Subject, transcoders: TranscoderSet) -> tuple[list[str], int, float]:
    """Circuits whose pruned graphs do not show the middle concept; two numbers on those that do.

    In how many a feature writes the concept before all else.  And the share of all other circuits'
    concepts that the graphs show: labels that name everything would show every concept, and these
    as well.
    """
    missed, written, shown, asked = list[str](), 0, 0, 0
    for circuit in known_circuits():
        graph = graphs.prune(
            trace(read_prompt(circuit.prompt, subject.tokenizer), subject, transcoders)
        )
        found = middle_features(graph, circuit)
        written += any(first_written(graph, row) == circuit.middle for row in found)
        if not found:
            missed.append(f"{circuit.prompt}: no {circuit.middle}")
        others = {other.middle for other in known_circuits()} - {circuit.middle}
        asked += len(others)
        shown += sum(bool(middle_features(graph, replace(circuit, middle=o))) for o in others)
    return missed, written, shown / asked


def first_written(graph: graphs.AttributionGraph, row: int) -> str:
    """The token nearest to what a feature writes at its own layer."""
    description = graph.description(row)
    return (
        description.promoted_at_own_layer[0].strip()
        if description and description.promoted_at_own_layer
        else ""
    )


def table(reports: dict[str, dict[str, object]]) -> str:
    """All reports as one Markdown table."""
    lines: list[tuple[str, Callable[[dict], str], str]] = [
        ("parameters", lambda r: f"{r['parameters']:,}", ""),
        ("bytes with transcoders", lambda r: f"{r['bytes']:,}", "25 MB both"),
        *(
            (f"{kind} answered", lambda r, kind=kind: f"{r['answers'][kind]:.2%}", aim)
            for kind, aim in (
                ("facts seen", "99 %"),
                ("compositions seen", "99 %"),
                ("compositions held out", "95 %"),
                ("sums seen", "99 %"),
                ("sums held out", ""),
            )
        ),
        ("same answer, all MLPs replaced", lambda r: f"{r['agreement_at_answers']:.2%}", "90 %"),
        ("same next token at every position", lambda r: f"{r['fidelity']['agreement']:.2%}", ""),
        ("KL at every position, nats", lambda r: f"{r['fidelity']['divergence']:.4f}", ""),
        ("replacement score", lambda r: f"{r['replacement']:.3f}", "0.75"),
        ("completeness score", lambda r: f"{r['completeness']:.3f}", "0.9"),
        ("L0 per layer and token", lambda r: f"{r['mean_l0']:.1f}", "25 at most"),
        ("unexplained variance", lambda r: f"{np.mean(r['fidelity']['unexplained']):.4f}", ""),
        ("dead features", lambda r: f"{np.mean(r['fidelity']['dead']):.1%}", ""),
        ("worst conservation of a row", lambda r: f"{r['worst_conservation']:.1e}", ""),
        ("known circuits shown, of 50", lambda r: f"{r['known_circuits']}", "40"),
        ("… by a feature that writes it first", lambda r: f"{r['written_first']}", ""),
        ("other circuits' concepts in their place", lambda r: f"{r['other_concepts']:.1%}", ""),
    ]
    names = list(reports)
    text = [f"| | {' | '.join(names)} | aim |", "|---" * (len(names) + 2) + "|"]
    for title, value, aim in lines:
        cells = " | ".join(value(reports[name]) for name in names)
        text.append(f"| {title} | {cells} | {aim} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--measure", action="store_true", help="do not train")
    parser.add_argument("--transcoders", action="store_true", help="do not train the models")
    parser.add_argument("--only", choices=ATLAS, help="one model")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else sorted(ATLAS, reverse=True)
    start = time.perf_counter()
    keep_memory()
    if not arguments.measure:
        for name in names:
            if not arguments.transcoders:
                build(name, arguments.out / name)
            build_transcoders(name, arguments.out / name)
    reports = {name: measure(name, arguments.out / name) for name in names}
    took = time.perf_counter() - start
    text = table(reports)
    console.print(text)
    for name, report in reports.items():
        for prompt in cast(list[str], report["missed"]):
            console.print(f"{name} misses: {prompt}")
    if arguments.out == WEIGHTS and not arguments.only:
        made = "measured" if arguments.measure else "rebuilt and measured"
        head = (
            f"# Atlas\n\n{made.capitalize()} in {took / 60:.0f} minutes on {date.today()}, "
            f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}."
        )
        (RESULTS / "atlas.md").write_text(f"{head}\n\n{text}\n", encoding="utf-8")
        (RESULTS / "atlas.json").write_text(json.dumps(reports, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
