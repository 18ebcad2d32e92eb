"""A training run: its documents, how they begin, and the name that identifies its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from circuits.corpora.corpus import Corpus
from circuits.model.prompt import opening_ids, own_bos
from circuits.model.prompt_rule import PromptRule
from circuits.model.subject import Subject
from circuits.training.checkpoint import another_run, stored_run
from circuits.training.first_position import FirstSink, first_sink
from circuits.training.settings import CHECKPOINT, TrainSettings
from graphs.core.opening import Bos, DocumentOpening

ReadCorpus = Callable[[Bos], Corpus]
FORMER = "the training rules of earlier versions"


@dataclass(frozen=True)
class Run:
    """A corpus, and the name of the run on it."""

    corpus: Corpus
    settings: TrainSettings
    documents: DocumentOpening  # how they begin, as the dictionary will state
    name: str
    resumed_as_begun: str | None = None  # what differs from the present rules
    first_sink: FirstSink | None = None  # for which the first position is left out


def chosen_run(
    read: ReadCorpus, subject: Subject, settings: TrainSettings, rule: PromptRule, out: Path
) -> Run:
    """The requested run; one that was begun by earlier rules resumes by them.

    A first position that is an attention sink is left out, unless the rule has a prefix.  Raises
    TrainingError if the folder has another run's checkpoint.
    """
    layers = settings.layers_of(subject.frozen.n_layers)
    sized = settings.sized(len(layers), subject.frozen.d_model)
    run = _run(read, subject, sized, rule)
    sink = first_sink(subject, run.corpus, settings) if rule.n_prefix is None else None
    if sink is not None:
        without = _run(lambda _: run.corpus, subject, sized, replace(rule, n_prefix=1))
        run = replace(without, first_sink=sink)
    begun = stored_run(out / CHECKPOINT)
    if begun in (None, run.name):
        return run
    rules = {"an attention sink at the first position" if sink else "": rule}
    if rule.bos == Bos.AUTO and own_bos(subject.tokenizer):
        # Before there was an option, BOS was prepended if the tokenizer has one.
        rules["BOS in front of documents"] = replace(rule, bos=Bos.ALWAYS)
    for how, settings_then in (("", sized), *((FORMER, former) for former in settings.former())):
        for opening, rule_then in rules.items():
            before = _run(read, subject, settings_then, rule_then)
            if before.name == begun:
                text = " and ".join(filter(None, (opening, how)))
                return replace(before, resumed_as_begun=text)
    raise another_run(out / CHECKPOINT)


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
        settings=settings,
        documents=DocumentOpening(bos=bool(front), n_prefix=rule.n_prefix),
        name=settings.run_name(
            identity.name,
            str(identity.revision),
            str(subject.frozen.dtype),
            corpus.fingerprint(),
            *changed,
        ),
    )
