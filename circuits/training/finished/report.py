"""The report at the end of a run: the finished dictionary on held-out documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

import graphs
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.evaluation.fidelity import Fidelity, fidelity
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.prompt import prompt_from_ids
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.training.activations import padded
from graphs.core.brief import Brief

DOCUMENTS = 128  # held-out documents that are measured
PASS_LOGITS = 2**27  # largest number of logits of a pass
GRAPHS, FEW_GRAPHS = 20, 2  # held-out documents that are traced, at most and of a short run
MOSTLY = 0.5  # of the variance
TRACED_TOKENS = 16  # of each, at most: complete graphs grow with the square of their tokens


@dataclass(frozen=True, repr=False)
class TrainingReport(Brief):
    """Quality of a dictionary."""

    fidelity: Fidelity
    replacement: float | None  # mean scores of complete graphs (`graphs.scores`)
    completeness: float | None  # None if no document is long enough for a graph
    traced: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """What scores of graphs do not show: they count features, however wrong their sum is."""
        bad = {
            layer: unexplained
            for layer, unexplained in zip(
                self.fidelity.layers, self.fidelity.unexplained, strict=True
            )
            if unexplained > MOSTLY
        }
        if not bad:
            return ()
        worst = max(bad.values())
        return (
            f"{_layers(bad)} more than half of the variance unexplained (up to {worst:.2f}; 1 is "
            "what their mean would leave): graphs are not to be trusted there, however high their "
            "replacement score is. Train longer, with more features or a higher L0.",
        )

    def as_json(self) -> dict[str, object]:
        """All numbers, for report.json."""
        return {**asdict(self), "warnings": list(self.warnings)}


def _layers(some: Iterable[int]) -> str:
    numbers = list(map(str, some))
    if len(numbers) == 1:
        return f"Layer {numbers[0]} leaves"
    return f"Layers {', '.join(numbers[:-1])} and {numbers[-1]} leave"


def report(
    subject: Subject, transcoders: TranscoderSet, documents: list[list[int]], n_graphs: int
) -> TrainingReport:
    """Measure a dictionary on held-out documents, with at least FEW_GRAPHS and at most GRAPHS."""
    n_prefix = transcoders.n_prefix
    measured = fidelity(subject.frozen, transcoders, passes(subject, documents, n_prefix))
    settings = TraceSettings(expansion=Expansion(everything=True), labels=0)
    beginnings = [ids[:TRACED_TOKENS] for ids in documents]
    long_enough = [ids for ids in beginnings if len(ids) > max(2, n_prefix or 0)]
    scores = [
        graphs.scores(
            trace(
                prompt_from_ids(ids, subject.tokenizer, n_prefix),
                subject,
                transcoders,
                settings,
            )
        )
        for ids in long_enough[: max(FEW_GRAPHS, min(n_graphs, GRAPHS))]
    ]
    return TrainingReport(
        fidelity=measured,
        replacement=float(np.mean([s.replacement for s in scores])) if scores else None,
        completeness=float(np.mean([s.completeness for s in scores])) if scores else None,
        traced=len(scores),
    )


def passes(
    subject: Subject, documents: list[list[int]], n_prefix: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Passes whose logits fit into memory: ids, and which positions may have features."""
    longest = max(map(len, documents))
    count = max(1, PASS_LOGITS // (longest * len(subject.frozen.unembedding)))
    for start in range(0, len(documents), count):
        batch = documents[start : start + count]
        yield padded(batch, subject.tokenizer, subject.frozen.device, n_prefix)
