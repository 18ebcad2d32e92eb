"""Edits in words: what `headwater intervene` takes as options, and the local server as lines.

scale concept:Texas=0
--swap "Texas>California" --with oakland
only-queries 4.1,4.2
generate 5
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from math import nan

from jaxtyping import Float
from numpy import ndarray

import graphs
from graphs.core.annotations import Annotations
from graphs.core.graph import AttributionGraph
from headwater.arguments.usage import UsageError

WITH_NUMBER = {"set": graphs.SetTo, "scale": graphs.Scale, "add": graphs.Add}
STEER, _SWAP, _WITH = "steer", "swap", "with"
HEADS = ("only-queries", "only-keys", "only-values", "run-patterns")  # as chosen_heads has them
_PLAIN = ("regime", "through", "generate")
_WORDS = (*WITH_NUMBER, STEER, _SWAP, *HEADS, *_PLAIN)


@dataclass(frozen=True)
class Opening:
    """How what a line names is read."""

    graph: Callable[[str], tuple[AttributionGraph, Annotations]]  # that of a swap
    vector: Callable[[str], Float[ndarray, " d_model"]]  # that of a steering vector


@dataclass(frozen=True)
class Written:
    """An intervention as it is written; None is what is not stated."""

    edits: tuple[graphs.Edit, ...] = ()
    heads: tuple[tuple[str, ...], ...] = ((),) * len(HEADS)  # names, in the order of HEADS
    regime: graphs.Regime | None = None
    through: int | None = None
    new_tokens: int | None = None


def written(text: str, opening: Opening) -> Written:
    """Read an intervention, one edit or setting a line.

    Raises UsageError, with the number of the line, and as `opening`.
    """
    edits: list[graphs.Edit] = []
    stated: dict[str, str] = {}
    heads: dict[str, list[str]] = {word: [] for word in HEADS}
    for number, line in enumerate(text.splitlines(), 1):
        for word, value in _options(line, number):
            if word in WITH_NUMBER:
                edits.append(WITH_NUMBER[word](*named(value, word)))
            elif word == STEER:
                edits.append(steered(value, word, opening.vector))
            elif word == _SWAP:
                edits.append(_swap(value, number, opening))
            elif word in heads:
                heads[word].append(value)
            elif word in stated:
                raise UsageError(f"Line {number} gives {word} again: give it once.")
            else:
                stated[word] = value
    return Written(
        tuple(edits),
        tuple(map(tuple, heads.values())),
        _regime(stated["regime"]) if "regime" in stated else None,
        _whole(stated, "through"),
        _whole(stated, "generate"),
    )


def named(text: str, option: str) -> tuple[str, float]:
    """NODES=NUMBER.  Raises UsageError, which names the option, for anything else."""
    nodes, equals, number = text.rpartition("=")
    value = _number(number)
    if not equals or not nodes or value is None:
        raise UsageError(f"{option} expects NODES=NUMBER, as in feature:12/345@7=0, got {text!r}.")
    return nodes, value


def steered(
    text: str, option: str, vector_of: Callable[[str], Float[ndarray, " d_model"]]
) -> graphs.Steer:
    """LAYER@POS:FILE.npy=NUMBER, where POS+ is that position and all later ones.

    Raises UsageError, which names the option, for anything else, and as `vector_of`.
    """
    place, _, rest = text.partition(":")
    file, amount = named(rest, option) if "=" in rest else ("", nan)
    layer, _, pos = place.partition("@")
    if not file or not layer.isdecimal() or not pos.removesuffix("+").isdecimal():
        raise UsageError(
            f"{option} expects LAYER@POS:FILE.npy=NUMBER, as in 4@7:direction.npy=2, got {text!r}."
        )
    onward = pos.endswith("+")
    return graphs.Steer(
        int(layer), int(pos.removesuffix("+")), vector_of(file), amount, onward=onward
    )


def swapped(text: str, other: AttributionGraph, annotations: Annotations) -> graphs.Swap:
    """ONE>OTHER, of which the second is active in another graph.  Raises UsageError."""
    one, sign, two = (part.strip() for part in text.partition(">"))
    if not (one and sign and two):
        raise UsageError(f"--swap expects ONE>OTHER, as in Texas>California, got {text!r}.")
    return graphs.Swap(one, two, other, annotations)


def _swap(value: str, number: int, opening: Opening) -> graphs.Swap:
    names, _, other = value.rpartition(f" {_WITH} ")
    if not names:
        raise UsageError(f"Line {number} swaps without a graph: write swap ONE>OTHER with GRAPH.")
    return swapped(names, *opening.graph(other.strip()))


def _options(line: str, number: int) -> list[tuple[str, str]]:
    """Words and values of a line.  Raises UsageError for words that are none."""
    try:
        parts = shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"Line {number} has a quotation mark without its other one.") from error
    found: list[tuple[str, list[str]]] = []
    for part in parts:
        word = part.removeprefix("--")
        if part == f"--{_WITH}" and found:
            found[-1][1].append(_WITH)
        elif not found or part.startswith("--"):
            if word not in _WORDS:
                raise UsageError(
                    f"Line {number} begins with {part!r}: expected {', '.join(_WORDS[:-1])} or "
                    f"{_WORDS[-1]}, as in scale concept:Texas=0."
                )
            found.append((word, []))
        else:
            found[-1][1].append(part)
    return [(word, " ".join(values)) for word, values in found]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _regime(text: str) -> graphs.Regime:
    if text not in list(graphs.Regime):
        raise UsageError(f"regime is {', '.join(graphs.Regime)}, got {text!r}.")
    return graphs.Regime(text)


def _whole(stated: dict[str, str], word: str) -> int | None:
    text = stated.get(word)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 6:
        raise UsageError(f"{word} expects a whole number, as in {word} 2, got {text!r}.")
    return int(text)
