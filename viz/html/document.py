"""Document: a self-contained HTML file.

plotly's script is included, and a content security policy forbids the page to load anything, so it
works offline and for years.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from graphs.disk.files import atomic_write
from viz.text.words import visible

FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif"
INK, GREY, PALE = "#1f2430", "#626a76", "#eceef1"
GENERATOR = "headwater"  # of the page, not of the graph
SIDE = 64  # margin in pixels

PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
SERVED_POLICY = f"{PAGE_POLICY}; connect-src 'self'"  # a served page may contact its server only
_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    "responsive": False,  # figures have a fixed size
    "scrollZoom": False,
    "showSendToCloud": False,  # plotly.js 4 has a button that uploads the figure
    "typesetMath": False,  # a token with dollar signs is not a formula
}


def document(title: str, generator: str, style: str, body: str, policy: str = PAGE_POLICY) -> str:
    """The text of a page; title and generator are plain text, style and body are not escaped."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<meta name="generator" content="{escape(visible(generator))}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_document(text: str, path: Path | str) -> None:
    """Write a page atomically.  Raises GraphFileError."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def plot(figure: object, name: str, filename: str, *, with_script: bool = True) -> str:
    """A plotly figure as HTML; the first of a page includes plotly's script.

    The same figure and name always give the same text.
    """
    saved = {"toImageButtonOptions": {"format": "svg", "filename": filename}}
    return _untyped(figure).to_html(
        config=_CONFIG | saved, div_id=name, full_html=False, include_plotlyjs=with_script
    )


def _untyped(part: object) -> Any:
    """The argument as Any: plotly's types are incomplete."""
    return part
