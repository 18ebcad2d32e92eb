"""Commands that list what there is: published dictionaries, and words of the included models."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.columns import Columns
from rich.text import Text

from circuits.atlas.shipped import ATLAS, atlas_words
from circuits.features.files.published import PublishedSet, published_sets
from headwater.arguments.options import AsJson
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.terminal.printing import output, print_json, print_line
from viz.text.tables import plain_table

HEADINGS = ("name", "model", "kind", "width", "L0", "size")
ROW = 175  # columns of a terminal in which a row fits; else it takes two or three lines


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
    rows = list(map(_cells, chosen))
    if output.is_terminal and output.width < ROW:
        for reference, model_name, kind, width, l0, size in rows:
            print_line(reference, "bold")
            numbers = f"{width} · {f'L0 {l0} · ' if l0 else ''}{size}"
            for line in _lines(model_name, kind, numbers):
                print_line(f"    {line}")
        return
    table = plain_table(*HEADINGS, right=("width", "L0", "size"))
    for row in rows:
        table.add_row(*map(Text, row))
    output.print(table)


def _cells(entry: PublishedSet) -> tuple[str, ...]:
    width = f"{entry.n_layers} × " + (f"{entry.width:,}" if entry.width else "?")
    size = f"{entry.size / 1e9:,.1f} GB" if entry.size else "?"
    return entry.reference, entry.model, entry.kind, width, entry.l0, size


def _lines(*parts: str) -> list[str]:
    """Parts of a description, as many in a line as fit."""
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]} · {part}"
        if len(longer) <= output.width - 4:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


@app.command("words")
def words_command(
    model: Annotated[str, typer.Argument(help=f"{' or '.join(ATLAS)}.")] = ATLAS[0],
    as_json: AsJson = False,
) -> None:
    """List the words that an included model knows; other models know any text."""
    if model not in ATLAS:
        raise UsageError(
            f"Expected {' or '.join(ATLAS)}, got {model!r}: only these have a list of words."
        )
    words = atlas_words(model)
    if as_json:
        print_json({"model": model, "words": words})
    elif output.is_terminal:
        output.print(Columns(map(Text, words), padding=(0, 2), column_first=True))
    else:
        for word in words:
            print_line(word)
