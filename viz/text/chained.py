"""The sentence below an overview: which chains of boxes lead to the answer."""

from __future__ import annotations

import unicodedata

from graphs.groups.overview import Overview
from viz.text.words import isolated, visible

_LONGEST = 40  # characters of a name
_SHORT = 4  # letters of words such as “the” and “from”, which a sentence may have as its own
_INSIDE = " -'’.…"  # signs that may stand in a name
_RIGHT_TO_LEFT = ("R", "AL")


def chains_sentence(overview: Overview) -> str:
    """The strongest chains, and of what reaches the heaviest target, how much they carry.

    As in "Dallas → Texas → Austin and capital → on capital → say a capital → Austin carry 40% of
    what reaches Austin"; names that could be read as parts of the sentence are in quotation marks.
    Empty if there is no chain.
    """
    if not overview.chains:
        return ""
    names = [_set_off(box_name(box.name)) for box in overview.boxes]
    chains = [" → ".join(names[at] for at in chain) for chain in overview.chains]
    verb = "carries" if len(chains) == 1 else "carry"
    end = names[overview.chains[0][-1]]
    return f"{' and '.join(chains)} {verb} {overview.carried:.0%} of what reaches {end}"


def box_name(name: str) -> str:
    """Name of a box as a figure and a sentence have it: visible, without blanks around it."""
    shown = visible(name)
    shown = shown.strip() or shown
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _set_off(name: str) -> str:
    """A name that is not taken for words of the sentence, and does not turn its direction.

    >>> [_set_off(name) for name in ("say a capital", "foot, feet", "salt and pepper", "the")]
    ['say a capital', '“foot, feet”', '“salt and pepper”', '“the”']
    """
    turned = any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in name)
    shown = isolated(name) if turned else name
    plain = all(unicodedata.category(char)[0] in "LMN" or char in _INSIDE for char in name)
    short = len(name) <= _SHORT and name.islower()
    return shown if plain and not short and "and" not in name.split() else f"“{shown}”"
