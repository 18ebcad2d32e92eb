"""The sentence below an overview: which chains of boxes lead to the answer."""

from __future__ import annotations

from graphs.groups.overview import Overview
from viz.text.words import visible

_LONGEST = 40  # characters of a name


def chains_sentence(overview: Overview) -> str:
    """The strongest chains, and of what reaches the heaviest target, how much they carry.

    As in "Dallas → Texas → Austin and capital → on capital → say a capital → Austin carry 40% of
    what reaches Austin"; empty if there is no chain.
    """
    if not overview.chains:
        return ""
    chains = [
        " → ".join(box_name(overview.boxes[at].name) for at in chain) for chain in overview.chains
    ]
    verb = "carries" if len(chains) == 1 else "carry"
    end = box_name(overview.boxes[overview.chains[0][-1]].name)
    return f"{' and '.join(chains)} {verb} {overview.carried:.0%} of what reaches {end}"


def box_name(name: str) -> str:
    """Name of a box as a figure and a sentence have it: visible, without blanks around it."""
    shown = visible(name)
    shown = shown.strip() or shown
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
