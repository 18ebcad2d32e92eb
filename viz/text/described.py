"""Text of a feature's description: label, tokens and top activations."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.core.nodes import Description, Example
from viz.text.words import one_line, visible

STRONG = 0.5  # tokens with this share of an example's largest activation are marked


def description_text(name: str, description: Description) -> RenderableType:
    """A feature's label, promoted and suppressed tokens, and top activations."""
    lines = [Text(one_line(f"{name}  {description.label}"), style="bold")]
    for title, tokens in (
        ("promotes at its own layer", description.promoted_at_own_layer),
        ("promotes", description.promoted),
        ("suppresses", description.suppressed),
    ):
        if tokens:
            spelled = ", ".join(f"'{visible(token)}'" for token in tokens)
            lines.append(Text(f"{title}: {spelled}"))
    if description.frequency is not None:
        largest = "" if description.largest is None else f", at most {description.largest:.2f}"
        lines.append(Text(f"active on {description.frequency:.2%} of tokens{largest}"))
    return Group(*lines, *map(_example, description.examples))


def _example(example: Example) -> Text:
    """Largest activation, and the text with strong tokens marked."""
    largest = max(example.activations, default=0.0)
    text = Text(f"{largest:8.2f}  ")
    for token, activation in zip(example.tokens, example.activations, strict=True):
        strong = largest > 0 and activation >= STRONG * largest
        text.append(visible(token).replace("␣", " "), style="bold reverse" if strong else "")
    return text
