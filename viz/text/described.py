"""Text of a feature's description: its name, the stored label, tokens and top activations."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.core.nodes import Description, Example
from graphs.naming.names import description_label
from viz.text.words import one_line, visible

STRONG = 0.5  # tokens with this share of an example's largest activation are marked


def description_text(name: str, description: Description, label: str = "") -> RenderableType:
    """A feature's label, promoted and suppressed tokens, and top activations.

    `label` is what the feature is called in a graph; if empty, it is named by its description
    alone.  The stored label is below it where it is another.
    """
    label = label or description_label(description) or "no label"
    lines = [Text(one_line(f"{name}  {label}"), style="bold")]
    if description.label.strip() not in ("", label):
        lines.append(Text(one_line(f"stored label: {description.label.strip()}")))
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
