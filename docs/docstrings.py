"""Docstrings on the API pages: arguments, one `name: what it is` a line, become a list."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

ARGUMENT = re.compile(r"^(\*{0,2}[a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)", re.M)


class Arguments(Extension):
    """Turns paragraphs that describe arguments into lists."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = "\n\n".join(
                map(_listed, re.split(r"\n\s*\n", obj.docstring.value))
            )


def _listed(paragraph: str) -> str:
    if not ARGUMENT.match(paragraph):
        return paragraph
    # Lines that go on are indented, as a list needs them.
    return ARGUMENT.sub(r"- **\1**: ", paragraph)
