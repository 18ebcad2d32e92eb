"""Tables of the effects of an intervention."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from graphs.core.regime import Regime
from graphs.interventions.effects import Effects, NodeEffect, PatternEffect
from viz.text.tables import plain_table
from viz.text.words import one_line, quoted, visible

MOST_EDITED = 20  # nodes that are listed
TOLERATED = 0.1  # difference of prediction and measurement over the larger of both
LEAST_OFF = 0.01  # logits; smaller differences are not worth a sentence
MOST_KEYS = 12  # of a pattern, those that get most attention
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
    if effects.only:
        parts.append(Text(f"only {effects.only} change, and what follows from that", style="dim"))
    if unpredicted(effects):
        parts.append(Text(f"no prediction: {unpredicted(effects)}"))
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
    for pattern in effects.patterns:
        parts += ["", _pattern(pattern)]
    return Group(*parts)


def unpredicted(effects: Effects) -> str:
    """Why the graph predicts nothing; empty if it predicts."""
    if any(one.predicted is not None for one in effects.targets):
        return ""
    if effects.steered:
        return "the graph has no row of a steering vector"
    if not effects.edited:
        return ""
    if effects.only or any(one.node.startswith("head:") for one in effects.edited):
        return "the graph holds attention patterns, and has no row of a head"
    return "features are edited that the graph does not have"


def disagreement(effects: Effects) -> str:
    """A sentence on the target at which the model contradicts the graph most; empty if none."""
    off = {
        one: abs(one.measured - one.predicted)
        for one in effects.targets
        if one.measured is not None and one.predicted is not None
    }
    apart = {
        one: size
        for one, size in off.items()
        if size > TOLERATED * max(abs(one.measured or 0.0), abs(one.predicted or 0.0))
        and size > LEAST_OFF
    }
    if not apart:
        return ""
    one, size = max(apart.items(), key=lambda pair: pair[1])
    measured, predicted = one.measured or 0.0, one.predicted or 0.0
    part = f", {size / abs(measured):.0%} of what was measured" if measured else ""
    turned = ", and has another sign" if measured * predicted < 0 else ""
    return (
        f"Graph and model disagree: for {quoted(one.text)} the graph predicts {predicted:+.2f} and "
        f"the model gives {measured:+.2f}; the prediction is off by {size:.2f}{part}{turned}."
    )


def _pattern(one: PatternEffect) -> RenderableType:
    """What a head attends to, and how the logarithms change."""
    head = f"head {one.layer}.{one.head} from {quoted(one.text)} @{one.query}, what it attends to"
    table = plain_table(
        "key",
        "",
        "before",
        "after",
        "log change",
        "predicted",
        right=("before", "after", "log change", "predicted"),
        texts=("key",),
    )
    for key in sorted(one.keys, key=lambda key: -max(key.before, key.after))[:MOST_KEYS]:
        numbers = f"{key.before:.3f}", f"{key.after:.3f}"
        changes = f"{key.measured:+.3f}", f"{key.predicted:+.3f}"
        table.add_row(*map(Text, (quoted(key.text), f"@{key.key}", *numbers, *changes)))
    more = len(one.keys) - MOST_KEYS
    rest = [Text(f"and {more:,} more keys")] if more > 0 else []
    meaning = Text("predicted to first order, through frozen blocks", style="dim")
    return Group(Text(head, style="bold"), table, *rest, meaning)


def _edited(effects: Effects) -> RenderableType:
    """What was set, from what to what."""
    table = plain_table("edited", "from", "to", "label", right=("from", "to"), texts=("label",))
    for one in effects.edited[:MOST_EDITED]:
        after = "patched" if one.after is None else f"{one.after:.3f}"
        numbers = f"{one.before:.3f}", after
        table.add_row(*map(Text, (one.node, *numbers, visible(one.text) if one.text else "")))
    more = len(effects.edited) - MOST_EDITED
    return Group(table, Text(f"and {more:,} more")) if more > 0 else table


def _numbers(one: NodeEffect) -> tuple[Text, ...]:
    value = "" if one.value is None else f"{one.value:.3f}"
    changes = ("" if x is None else f"{x:+.3f}" for x in (one.measured, one.predicted))
    return tuple(map(Text, (value, *changes)))
