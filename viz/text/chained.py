"""The sentence below an overview: which chains of boxes lead to the answer."""

from __future__ import annotations

import unicodedata

from graphs.groups.overview import Overview
from viz.text.words import isolated, visible

_LONGEST = 40  # characters of a name
_RIGHT_TO_LEFT = ("R", "AL")


def chains_sentence(overview: Overview) -> str:
    """The strongest chains, and of what reaches the heaviest target, how much they carry.

    As in "Dallas → Texas → Austin and capital → on capital → say a capital → Austin carry 40% of
    what reaches Austin"; empty if there is no chain.
    """
    if not overview.chains:
        return ""
    names = [_apart(box_name(box.name)) for box in overview.boxes]
    chains = [" → ".join(names[at] for at in chain) for chain in overview.chains]
    verb = "carries" if len(chains) == 1 else "carry"
    end = names[overview.chains[0][-1]]
    return f"{' and '.join(chains)} {verb} {overview.carried:.0%} of what reaches {end}"


def box_name(name: str) -> str:
    """Name of a box as a figure and a sentence have it: visible, without blanks around it."""
    shown = visible(name)
    shown = shown.strip() or shown
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _apart(name: str) -> str:
    """A name whose writing direction does not affect the names beside it."""
    turned = any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in name)
    return isolated(name) if turned else name
