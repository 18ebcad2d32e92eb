"""Tables of the effects of an intervention."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.core.regime import Regime
from graphs.interventions.effects import Effects, NodeEffect
from viz.text.tables import plain_table
from viz.text.words import one_line, visible

MOST_EDITED = 20  # nodes that are listed
MEANING = {
    Regime.FROZEN: "attention, norms and MLPs stay as recorded, so only direct effects are seen",
    Regime.CONSTRAINED: "these blocks stay as recorded but for the edit, above them only "
    "attention patterns",
    Regime.FREE: "everything runs anew",
}


def effects_tables(effects: Effects) -> RenderableType:
    """Changes of targets, next tokens and features."""
    frozen = (
        f", blocks up to {effects.through} frozen" if effects.regime == Regime.CONSTRAINED else ""
    )
    head = Text(one_line(f"{effects.what}  ({effects.regime}{frozen})"), style="bold")
    meaning = Text(f"{effects.regime}: {MEANING[effects.regime]}", style="dim")
    targets = plain_table(
        "explained",
        "value",
        "change",
        "predicted",
        right=("value", "change", "predicted"),
        texts=("explained",),
    )
    for one in effects.targets:
        targets.add_row(Text(visible(one.text)), *_numbers(one))
    tokens = plain_table(
        "next token",
        "before",
        "after",
        "logit",
        right=("before", "after", "logit"),
        texts=("next token",),
    )
    for token in effects.tokens:
        numbers = f"{token.before:.3f}", f"{token.after:.3f}", f"{token.logit:+.3f}"
        tokens.add_row(*map(Text, (visible(token.text), *numbers)))
    parts: list[RenderableType] = [head, meaning]
    if effects.edited:
        parts += ["", _edited(effects)]
    if effects.changes_nothing:
        parts.append(Text("this changes nothing: all is set to what it is", style="yellow"))
    if all(one.predicted is None for one in effects.targets) and effects.edited:
        parts.append(Text("no prediction: features are edited that the graph does not have"))
    elif effects.predicted_with:
        parts.append(Text(f"predictions: {effects.predicted_with}", style="dim"))
    parts += ["", targets, "", tokens]
    if effects.features:
        features = plain_table(
            "feature",
            "",
            "value",
            "change",
            "predicted",
            "label",
            right=("value", "change", "predicted"),
            texts=("label",),
        )
        for one in effects.features:
            held = Text("held" if one.held else "", style="dim")
            features.add_row(
                Text(one.node), held, *_numbers(one), Text(visible(one.text) if one.text else "")
            )
        parts += ["", features]
    return Group(*parts)


def _edited(effects: Effects) -> RenderableType:
    """What was set, from what to what."""
    table = plain_table("edited", "from", "to", "label", right=("from", "to"), texts=("label",))
    for one in effects.edited[:MOST_EDITED]:
        numbers = f"{one.before:.3f}", f"{one.after:.3f}"
        table.add_row(*map(Text, (one.node, *numbers, visible(one.text) if one.text else "")))
    more = len(effects.edited) - MOST_EDITED
    return Group(table, Text(f"and {more:,} more")) if more > 0 else table


def _numbers(one: NodeEffect) -> tuple[Text, ...]:
    value = "" if one.value is None else f"{one.value:.3f}"
    changes = ("" if x is None else f"{x:+.3f}" for x in (one.measured, one.predicted))
    return tuple(map(Text, (value, *changes)))
