"""What an intervention did, as tables in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.core.regime import Regime
from graphs.interventions.effects import Effects, NodeEffect
from viz.text.terminal import plain_table
from viz.text.words import one_line, visible


def effects_tables(told: Effects) -> RenderableType:
    """Targets, next tokens and features, before and after."""
    held = f", blocks held up to {told.through}" if told.regime == Regime.CONSTRAINED else ""
    head = Text(one_line(f"{told.what}  ({told.regime}{held})"), style="bold")
    targets = plain_table(
        "explained", "value", "change", "predicted", right=("value", "change", "predicted")
    )
    for one in told.targets:
        targets.add_row(Text(visible(one.text)), *_numbers(one))
    tokens = plain_table(
        "next token", "before", "after", "logit", right=("before", "after", "logit")
    )
    for token in told.tokens:
        numbers = f"{token.before:.3f}", f"{token.after:.3f}", f"{token.logit:+.3f}"
        tokens.add_row(*map(Text, (visible(token.text), *numbers)))
    parts: list[RenderableType] = [head, "", targets, "", tokens]
    if told.features:
        features = plain_table(
            "feature",
            "says",
            "value",
            "change",
            "predicted",
            right=("value", "change", "predicted"),
        )
        for one in told.features:
            features.add_row(Text(one.node), Text(visible(one.text)), *_numbers(one))
        parts += ["", features]
    return Group(*parts)


def _numbers(one: NodeEffect) -> tuple[Text, ...]:
    value = "" if one.value is None else f"{one.value:.3f}"
    changes = ("" if x is None else f"{x:+.3f}" for x in (one.measured, one.predicted))
    return tuple(map(Text, (value, *changes)))
