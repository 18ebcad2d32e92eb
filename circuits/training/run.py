"""A run of training: its documents, how they begin, and the name that its checkpoint is kept by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from circuits.model.prompt import PromptRule, opening_ids, own_bos
from circuits.model.subject import Subject
from circuits.training.checkpoint import stored_run
from circuits.training.corpus import Corpus
from circuits.training.loop import CHECKPOINT
from circuits.training.settings import TrainSettings
from graphs.core.opening import Bos, DocumentOpening

ReadCorpus = Callable[[Bos], Corpus]


@dataclass(frozen=True)
class Run:
    """What is trained on."""

    corpus: Corpus
    documents: DocumentOpening  # how they begin, as the dictionary will say
    name: str
    as_begun: bool = False  # with BOS, which is not what was asked for: it was begun so


def chosen_run(
    read: ReadCorpus, subject: Subject, settings: TrainSettings, rule: PromptRule, out: Path
) -> Run:
    """The run that is asked for; without a word on BOS, a run in the folder goes on as it began."""
    run = _run(read, subject, settings, rule)
    begun = stored_run(out / CHECKPOINT)
    if rule.bos == Bos.AUTO and begun not in (None, run.name) and own_bos(subject.tokenizer):
        # Before there was a choice, BOS was in front wherever the tokenizer has one.
        before = _run(read, subject, settings, replace(rule, bos=Bos.ALWAYS))
        return replace(before, as_begun=True) if before.name == begun else run
    return run


def _run(read: ReadCorpus, subject: Subject, settings: TrainSettings, rule: PromptRule) -> Run:
    identity, corpus = subject.identity, read(rule.bos)
    front = opening_ids(subject.tokenizer, rule.bos)
    # Only what is unlike the one rule that there was at first, so that its runs keep their names.
    changed: list[str] = []
    if front != own_bos(subject.tokenizer):
        changed.append(f"documents begin with {list(front)}")
    if rule.context_only is not None:
        changed.append(f"{rule.context_only} first positions are context only")
    return Run(
        corpus=corpus,
        documents=DocumentOpening(bos=bool(front), context_only=rule.context_only),
        name=settings.run_name(
            identity.name,
            str(identity.revision),
            str(subject.frozen.dtype),
            corpus.fingerprint(),
            *changed,
        ),
    )
