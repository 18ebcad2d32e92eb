"""One dictionary of benchmarks/training.py, trained here and measured; prints one line of JSON.

python benchmarks/training_run.py '{"model": …, "trainer": …, …}'
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from circuits.corpora.corpus import TextCorpus
from circuits.evaluation.fidelity import fidelity
from circuits.evaluation.replacement import Replacement
from circuits.features.files.reading import read_transcoders
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import TopK, Transcoder, with_gaps
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.subject import Subject, read_subject
from circuits.training.activations import Stream, mlp_vectors, padded
from circuits.training.finished.complete import some, trained_set
from circuits.training.finished.report import passes, report
from circuits.training.loop import train
from circuits.training.settings import Kind, Sparsity, TrainSettings
from graphs import DictionaryIdentity
from graphs.core.opening import DocumentOpening

SILENT_TOKENS = 61_440  # of training documents, on which a dead feature does not fire


@dataclass(frozen=True)
class Case:
    """What is trained, on what, by whom."""

    trainer: str  # headwater, plain, or stored: a folder in `out`
    model: str
    documents: str  # JSON of token ids (document, pos)
    held_out: str
    layers: tuple[int, ...]
    width: int
    l0: int
    seed: int
    steps: int
    batch: int  # tokens
    rate: float | None = None
    kind: str = "per-layer"
    sparsity: str = "topk"
    kl_steps: int = 0
    write: str = WritePoint.MLP_OUTPUT  # that of sparsify's hooks on MLPs
    graphs: int = 0  # that are traced
    n_prefix: int | None = None  # positions at the start of documents that do not count
    out: str | None = None


@dataclass(frozen=True)
class Measured:
    """One dictionary on held-out text, per layer; dead features on more tokens than that has."""

    seconds: float  # of CPU, of training alone
    unexplained: tuple[float, ...]
    l0: tuple[float, ...]
    dead: tuple[float, ...]
    divergence: float  # nats, with the reconstructions of all layers
    replacement: float | None  # mean score of graphs


def main() -> None:
    asked = json.loads(sys.argv[1])
    case = Case(**(asked | {"layers": tuple(asked["layers"])}))
    torch.set_num_threads(1)
    subject = read_subject(case.model)
    start = time.process_time()
    found = TRAINERS[case.trainer](case, subject)
    seconds = time.process_time() - start
    print(json.dumps(asdict(measure(case, subject, found, seconds))))


def read(documents: str) -> list[list[int]]:
    """Token ids of all documents of a file."""
    return json.loads(Path(documents).read_text())


def ours(case: Case, subject: Subject) -> TranscoderSet:
    """By headwater's trainer, whose defaults are used for all that the case does not say."""
    settings = TrainSettings(
        kind=Kind(case.kind),
        sparsity=Sparsity(case.sparsity),
        d_dict=case.width,
        l0=case.l0,
        steps=case.steps,
        kl_steps=case.kl_steps,
        batch_tokens=case.batch,
        layers=case.layers,
        seed=case.seed,
        write=WritePoint(case.write),
        learning_rate=case.rate or TrainSettings.learning_rate,
    )
    documents = TextCorpus(tuple(read(case.documents)))
    stream = Stream(subject.frozen, subject.tokenizer, documents, settings, case.n_prefix)
    with TemporaryDirectory() as run:
        layers = train(stream, Path(run) / "run", "run", lambda _: None, 10**9)
    return trained_set(layers, stream, identity(case))


class Plain(nn.Module):
    """The transcoder of a tutorial: linear encoder, TopK, linear decoder, Adam."""

    def __init__(self, case: Case, inputs: Tensor, outputs: Tensor) -> None:
        super().__init__()
        rows = torch.randn(case.width, inputs.shape[1])
        rows /= rows.norm(dim=1, keepdim=True)
        self.k = case.l0
        self.encoder, self.decoder = nn.Parameter(rows.clone()), nn.Parameter(rows.clone())
        self.encoder_bias = nn.Parameter(-rows @ inputs.mean(0))
        self.decoder_bias = nn.Parameter(outputs.mean(0))

    def forward(self, inputs: Tensor) -> Tensor:
        pre = (inputs @ self.encoder.T + self.encoder_bias).relu()
        values, index = pre.topk(self.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, index, values) @ self.decoder + self.decoder_bias


def plain(case: Case, subject: Subject) -> TranscoderSet:
    """By forty lines of torch, on the same documents in the same order."""
    torch.manual_seed(case.seed)
    documents, modules = read(case.documents), list[Plain]()
    optimizer: torch.optim.Optimizer | None = None
    count = case.batch // len(documents[0])
    for step in range(case.steps):
        batch = [documents[(step * count + n) % len(documents)] for n in range(count)]
        ids, counted = padded(batch, subject.tokenizer, subject.frozen.device, case.n_prefix)
        vectors = mlp_vectors(
            subject.frozen, ids, ReadPoint.MLP_INPUT, WritePoint(case.write), case.layers
        )
        inputs, outputs = ([one[counted].clone() for one in some] for some in vectors)
        if optimizer is None:
            modules = [Plain(case, *pair) for pair in zip(inputs, outputs, strict=True)]
            parameters = [p for module in modules for p in module.parameters()]
            optimizer = torch.optim.Adam(parameters, lr=case.rate or 1e-3)
        rise, fall = (step + 1) / (0.05 * case.steps), (case.steps - step) / (0.5 * case.steps)
        for group in optimizer.param_groups:
            group["lr"] = (case.rate or 1e-3) * min(rise, fall, 1)
        losses = [
            (wanted - module(read)).square().sum() / (wanted - wanted.mean(0)).square().sum()
            for module, read, wanted in zip(modules, inputs, outputs, strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    layers = {
        layer: Transcoder(
            one.encoder.detach(),
            one.encoder_bias.detach(),
            (one.decoder.detach(),),
            one.decoder_bias.detach(),
            TopK(case.l0),
        )
        for layer, one in zip(case.layers, modules, strict=True)
    }
    points = ReadPoint.MLP_INPUT, WritePoint(case.write)
    return TranscoderSet(with_gaps(layers), *points, identity(case), partial=True)


def stored(case: Case, subject: Subject) -> TranscoderSet:
    """What another program wrote."""
    del subject
    assert case.out is not None
    return replace(read_transcoders(case.out), identity=identity(case))


def identity(case: Case) -> DictionaryIdentity:
    """A name, and how the documents begin, by which a set is measured."""
    documents = DocumentOpening(bos=False, n_prefix=case.n_prefix)
    return DictionaryIdentity(kind="transcoder", name="benchmark", documents=documents)


TRAINERS = {"headwater": ours, "plain": plain, "stored": stored}


def measure(case: Case, subject: Subject, found: TranscoderSet, seconds: float) -> Measured:
    """One evaluation for all trainers, with all reconstructions at once."""
    documents = read(case.held_out)
    if case.graphs:
        whole = report(subject, found, documents, case.graphs)
        of_layers, replacement = whole.fidelity, whole.replacement
    else:
        of_layers = fidelity(subject.frozen, found, passes(subject, documents, found.n_prefix))
        replacement = None
    return Measured(
        seconds=seconds,
        unexplained=of_layers.unexplained,
        l0=of_layers.l0,
        dead=dead(subject, found, some(read(case.documents), SILENT_TOKENS)),
        divergence=of_layers.divergence,
        replacement=replacement,
    )


@torch.inference_mode()
def dead(subject: Subject, found: TranscoderSet, documents: list[list[int]]) -> tuple[float, ...]:
    """Share of each layer's features that fire on none of these documents."""
    model = Replacement(subject.frozen, found)
    fired = {layer: torch.zeros(one.d_dict) for layer, one in enumerate(found.layers) if one.d_dict}
    for ids, counted in passes(subject, documents, found.n_prefix):
        model.encode(ids)
        for layer, seen in fired.items():
            seen += (model.activations[layer][counted] != 0).sum(0)
    return tuple(float((seen == 0).float().mean()) for seen in fired.values())


if __name__ == "__main__":
    main()
