"""The command that tests mediating features over pairs of prompts: audit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import circuits
import graphs
import viz
from circuits.atlas.shipped import DEFAULT_MODEL
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.evaluation.evaluation_settings import AuditSettings
from circuits.model.data_type import DType
from circuits.model.prompt_rule import DEFAULT_RULE
from circuits.progress import Progress, progress_bar
from circuits.recording.precision import Precision
from graphs.errors import HeadwaterError
from graphs.interventions.mediators import by_kind, recurring
from headwater.arguments.options import (
    MOST_DRAWN,
    AsJson,
    BosRule,
    Chat,
    Device,
    FeatureKind,
    Fill,
    Force,
    HowPrecise,
    MaxFeatures,
    Memory,
    Model,
    PrefixLength,
    ReadAt,
    Revision,
    Tolerance,
    Transcoders,
    Type,
    WriteAt,
    source_choice,
)
from headwater.arguments.prompted import INPUT, standard_input
from headwater.arguments.usage import UsageError, require_consistent
from headwater.audit_folder import HEADER, AuditFolder
from headwater.choosing import in_bytes
from headwater.cli.app import app
from headwater.cli.trace import EXPANSION
from headwater.openings import rule_beside
from headwater.outputs.places import require_folder
from headwater.terminal.opening_remarks import remark_once
from headwater.terminal.printing import errors, output, print_json, print_line, remark

Traced = tuple[graphs.AttributionGraph, graphs.AttributionGraph]
SETTINGS = AuditSettings()  # defaults come from it, so that they cannot differ


@app.command("audit")
def audit_command(
    prompts: Annotated[
        Path,
        typer.Argument(
            help='JSON lines like {"first": …, "second": …}; name, kind, target and against '
            "are optional.  - for standard input."
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
    mediators: Annotated[
        int,
        typer.Option(min=1, help="Features to test in the model, per pair."),
    ] = SETTINGS.mediators,
    random_sets: Annotated[
        int,
        typer.Option(min=1, max=MOST_DRAWN, help="Random sets of the same size, for the null."),
    ] = SETTINGS.random_sets,
    chat: Chat = False,
    bos: BosRule = DEFAULT_RULE.bos,
    n_prefix: PrefixLength = DEFAULT_RULE.n_prefix,
    dtype: Type = DType.FLOAT32,
    device: Device = "auto",
    precision: HowPrecise = Precision.IEEE,
    memory: Memory = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Find the features that mediate the difference between prompts that differ in one respect.

    Each pair is saved as soon as it is done; the same command continues after an interruption.
    """
    require_consistent(transcoders=transcoders, features=features, targets=[], against=None)
    pairs, problems = _read(prompts)
    require_folder(out, HEADER, prompts, model, transcoders)
    folder = AuditFolder(out)
    expansion = Expansion(max_features, tolerance)
    traced = TraceSettings(expansion=expansion, precision=precision, memory=in_bytes(memory))
    settings = AuditSettings(mediators, random_sets, trace=traced)
    choice = source_choice(transcoders, features, max_features, read_at, write_at, fill)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = circuits.read_subject(model, revision=revision, dtype=dtype, device=device)
        source = circuits.read_source(subject, choice, in_bytes(memory))
        rule = rule_beside(source, _bos_of(folder, subject, bos, chat), n_prefix)
        folder.begin(
            {
                "model": subject.identity.model_dump(),
                "dtype": dtype,
                **({} if precision == Precision.IEEE else {"precision": precision}),
                "chat": chat,
                "transcoders": transcoders,
                "features": features,
                "points": {"read": read_at, "write": write_at, "filled": fill is not None},
                "max-features": max_features,
                "tolerance": tolerance,
                "carriers": mediators,
                "random-sets": random_sets,
                "opening": circuits.opening_ids(subject.tokenizer, rule.bos, chat=chat),
                "context-only": rule.n_prefix,
            },
            {"opening": list(circuits.own_bos(subject.tokenizer))},
        )
        one = partial(
            circuits.audit,
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
            remark(f"Stopped: {done} of {len(pairs)} pairs are done; the same command continues.")
            raise typer.Exit(130) from None
    index = folder.index(found, problems)
    failures = [f"{one.pair.identifier}: {failure}" for one in found for failure in one.failures]
    if as_json:
        print_json(_as_json(found, problems, index))
    else:
        output.print(viz.audit_text(found))
        for one in found:
            for sentence in one.remarks:
                remark(f"{one.pair.identifier}: {sentence}")
        for failure in failures:
            print_line(failure, "bold red")
        print_line(f"page: {index}")
    raise typer.Exit(1 if problems or failures else 0)


def _read(prompts: Path) -> tuple[list[graphs.PromptPair], list[str]]:
    """The pairs of a file, and what is wrong with its other lines, which is printed at once."""
    given = standard_input(prompts)
    lines = graphs.read_pairs(prompts) if given is None else graphs.pairs_in(given.encode())
    problems = [line.problem for line in lines if line.pair is None]
    for problem in problems:
        remark(problem)
    pairs = [line.pair for line in lines if line.pair is not None]
    if not pairs:
        raise UsageError(
            f"{prompts if given is None else INPUT} has no pair: expected lines like "
            '{"first": "…", "second": "…"}.'
        )
    return pairs, problems


def _bos_of(
    folder: AuditFolder, subject: circuits.Subject, bos: graphs.Bos, chat: bool
) -> graphs.Bos:
    """The rule for BOS: without --bos, a continued audit keeps the one that it was begun with."""
    stored = folder.settings()
    if stored is None or bos != graphs.Bos.AUTO:
        return bos
    opening = list(circuits.opening_ids(subject.tokenizer, bos, chat=chat))
    before = stored.get(
        "opening", list(circuits.own_bos(subject.tokenizer))
    )  # earlier headers lack it
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
    """Audit the pairs that are not done, saving each at once; problems are added to the list."""
    found = {pair.identifier: folder.done(pair) for pair in pairs}
    mismatches: list[str] = []
    for number, pair in enumerate(pairs):
        progress("audit", number, len(pairs))
        if found[pair.identifier] is None:
            try:
                made, traced = one(pair)
                folder.keep(made, traced)
            except (HeadwaterError, MemoryError, RuntimeError) as error:  # torch's are the last
                reason = str(error).partition("\n")[0] or "not enough memory."
                problems.append(f"{pair.identifier}: {reason}")
                remark(problems[-1])
                continue
            for graph in traced:
                mismatches += graph.provenance.mismatches
            found[pair.identifier] = made
            folder.index(_done(found), problems)
    remark_once(mismatches)
    return _done(found)


def _done(found: dict[str, graphs.Audited | None]) -> list[graphs.Audited]:
    """Results of the pairs that are done, in the order of the file."""
    return [one for one in found.values() if one is not None]


def _as_json(found: list[graphs.Audited], problems: list[str], index: Path) -> dict[str, object]:
    return {
        "pairs": [one.model_dump(mode="json") for one in found],
        "kinds": [kind.as_json() for kind in by_kind(found)],
        "features": [feature.as_json() for feature in recurring(found)],
        "problems": problems,
        "page": str(index),
    }
