"""The command that lists what an included model can be asked about: words."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.columns import Columns
from rich.text import Text

from circuits.atlas.shipped import ATLAS, atlas_words
from headwater.arguments.options import AsJson
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.terminal.printing import output, print_json, print_line


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
