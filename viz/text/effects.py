"""Tables of the effects of an intervention."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.core.regime import Regime
from graphs.interventions.effects import Effects, NodeEffect
from viz.text.terminal import plain_table
from viz.text.words import one_line, visible


def effects_tables(effects: Effects) -> RenderableType:
    """Changes of targets, next tokens and features."""
    frozen = (
        f", blocks up to {effects.through} frozen" if effects.regime == Regime.CONSTRAINED else ""
    )
    head = Text(one_line(f"{effects.what}  ({effects.regime}{frozen})"), style="bold")
    targets = plain_table(
        "explained", "value", "change", "predicted", right=("value", "change", "predicted")
    )
    for one in effects.targets:
        targets.add_row(Text(visible(one.text)), *_numbers(one))
    tokens = plain_table(
        "next token", "before", "after", "logit", right=("before", "after", "logit")
    )
    for token in effects.tokens:
        numbers = f"{token.before:.3f}", f"{token.after:.3f}", f"{token.logit:+.3f}"
        tokens.add_row(*map(Text, (visible(token.text), *numbers)))
    parts: list[RenderableType] = [head, "", targets, "", tokens]
    if effects.features:
        features = plain_table(
            "feature",
            "label",
            "value",
            "change",
            "predicted",
            right=("value", "change", "predicted"),
        )
        for one in effects.features:
            features.add_row(Text(one.node), Text(visible(one.text)), *_numbers(one))
        parts += ["", features]
    return Group(*parts)


def _numbers(one: NodeEffect) -> tuple[Text, ...]:
    value = "" if one.value is None else f"{one.value:.3f}"
    changes = ("" if x is None else f"{x:+.3f}" for x in (one.measured, one.predicted))
    return tuple(map(Text, (value, *changes)))
