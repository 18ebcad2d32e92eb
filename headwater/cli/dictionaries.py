"""Commands about dictionaries: which are published, and which of their features are active."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import torch
import typer
from rich.table import Table
from rich.text import Text

from circuits.features.autoencoders import AutoencoderSet, Site
from circuits.features.files.published import PublishedSet, published_sets
from circuits.features.files.reading import read_dictionary
from circuits.features.files.source import shipped_transcoders
from circuits.features.firing import Firing, strongest
from circuits.model.prompt import DEFAULT_RULE, PromptRule, read_prompt
from circuits.model.subject import read_subject
from circuits.progress import progress_bar
from headwater.cli.app import app
from headwater.cli.opening_remarks import remark_mismatches
from headwater.cli.options import (
    MOST,
    AsJson,
    BosRule,
    Chat,
    Device,
    DType,
    Model,
    PrefixLength,
    Revision,
    Type,
)
from headwater.cli.prompted import Prompted, PromptFile, given_prompt
from headwater.cli.trace import DEFAULT_MODEL
from headwater.cli.usage import UsageError
from headwater.terminal.printing import errors, output, print_json, print_line
from viz.text.words import visible


@app.command("dictionaries")
def dictionaries_command(
    model: Annotated[
        str, typer.Option(help="Only dictionaries of models whose name contains this.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List published dictionaries: the name for --transcoders, model, kind and size."""
    chosen = [entry for entry in published_sets() if model.lower() in entry.model.lower()]
    if as_json:
        print_json({"dictionaries": [asdict(entry) for entry in chosen]})
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in ("name", "model", "kind", "width", "L0", "size"):
        right = "right" if heading in ("width", "L0", "size") else "left"
        table.add_column(heading, justify=right, no_wrap=heading == "name", overflow="fold")
    for entry in chosen:
        table.add_row(*map(Text, _cells(entry)))
    output.print(table)


def _cells(entry: PublishedSet) -> tuple[str, ...]:
    width = f"{entry.n_layers} × " + (f"{entry.width:,}" if entry.width else "?")
    size = f"{entry.size / 1e9:,.1f} GB" if entry.size else "?"
    return entry.reference, entry.model, entry.kind, width, entry.l0, size


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
        int, typer.Option(min=1, max=MOST, help="Features per token and layer at most.")
    ] = 3,
    chat: Chat = False,
    bos: BosRule = DEFAULT_RULE.bos,
    n_prefix: PrefixLength = DEFAULT_RULE.n_prefix,
    dtype: Type = DType.FLOAT32,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """List the features of a dictionary that are active on a prompt, by position."""
    given = given_prompt(prompt, prompt_file)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        reference = dictionary or shipped_transcoders(subject)
        if reference is None:
            raise UsageError(
                "No transcoders ship with this model: give --dictionary, a folder or a name on the "
                "Hub."
            )
        read = read_dictionary(reference, site=site)
        text = read_prompt(given, subject.tokenizer, PromptRule(bos, n_prefix), chat=chat)
        remark_mismatches([text], read)
        firings = strongest(subject.frozen, text, read, set(layer or ()), top)
    if as_json:
        print_json({"tokens": list(text.tokens), "features": [asdict(f) for f in firings]})
        return
    kind = "autoencoders" if isinstance(read, AutoencoderSet) else read.identity.kind
    print_line(f"{subject.identity.name} · {read.identity.name} · {kind}", "bold")
    output.print(_firing_table(text.tokens, firings))


def _firing_table(tokens: tuple[str, ...], firings: list[Firing]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in ("at", "token", "layer", "feature", "activation", "label"):
        right = heading in ("at", "layer", "feature", "activation")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
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
