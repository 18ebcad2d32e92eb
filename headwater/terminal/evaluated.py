"""The evaluation of a dictionary as text: a row per layer, and what the columns mean."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

import circuits
from circuits.evaluation.evaluation_settings import Ablated
from circuits.features.points import Site
from viz.text.tables import plain_table
from viz.text.words import visible

SITES = {
    Site.RESIDUAL: "the residual stream after a block",
    Site.MLP: "what the MLP adds to the residual stream",
    Site.MLP_OUTPUT: "what the MLP returns, before the norm that follows it",
    Site.ATTENTION: "what attention adds to the residual stream",
    Site.HEADS: "outputs of all heads, before W_O",
}
ABSENT = {Ablated.ZERO: "zero", Ablated.MEAN: "their mean over the text"}
MEASURES = ("unexplained", "L0", "dead", "patched", "delta", "ablated", "recovered")


def evaluation_text(found: circuits.Evaluation) -> RenderableType:
    """The table of an evaluation between what was evaluated and what its columns mean."""
    sites = dict.fromkeys(one.site for one in found.sites)
    named = ("site",) if len(sites) > 1 else ()
    table = plain_table("layer", *named, *MEASURES, right=("layer", *MEASURES))
    for one in found.sites:
        fit = (_rounded(one.unexplained), f"{one.l0:.1f}", f"{one.dead:.1%}")
        site = (str(one.site),) if named else ()
        table.add_row(*map(Text, (str(one.layer), *site, *fit, *_losses(one.loss))))
    if found.together is not None:
        table.add_row(*map(Text, ("all", "", "", "", *_losses(found.together))))
    names = " · ".join(map(visible, (found.model, found.dictionary, found.kind)))
    return Group(
        Text(names, "bold"), *_text(found, list(sites)), Text(), table, Text(), *_legend(found)
    )


def _text(found: circuits.Evaluation, sites: list[Site]) -> list[Text]:
    """On what was evaluated, and the loss of the model itself."""
    windows = f"{found.windows:,} window{'s' if found.windows > 1 else ''}"
    lines = [
        f"{found.tokens:,} tokens in {windows}; loss of the model itself: "
        f"{found.loss:.3f} nats per token",
        *(f"site {site}: {SITES[site]}" for site in sites),
    ]
    return [Text(line) for line in lines]


def _legend(found: circuits.Evaluation) -> list[Text]:
    lines = [
        "unexplained  squared error of the reconstruction over the variance of vectors",
        "L0           active features per token",
        "dead         features never active here: a bound, since more tokens leave fewer",
        "patched      loss with the reconstruction in place of the model's own vectors",
        "delta        what that adds to the loss of the model itself",
        f"ablated      loss with {ABSENT[found.ablated]} in place of the vectors",
        "recovered    (ablated - patched) / (ablated - own): 1 if patching costs nothing,",
        "             0 if it costs as much as ablation, – if ablation costs nothing",
    ]
    if found.together is not None:
        lines.append("all          all these layers patched, or ablated, together")
    return [Text(line, "dim") for line in lines]


def _losses(loss: circuits.PatchedLoss) -> tuple[str, ...]:
    delta = f"{loss.delta:+.3f}"
    return f"{loss.patched:.3f}", delta, f"{loss.ablated:.3f}", _rounded(loss.recovered)


def _rounded(number: float | None) -> str:
    return "–" if number is None else f"{number:.3f}"
