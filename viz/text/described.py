"""What is known about one feature beyond the prompt, for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.core.descriptions import Description, Example
from viz.text.words import one_line, visible

STRONG = 0.5  # of an example's largest activation: tokens that are marked


def description_text(name: str, description: Description) -> RenderableType:
    """A feature's label, the tokens that it raises and lowers, and where it fires most."""
    lines = [Text(one_line(f"{name}  {description.label}"), style="bold")]
    for title, tokens in (
        ("says at its own layer", description.said),
        ("raises", description.raised),
        ("lowers", description.lowered),
    ):
        if tokens:
            spelled = ", ".join(f"'{visible(token)}'" for token in tokens)
            lines.append(Text(f"{title}: {spelled}"))
    if description.frequency is not None:
        largest = "" if description.largest is None else f", at most {description.largest:.2f}"
        lines.append(Text(f"fires on {description.frequency:.2%} of tokens{largest}"))
    return Group(*lines, *map(_example, description.examples))


def _example(example: Example) -> Text:
    """The text, its strong tokens marked, behind the largest activation."""
    largest = max(example.activations, default=0.0)
    text = Text(f"{largest:8.2f}  ")
    for token, activation in zip(example.tokens, example.activations, strict=True):
        strong = largest > 0 and activation >= STRONG * largest
        text.append(visible(token).replace("␣", " "), style="bold reverse" if strong else "")
    return text
