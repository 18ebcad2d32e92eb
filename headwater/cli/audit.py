"""The command that audits a model on pairs of prompts: audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

import graphs
import viz
from circuits.attribution.expand import Expansion
from circuits.evaluation.audit import AuditSettings, audit
from circuits.features.files.source import read_source
from circuits.model.prompt import DEFAULT_RULE, PromptRule, opening_ids, own_bos
from circuits.model.subject import Subject, read_subject
from circuits.pipe import TraceSettings
from circuits.progress import Progress, progress_bar
from graphs.errors import HeadwaterError
from headwater.audit_folder import HEADER, AuditFolder
from headwater.cli.app import app
from headwater.cli.opening_remarks import say_once
from headwater.cli.options import (
    MOST,
    MOST_DRAWN,
    AsJson,
    BosRule,
    Chat,
    ContextOnly,
    Device,
    DType,
    FeatureKind,
    Fill,
    Force,
    MaxFeatures,
    Model,
    ReadAt,
    Revision,
    Tolerance,
    Transcoders,
    Type,
    WriteAt,
)
from headwater.cli.trace import DEFAULT_MODEL, EXPANSION
from headwater.cli.usage import UsageError, require_consistent
from headwater.outputs.places import require_folder
from headwater.terminal.printing import errors, output, print_json, remark, say

Traced = tuple[graphs.AttributionGraph, graphs.AttributionGraph]
SETTINGS = AuditSettings()  # defaults come from it, so that they cannot differ


@app.command("audit")
def audit_command(
    prompts: Annotated[
        Path,
        typer.Argument(
            help='JSON lines like {"first": …, "second": …}; name, kind, target, against '
            "may be added."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for graphs, pages and tables.")],
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    transcoders: Transcoders = None,
    read_at: ReadAt = None,
    write_at: WriteAt = None,
    fill: Fill = None,
    features: FeatureKind = None,
    max_features: MaxFeatures = EXPANSION.max_features,
    tolerance: Tolerance = EXPANSION.tolerance,
    carriers: Annotated[
        int,
        typer.Option(min=1, max=MOST, help="Features of each pair that are tested in the model."),
    ] = SETTINGS.carriers,
    random_sets: Annotated[
        int,
        typer.Option(min=1, max=MOST_DRAWN, help="Random sets of as many features, beside them."),
    ] = SETTINGS.random_sets,
    chat: Chat = False,
    bos: BosRule = DEFAULT_RULE.bos,
    context_only: ContextOnly = DEFAULT_RULE.context_only,
    dtype: Type = DType.FLOAT32,
    device: Device = "cpu",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Say which features carry the difference between prompts that differ in one thing.

    Every pair is kept as soon as it is done: the same command goes on where it was interrupted.
    """
    require_consistent(transcoders=transcoders, features=features, targets=[], against=None)
    pairs, problems = _read(prompts)
    require_folder(out, HEADER, prompts, model, transcoders)
    folder = AuditFolder(out)
    expansion = Expansion(max_features, tolerance)
    settings = AuditSettings(carriers, random_sets, trace=TraceSettings(expansion=expansion))
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        source = read_source(
            subject,
            transcoders,
            neurons=features is not None,
            max_neurons=max_features,
            read=read_at,
            write=write_at,
            filled=fill is not None,
        )
        rule = PromptRule(_bos_of(folder, subject, bos, chat), context_only)
        folder.begin(
            {
                "model": subject.identity.model_dump(),
                "dtype": dtype,
                "chat": chat,
                "transcoders": transcoders,
                "features": features,
                "points": {"read": read_at, "write": write_at, "filled": fill is not None},
                "max-features": max_features,
                "tolerance": tolerance,
                "carriers": carriers,
                "random-sets": random_sets,
                "opening": opening_ids(subject.tokenizer, rule.bos, chat=chat),
                "context-only": context_only,
            },
            {"opening": list(own_bos(subject.tokenizer))},
        )
        one = partial(
            audit,
            subject=subject,
            source=source,
            settings=settings,
            rule=rule,
            chat=chat,
            force=force,
        )
        try:
            found = _each(pairs, one, folder, problems, progress)
        except KeyboardInterrupt:
            done = sum(folder.done(pair) is not None for pair in pairs)
            remark(f"Stopped: {done} of {len(pairs)} pairs are done; the same command goes on.")
            raise typer.Exit(130) from None
    index = folder.index(found, problems)
    failures = [f"{one.pair.called}: {failure}" for one in found for failure in one.failures]
    if as_json:
        print_json(_told(found, problems, index))
    else:
        output.print(viz.audit_text(found))
        for one in found:
            for said in one.remarks:
                remark(f"{one.pair.called}: {said}")
        for failure in failures:
            say(failure, "bold red")
        say(f"page: {index}")
    raise typer.Exit(1 if problems or failures else 0)


def _read(prompts: Path) -> tuple[list[graphs.PromptPair], list[str]]:
    """The pairs of a file and what is wrong with its other lines, which is said at once."""
    lines = graphs.read_pairs(prompts)
    problems = [line.problem for line in lines if line.pair is None]
    for problem in problems:
        remark(problem)
    pairs = [line.pair for line in lines if line.pair is not None]
    if not pairs:
        raise UsageError(
            f'{prompts} holds no pair: expected lines like {{"first": "…", "second": "…"}}.'
        )
    return pairs, problems


def _bos_of(folder: AuditFolder, subject: Subject, bos: graphs.Bos, chat: bool) -> graphs.Bos:
    """When BOS goes in front: an audit goes on as it was begun, unless something else is asked."""
    begun = folder.begun()
    if begun is None or bos != graphs.Bos.AUTO:
        return bos
    opening = list(opening_ids(subject.tokenizer, bos, chat=chat))
    before = begun.get("opening", list(own_bos(subject.tokenizer)))  # not said in former headers
    if before == opening:
        return bos
    return graphs.Bos.ALWAYS if before else graphs.Bos.NEVER


def _each(
    pairs: list[graphs.PromptPair],
    one: Callable[[graphs.PromptPair], tuple[graphs.Audited, Traced]],
    folder: AuditFolder,
    problems: list[str],
    progress: Progress,
) -> list[graphs.Audited]:
    """Audit what is not done yet, and keep each pair at once; problems are added to the list."""
    found = {pair.called: folder.done(pair) for pair in pairs}
    mismatches: list[str] = []
    for number, pair in enumerate(pairs):
        progress("audit", number, len(pairs))
        if found[pair.called] is None:
            try:
                made, traced = one(pair)
                folder.keep(made, traced)
            except (HeadwaterError, MemoryError, RuntimeError) as error:  # torch's are the last
                reason = str(error).partition("\n")[0] or "there is no memory for it."
                problems.append(f"{pair.called}: {reason}")
                remark(problems[-1])
                continue
            mismatches += [said for graph in traced for said in graph.provenance.mismatches]
            found[pair.called] = made
            folder.index(_done(found), problems)
    say_once(mismatches)
    return _done(found)


def _done(found: dict[str, graphs.Audited | None]) -> list[graphs.Audited]:
    """What is done, in the order of the file."""
    return [one for one in found.values() if one is not None]


def _told(found: list[graphs.Audited], problems: list[str], index: Path) -> dict[str, object]:
    return {
        "pairs": [one.model_dump(mode="json") for one in found],
        "kinds": [asdict(kind) for kind in graphs.by_kind(found)],
        "features": [asdict(feature) for feature in graphs.recurring(found)],
        "problems": problems,
        "page": str(index),
    }
