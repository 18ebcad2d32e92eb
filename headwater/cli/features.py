"""The command that lists active features of a dictionary, or evaluates it on a text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

import circuits
from circuits.atlas.shipped import DEFAULT_MODEL
from circuits.evaluation.evaluation_settings import Ablated, EvaluationSettings
from circuits.features.points import Site
from circuits.model.data_type import DType
from circuits.model.prompt_rule import DEFAULT_RULE
from circuits.progress import progress_bar
from headwater.arguments.options import (
    AsJson,
    BosRule,
    Chat,
    Device,
    Model,
    PrefixLength,
    Revision,
    Type,
)
from headwater.arguments.prompted import Prompted, PromptFile, given_prompt
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.openings import rule_beside
from headwater.terminal.evaluated import evaluation_text
from headwater.terminal.opening_remarks import remark_mismatches
from headwater.terminal.printing import errors, output, print_json, print_line
from viz.text.tables import PlainTable, plain_table
from viz.text.words import visible

MOST_LISTED = 3  # features per token and layer, unless stated
SETTINGS = EvaluationSettings()
EVALUATION = "Evaluation"  # group of options in the help
TEXTS = ("token", "label")
HEADINGS = ("at", "token", "layer", "feature", "activation", "label")


@app.command("features")
def features_command(
    prompt: Prompted = None,
    prompt_file: PromptFile = None,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    dictionary: Annotated[
        str | None, typer.Option(help="Transcoders or autoencoders: a folder or a name on the Hub.")
    ] = None,
    site: Annotated[
        Site | None,
        typer.Option(help="What the autoencoders reconstruct, if their files do not say."),
    ] = None,
    layer: Annotated[list[int] | None, typer.Option(help="Only this layer; repeatable.")] = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Features per token and layer at most; default: {MOST_LISTED}.",
        ),
    ] = None,
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate",
            help="Instead of a list: variance unexplained, L0, dead features, and the loss with "
            "reconstructions patched in.",
            rich_help_panel=EVALUATION,
        ),
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Tokens that the model reads at once; default: its context, or 1,024 if that is "
            "longer.",
            rich_help_panel=EVALUATION,
        ),
    ] = SETTINGS.window,
    ablated: Annotated[
        Ablated | None,
        typer.Option(
            help=f"What vectors are ablated to, for comparison; default: {SETTINGS.ablated}.",
            rich_help_panel=EVALUATION,
        ),
    ] = None,
    chat: Chat = False,
    bos: BosRule = DEFAULT_RULE.bos,
    n_prefix: PrefixLength = DEFAULT_RULE.n_prefix,
    dtype: Type = DType.FLOAT32,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """List the features of a dictionary that are active on a prompt, or evaluate it on a text."""
    _require_consistent(evaluate, top, window, ablated)
    given = given_prompt(prompt, prompt_file)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = circuits.read_subject(model, revision=revision, dtype=dtype, device=device)
        reference = dictionary or circuits.shipped_transcoders(subject)
        if reference is None:
            raise UsageError(
                "No transcoders ship with this model: give --dictionary, a folder or a name on the "
                "Hub."
            )
        read = circuits.read_dictionary(reference, site=site)
        rule = rule_beside(read, bos, n_prefix)
        text = circuits.read_prompt(given, subject.tokenizer, rule, chat=chat)
        remark_mismatches([text], read)
        found = (
            circuits.evaluate(
                text,
                subject,
                read,
                EvaluationSettings(tuple(layer or ()), window, ablated or SETTINGS.ablated),
                progress,
            )
            if evaluate
            else circuits.strongest(
                subject.frozen, text, read, set(layer or ()), MOST_LISTED if top is None else top
            )
        )
    if isinstance(found, circuits.Evaluation):
        if as_json:
            print_json(found.as_json())
        else:
            output.print(evaluation_text(found))
        return
    if as_json:
        print_json({"tokens": list(text.tokens), "features": [asdict(f) for f in found]})
        return
    kind = "autoencoders" if isinstance(read, circuits.AutoencoderSet) else read.identity.kind
    print_line(f"{subject.identity.name} · {read.identity.name} · {kind}", "bold")
    output.print(_firing_table(text.tokens, found))


def _require_consistent(
    evaluate: bool, top: int | None, window: int | None, ablated: Ablated | None
) -> None:
    """Raises UsageError for options of a list with --evaluate, and for its own without it."""
    if evaluate and top is not None:
        raise UsageError("--evaluate lists no features: leave out --top.")
    for option, given in (("--window", window), ("--ablated", ablated)):
        if given is not None and not evaluate:
            raise UsageError(f"{option} belongs to an evaluation: give --evaluate with it.")


def _firing_table(tokens: tuple[str, ...], firings: list[circuits.Firing]) -> PlainTable:
    table = plain_table(*HEADINGS, right=("at", "layer", "feature", "activation"), texts=TEXTS)
    previous = None
    for firing in firings:
        first = firing.pos != previous
        previous = firing.pos
        table.add_row(
            str(firing.pos) if first else "",
            Text(visible(tokens[firing.pos]) if first else ""),
            str(firing.layer),
            str(firing.index),
            f"{firing.activation:.2f}",
            Text(visible(firing.label) if firing.label else ""),
        )
    return table
