"""headwater's trainer beside sparsify's and beside forty lines of torch, on the same documents.

    python benchmarks/training.py --environment FOLDER

sparsify has an environment of its own, which is created in FOLDER if necessary, with its release
on PyPI.  Documents are docstrings of installed packages (prose.py), 246,000 tokens of them; those
held out are in no training.  All have one thread and one evaluation: variance unexplained on
held-out documents, and KL with the MLPs of all trained layers replaced.  Dead features fire on none
of 61,440 tokens of the training documents: what is held out has too few words.  What an MLP gives
before a norm behind it is the output (sparsify's hooks are there).  Seconds are of CPU, of training
alone, the model's own passes included.  Of the 32 largest pre-activations of a peer some are
negative, and count for nothing: on Gemma sparsify's dictionaries have an L0 of 20, so headwater is
trained with 20 there as well.  What is in results/training.json is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from prose import documents
from speed import processor
from training_run import Case, Measured

from circuits.corpora.corpus import is_held_out
from circuits.model.packaged import converted_folder
from circuits.model.prompt import opening_ids
from circuits.model.subject import Subject, read_subject
from graphs import Bos

RESULTS = Path(__file__).with_name("results")
RELEASE, TORCH = "eai-sparsify==1.3.3", "torch==2.13.0"
LENGTH, TRAINED, HELD_OUT = 256, 960, 16  # tokens of a document, and documents
LAYERS = {"smollm2-135m": (0, 1, 3), "gemma-3-270m": (0, 2, 5)}
WIDTH, L0 = 2048, 32
SPARSER = ("gemma-3-270m",)  # models of which sparsify's dictionaries are sparser than asked
BATCH = 2048
PEERS = {  # each at its defaults, but for the rate that served headwater best
    "plain torch": {"trainer": "plain"},
    "plain torch, rate 3e-3": {"trainer": "plain", "rate": 3e-3},
    "sparsify": {"trainer": "sparsify"},
}
OURS = {
    "headwater topk": {"trainer": "headwater"},
    "headwater batch-topk": {"trainer": "headwater", "sparsity": "batch-topk"},
}
AS_SPARSE = {"headwater topk, L0 of sparsify": {"trainer": "headwater", "l0": 20}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=LAYERS, help="one model")
    arguments = parser.parse_args()
    environment(arguments.environment)
    models = [arguments.only] if arguments.only else list(LAYERS)
    rows = Rows(RESULTS / "training.json")
    with TemporaryDirectory() as folder:
        for name, case in cases(models, Path(folder), arguments.seeds):
            if name not in rows:
                rows.add(name, trained(case, arguments.environment, Path(folder)))
                write(rows.by_case())


def write(found: dict[str, list[Measured]]) -> None:
    """The tables of what has been measured so far."""
    text = "\n".join(table(model, found) for model in dict.fromkeys(map(model_of, found)))
    (RESULTS / "training.md").write_text(
        f"# Training\n\n{machine()}, {RELEASE}.\n\n{text}\n", encoding="utf-8"
    )


def model_of(name: str) -> str:
    """The first word of a row's name."""
    return name.split(" ", 1)[0]


class Rows:
    """What was measured, kept row by row, so that an interrupted benchmark goes on.

    A row's name ends with its seed.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, dict] = json.loads(file.read_text()) if file.exists() else {}

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def add(self, name: str, measured: Measured) -> None:
        """Keep one more row."""
        self.found[name] = asdict(measured)
        print(name, json.dumps(self.found[name]), flush=True)
        self.file.write_text(json.dumps(self.found, indent=1), encoding="utf-8")

    def by_case(self) -> dict[str, list[Measured]]:
        """The rows of all seeds of each."""
        found: dict[str, list[Measured]] = {}
        for name, measured in self.found.items():
            found.setdefault(name.rpartition(" ")[0], []).append(Measured(**measured))
        return found


def machine() -> str:
    """Date and machine."""
    system = f"{processor()}, {platform.system()}"
    return f"{date.today()}, {system}, one thread, torch {torch.__version__}"


def environment(folder: Path) -> None:
    """sparsify's environment."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        for wanted in (TORCH, RELEASE):
            subprocess.run([python, "-m", "pip", "install", "--quiet", wanted], check=True)


def cases(models: list[str], folder: Path, seeds: int) -> Iterator[tuple[str, Case]]:
    """Every dictionary that is trained, with its row's name."""
    for model in models:
        write_documents(model, prose(read_subject(model)), folder)
    rows = OURS | PEERS | AS_SPARSE
    for seed, model, name in product(range(seeds), models, rows):
        if name in AS_SPARSE and model not in SPARSER:
            continue
        case = Case(
            trainer="headwater",
            model=model,
            documents=str(folder / f"{model}-train.json"),
            held_out=str(folder / f"{model}-held.json"),
            layers=LAYERS[model],
            width=WIDTH,
            l0=L0,
            seed=seed,
            steps=TRAINED * LENGTH // BATCH,
            batch=BATCH,
        )
        yield f"{model} {name} {seed}", replace(case, **rows[name])


def prose(subject: Subject) -> dict[str, list[list[int]]]:
    """Token ids of documents to train on, and of held-out ones."""
    front = opening_ids(subject.tokenizer, Bos.AUTO)
    texts = documents(subject.tokenizer, TRAINED + 30 * HELD_OUT, LENGTH, front)
    held = [ids for ids in texts if is_held_out(ids)][:HELD_OUT]
    kept = [ids for ids in texts if not is_held_out(ids)][:TRAINED]
    return {"train": kept, "held": held}


def write_documents(model: str, texts: dict[str, list[list[int]]], folder: Path) -> None:
    """Where the cases of a model read them."""
    for name, ids in texts.items():
        (folder / f"{model}-{name}.json").write_text(json.dumps(ids))


def trained(case: Case, environment: Path | None, folder: Path) -> Measured:
    """Train and measure in processes of their own."""
    if case.trainer != "sparsify":
        return measured_case(case)
    assert environment is not None
    out = folder / f"sparsify-{case.model}-{case.seed}"
    model, _ = converted_folder(case.model)
    layers = ",".join(map(str, case.layers))
    numbers = [layers, case.width, case.l0, case.seed, case.batch // LENGTH]
    documents = json.loads(Path(case.documents).read_text())[: case.steps * case.batch // LENGTH]
    given = folder / "sparsify.json"  # of which it trains on all
    given.write_text(json.dumps(documents))
    arguments = [model, given, out, *numbers]
    script = Path(__file__).with_name("sparsify_run.py")
    line = last_line(environment / "bin" / "python", script, *arguments)
    measured = measured_case(replace(case, trainer="stored", out=str(out / "run")))
    return replace(measured, seconds=float(line.removeprefix("seconds ")))


def measured_case(case: Case) -> Measured:
    """Train if there is something to train, and measure."""
    script = Path(__file__).with_name("training_run.py")
    return Measured(**json.loads(last_line(sys.executable, script, json.dumps(asdict(case)))))


def last_line(*command: object) -> str:
    """What a process on one thread prints last."""
    settings = os.environ | {"OMP_NUM_THREADS": "1", "SPARSIFY_DISABLE_TRITON": "1"}
    words = [str(part) for part in command]
    output = subprocess.run(words, env=settings, check=True, capture_output=True, text=True)
    return output.stdout.splitlines()[-1]


def table(model: str, found: dict[str, list[Measured]]) -> str:
    """The rows of one model, means over seeds with the spread of unexplained variance."""
    rows = {name: many for name, many in found.items() if model_of(name) == model}
    lines = [
        f"## {model}, layers {', '.join(map(str, LAYERS[model]))}, width {WIDTH}, L0 {L0}",
        "",
        "| | seeds | unexplained | spread | beside the best peer | L0 | dead | KL "
        "| tokens per CPU second |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    peers = [
        _mean(many, "unexplained") for name, many in rows.items() if name.split(" ", 1)[1] in PEERS
    ]
    best = np.min(peers, axis=0) if peers else np.nan
    for name, many in rows.items():
        unexplained, l0, dead = (_mean(many, key) for key in ("unexplained", "l0", "dead"))
        spread = np.std([one.unexplained for one in many], axis=0)
        divergence = np.mean([one.divergence for one in many])
        tokens = TRAINED * LENGTH / np.mean([one.seconds for one in many])
        lines.append(
            f"| {name.split(' ', 1)[1]} | {len(many)} | {_numbers(unexplained, '.3f')} "
            f"| {_numbers(spread, '.3f')} | {_numbers(unexplained / best, '.2f')} "
            f"| {_numbers(l0, '.1f')} | {dead.mean():.1%} | {divergence:.3f} | {tokens:,.0f} |"
        )
    return "\n".join([*lines, ""])


def _mean(many: list[Measured], key: str) -> np.ndarray:
    return np.mean([getattr(one, key) for one in many], axis=0)


def _numbers(values: np.ndarray, form: str) -> str:
    return " / ".join(format(float(value), form) for value in values)


if __name__ == "__main__":
    main()
