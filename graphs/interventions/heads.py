"""Heads in interventions: what is done to their outputs and patterns, and which of them react.

    head:4.5             head 5 of layer 4, at every position
    head:4.5@8, @is      what it writes at one query, by position or token; @8+ also at later ones
    head:4.5@is<capital  one entry of its pattern: what the query takes from the key (or ←)

A scaled entry leaves the others of its query as they are, so its row no longer adds up to 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from graphs.attention.places import head_named, position_named
from graphs.comparison.positions import align_prompts
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.provenance import Provenance
from graphs.interventions.edits import EditError, Swap

PREFIX = "head:"
Head = tuple[int, int]  # layer and number


class HeadPlace(NamedTuple):
    """What a name of a head says."""

    layer: int
    head: int
    query: int | None = None  # position; None: every one
    key: int | None = None  # None: what it takes from all keys
    onward: bool = False  # also at all later queries

    def __str__(self) -> str:
        query = "" if self.query is None else f"@{self.query}{'+' * self.onward}"
        key = "" if self.key is None else f"<{self.key}"
        return f"{PREFIX}{self.layer}.{self.head}{query}{key}"

    def overlaps(self, other: HeadPlace) -> bool:
        """Whether both say something of the same output, or of the same entry."""
        if (self.layer, self.head, self.key) != (other.layer, other.head, other.key):
            return False
        first, second = sorted((self, other), key=lambda one: one.query or 0)
        return None in (first.query, second.query) or first.onward or first.query == second.query


@dataclass(frozen=True, repr=False)
class HeadChange(Brief):
    """The output of a head, or an entry of its pattern, is multiplied by a factor."""

    place: HeadPlace
    factor: float


@dataclass(frozen=True, repr=False)
class HeadPatch(Brief):
    """A head writes what it writes on another prompt."""

    place: HeadPlace
    queries: tuple[tuple[int, int], ...]  # position in this prompt, and in the other
    other: Provenance  # of the other prompt


@dataclass(frozen=True, repr=False)
class HeadChoice(Brief):
    """Heads that alone react to an edit, by what of them does, and heads whose patterns run."""

    queries: frozenset[Head] = frozenset()
    keys: frozenset[Head] = frozenset()
    values: frozenset[Head] = frozenset()
    running: frozenset[Head] = frozenset()

    @property
    def only(self) -> frozenset[Head]:
        """Heads through which alone an edit acts; none: it acts through everything."""
        return self.queries | self.keys | self.values

    @property
    def patterns(self) -> frozenset[Head]:
        """Heads whose patterns run in every regime."""
        return self.running | self.queries | self.keys

    @property
    def reacting(self) -> str:
        """What alone reacts, in words; empty: everything does."""
        named = {"queries": self.queries, "keys": self.keys, "values": self.values}
        parts = [f"the {name} of {_listed(heads)}" for name, heads in named.items() if heads]
        return " and ".join(parts)

    @property
    def condition(self) -> str:
        """The choice as part of the description of an intervention; empty: there is none."""
        parts = [
            *([f"only through {self.reacting}"] if self.only else []),
            *([f"patterns of {_listed(self.running)} run"] if self.running else []),
        ]
        return "".join(f", {part}" for part in parts)


EVERYTHING = HeadChoice()


def chosen_heads(
    graph: AttributionGraph,
    queries: Iterable[str] = (),
    keys: Iterable[str] = (),
    values: Iterable[str] = (),
    running: Iterable[str] = (),
) -> HeadChoice:
    """A choice by names, each of one head or of several with commas between.

    Raises SelectionError for anything else than heads of layers that the model has.
    """
    n_layers = graph.provenance.model.n_layers

    def heads(names: Iterable[str]) -> frozenset[Head]:
        every = [part for name in names for part in name.split(",")]
        return frozenset(head_named(one, n_layers) for one in every)

    return HeadChoice(*map(heads, (queries, keys, values, running)))


def require_no_new_tokens(choice: HeadChoice, new_tokens: int) -> None:
    """Raises EditError if tokens are to be generated while edits act through some heads only."""
    if choice.only and new_tokens:
        raise EditError(
            "New tokens are generated with everything running: leave them out, or the heads "
            f"through which alone the edit acts ({choice.reacting})."
        )


def head_place(graph: AttributionGraph, name: str) -> HeadPlace:
    """What a name of a head says.

    Raises SelectionError for no such head or token, EditError for an entry that there is not.
    """
    named, at, where = name.removeprefix(PREFIX).partition("@")
    layer, head = head_named(named, graph.provenance.model.n_layers)
    place = HeadPlace(layer, head)
    if not at:
        return place
    where = where.strip()
    ends = _ends(graph, where)
    if ends is None:
        onward = where.endswith("+") and len(where) > 1
        query = position_named(graph, where[: len(where) - onward], _of(place))
        return place._replace(query=query, onward=onward)
    query, key = (position_named(graph, end, _of(place)) for end in ends)
    if key > query:
        raise EditError(
            f"{PREFIX}{layer}.{head}@{query}<{key} looks ahead: name the query first, then a key "
            "at its position or before."
        )
    return place._replace(query=query, key=key)


def row_place(graph: AttributionGraph, name: str) -> HeadPlace:
    """A head at a query, by default the last position of the prompt.

    Raises as `head_place`, and EditError for entries and later positions.
    """
    place = head_place(graph, name)
    if place.key is not None or place.onward:
        raise EditError(f"A row of a pattern is HEAD@QUERY, as in 4.5@8, got {name!r}.")
    last = len(graph.provenance.tokens) - 1
    return place if place.query is not None else place._replace(query=last)


def patch_of(graph: AttributionGraph, swap: Swap) -> HeadPatch:
    """The patch of a swap whose sides are heads.

    Raises EditError unless both are the same head, and where no positions are aligned.
    """
    sides = swap.one, swap.other
    if not all(side.startswith(PREFIX) for side in sides):
        raise EditError(f"{str(swap)!r} swaps a head and something else: name the head twice.")
    own, other = head_place(graph, swap.one), head_place(swap.graph, swap.other)
    if own[:2] != other[:2]:
        raise EditError(f"{str(swap)!r} swaps two heads: a head takes its own output only.")
    if {own.key, other.key} != {None} or own.onward or other.onward:
        raise EditError(
            f"{str(swap)!r} swaps entries or later positions: name a head, or a head at a query."
        )
    if other.query is not None and own.query is None:
        raise EditError(f"{str(swap)!r} names a query of the other prompt only: name both.")
    if own.query is not None and other.query is not None:
        pairs = [(own.query, other.query)]
    else:
        place = align_prompts(swap.graph.provenance, graph.provenance).tolist()
        aligned = [(here, there) for there, here in enumerate(place) if here >= 0]
        pairs = [pair for pair in aligned if own.query in (None, pair[0])]
    if not pairs:
        raise EditError(
            f"No position of the other prompt is aligned with that of {str(swap)!r}: name the "
            "query on both sides."
        )
    return HeadPatch(own, tuple(pairs), swap.graph.provenance)


def _ends(graph: AttributionGraph, where: str) -> tuple[str, str] | None:
    """Query and key of an entry; None if there is a query alone.

    Tokens, as <bos>, may have the sign in them.
    """
    places = [at for at, character in enumerate(where) if character in "<←"]
    texts = {text for token in graph.provenance.tokens for text in (token, token.strip())}
    if not places or where in texts:
        return None
    found = [(where[:at].strip(), where[at + 1 :].strip()) for at in places]
    whole = [ends for ends in found if all(ends)]
    if not whole:
        raise EditError(f"{where!r} is half an entry: give QUERY<KEY, as in head:4.5@8<4.")
    known = [ends for ends in whole if all(end in texts or end.isdecimal() for end in ends)]
    return (known or whole)[0]


def _of(place: HeadPlace) -> str:
    return f"{PREFIX}{place.layer}.{place.head}"


def _listed(heads: frozenset[Head]) -> str:
    return ", ".join(f"{layer}.{head}" for layer, head in sorted(heads))
