"""Front: the start page of the local server."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from viz.html.document import SERVED_POLICY, document
from viz.text.words import visible

_FRONT = Path(__file__).parents[1] / "front"


def front_page(model: str, generator: str, examples: Sequence[str] = ()) -> str:
    """The start page: enter a prompt, follow its trace, open a graph."""
    body, style, script = (
        (_FRONT / f"front.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    buttons = [f"<button type='button'>{escape(visible(one))}</button>" for one in examples]
    body = body.replace("{{model}}", escape(visible(model)))
    body = body.replace("{{examples}}", "\n      ".join(buttons))
    page = f"{body}<script>\n{script}</script>"
    return document("headwater", generator, style, page, policy=SERVED_POLICY)
