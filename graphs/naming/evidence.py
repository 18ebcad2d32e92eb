"""Evidence: what is known of a feature, as lists of words, and the words that it agrees on.

A feature stands for a word if independent lists agree on it, or if one list repeats it in several
forms.  With the words w₁, w₂, … of a list weighted by rank, 1 / r,

    agreement(w) = Σ over lists  part[list] · (weight of the words alike w / weight of a full list)

The lists are the tokens promoted at the feature's own layer and those promoted over all layers; a
word that is typical of the texts in which the feature fires gets a constant more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphs.core.nodes import Description
from graphs.naming.wording import WEIGHT, Reading, alike, marked, reading

MOST = 8  # words of a list that count
# Parts with which the middle concepts of the atlas models' known circuits are named most often; the
# tokens promoted at its own layer are closest to what a feature stands for.
OWN, ALL, TYPICAL = 0.7, 0.4, 0.1
_FULL = sum(1 / rank for rank in range(1, MOST + 1))


@dataclass(frozen=True)
class Evidence:
    """Lists of words, the strongest first; tokens keep their leading blank."""

    own: tuple[str, ...] = ()  # promoted at its own layer, or at all where that is unknown
    promoted: tuple[str, ...] = ()  # promoted over all layers
    texts: tuple[str, ...] = ()  # words that distinguish the texts in which it fires
    fires: tuple[str, ...] = ()  # tokens at which it fires
    prose: str = ""  # a label that somebody wrote

    def without(self, words: frozenset[str]) -> Evidence:
        """The same without some words, in lower case and without blanks."""

        def kept(listed: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(one for one in listed if one.strip().casefold() not in words)

        return replace(
            self,
            own=kept(self.own),
            promoted=kept(self.promoted),
            texts=kept(self.texts),
            fires=kept(self.fires),
        )

    @property
    def where(self) -> frozenset[str]:
        """Words of where it fires, in lower case and without blanks."""
        return frozenset(word.strip().casefold() for word in (*self.texts, *self.fires))


def evidence(description: Description | None, promoted: tuple[str, ...]) -> Evidence:
    """What is known of a feature: its description, else the tokens that it promotes."""
    if description is None:
        return Evidence(own=promoted[:MOST])
    own = description.promoted_at_own_layer
    places = _places(description)
    known = Evidence(own=own[:MOST] or description.promoted[:MOST] or promoted[:MOST])
    if own:
        known = replace(known, promoted=description.promoted[:MOST])
    if places is None:
        return replace(known, prose=description.label.strip())
    fires, texts = places
    return replace(known, fires=fires, texts=texts)


def _places(description: Description) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Tokens at which a feature fires and words of its texts, out of a label of `describe`.

    Such a label reads "is · Austin, Alamo → Texas, Illinois" and ends with the feature's own
    promoted tokens.  None for labels that somebody wrote.
    """
    where, arrow, promoted = description.label.rpartition(" → ")
    own = [token.strip() for token in description.promoted_at_own_layer]
    if not arrow or not own or promoted != ", ".join(own[: promoted.count(", ") + 1]):
        return None
    fires, _, texts = where.partition(" · ")
    return _tokens(fires), _tokens(texts)


def _tokens(listed: str) -> tuple[str, ...]:
    """Words of a label, with the blank with which the tokens of whole words begin."""
    return tuple(f" {word}" for word in listed.split(", ") if word)


def agreement(known: Evidence, script: str) -> dict[str, float]:
    """Agreement on each word that is promoted or typical of the texts."""
    parts = ((known.own, OWN), (known.promoted, ALL))
    found: dict[str, float] = {}
    for candidate in _forms([*known.own, *known.promoted, *known.texts], script):
        quality = WEIGHT[reading(candidate, script)]
        if quality > 0:
            votes = sum(part * _share(listed, candidate) for listed, part in parts)
            typical = any(alike(candidate.strip(), one.strip()) for one in known.texts)
            found[candidate.strip()] = quality * (votes + TYPICAL * typical)
    return found


def _forms(words: Iterable[str], script: str) -> list[str]:
    """Of words that are alike the one that reads best, in lower case if there is one."""
    chosen: list[str] = []
    # sorted is stable: of equals the first.
    for word in sorted(words, key=lambda one: (reading(one, script), one != one.lower())):
        if not any(alike(word.strip(), other.strip()) for other in chosen):
            chosen.append(word)
    return chosen


def _share(listed: tuple[str, ...], word: str) -> float:
    """Weight of the words of a list that are alike a word, by rank."""
    ranks = (rank for rank, one in enumerate(listed) if alike(one.strip(), word.strip()))
    return sum(1 / (rank + 1) for rank in ranks) / _FULL


def _distinct(words: Iterable[str]) -> list[str]:
    """Words of which no two are the same without blanks."""
    return list({word.strip(): word for word in words}.values())


def readable_first(tokens: Iterable[str], script: str) -> list[str]:
    """Tokens as parts of a name, words first; bytes and control tokens, marked, only if alone."""
    order = sorted(_distinct(tokens), key=lambda token: reading(token, script))
    plain = [token for token in order if reading(token, script) < Reading.CONTROL]
    return [marked(token) for token in plain or order]
