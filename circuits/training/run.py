"""A training run: its documents, how they begin, and the name that identifies its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from circuits.model.prompt import opening_ids, own_bos
from circuits.model.prompt_rule import PromptRule
from circuits.model.subject import Subject
from circuits.training.checkpoint import stored_run
from circuits.training.corpus import Corpus
from circuits.training.settings import CHECKPOINT, TrainSettings
from graphs.core.opening import Bos, DocumentOpening

ReadCorpus = Callable[[Bos], Corpus]


@dataclass(frozen=True)
class Run:
    """A corpus, and the name of the run on it."""

    corpus: Corpus
    documents: DocumentOpening  # how they begin, as the dictionary will state
    name: str
    resumed_with_bos: bool = False  # as it began, although BOS is not the present default


def chosen_run(
    read: ReadCorpus, subject: Subject, settings: TrainSettings, rule: PromptRule, out: Path
) -> Run:
    """The requested run; if BOS is not specified, a run in the folder resumes as it began."""
    run = _run(read, subject, settings, rule)
    begun = stored_run(out / CHECKPOINT)
    if rule.bos == Bos.AUTO and begun not in (None, run.name) and own_bos(subject.tokenizer):
        # Before there was an option, BOS was prepended if the tokenizer has one.
        before = _run(read, subject, settings, replace(rule, bos=Bos.ALWAYS))
        return replace(before, resumed_with_bos=True) if before.name == begun else run
    return run


def _run(read: ReadCorpus, subject: Subject, settings: TrainSettings, rule: PromptRule) -> Run:
    identity, corpus = subject.identity, read(rule.bos)
    front = opening_ids(subject.tokenizer, rule.bos)
    # Part of the name: only deviations from the original rule, so that earlier runs keep theirs.
    changed: list[str] = []
    if front != own_bos(subject.tokenizer):
        changed.append(f"documents begin with {list(front)}")
    if rule.n_prefix is not None:
        changed.append(f"{rule.n_prefix} first positions are context only")
    return Run(
        corpus=corpus,
        documents=DocumentOpening(bos=bool(front), n_prefix=rule.n_prefix),
        name=settings.run_name(
            identity.name,
            str(identity.revision),
            str(subject.frozen.dtype),
            corpus.fingerprint(),
            *changed,
        ),
    )
