"""Predictions in the JSON of circuit-tracer, Neuronpedia and others: their text, and their number.

The text stands in `clerp`, with the probability behind it:

    Output "Austin" (p=0.750)   circuit-tracer        output: "Austin" (p=0.750)   EleutherAI
    "Austin" k(p=0.75)          circuit-tracer's viewer reads this as well

or in `token` (OpenMOSS' server) or `logitToken`.  The number is token_prob, else logitPct, which
the viewers call it, else the one in the text.  circuit-tracer writes the weights of targets that
somebody made in the place of probabilities.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from graphs.core.nodes import NodeId, NodeKind
from graphs.core.provenance import Target
from graphs.formats.neuronpedia.schema import Node
from graphs.formats.target_weights import is_probability, weighed

_NUMBERED = re.compile(r"(?P<said>.*)\(p=(?P<number>[^()]*)\)\s*", re.DOTALL)
_QUOTED = re.compile(
    r"""(?:\w+(?::\s*|\s+))?(?P<quote>["'])(?P<text>.*)(?P=quote)[^"']*""", re.DOTALL
)  # a word before the token, and what follows it
_RANKED = "output_"  # ids of EleutherAI's predictions, which name no vocabulary entry


class Read(NamedTuple):
    """What a file says about its targets, in its order."""

    targets: tuple[Target, ...]
    seeds: list[float]
    remarks: tuple[str, ...]


def are_made(logits: list[Node]) -> bool:
    """Whether the targets are directions that somebody made: then numbers are weights."""
    numbers = [number for node in logits if (number := _number(node)) is not None]
    return not all(map(is_probability, numbers))


def read_targets(logits: list[Node], ids: list[NodeId]) -> Read:
    """The targets of a file, whose nodes are `ids`."""
    made = [
        node.kind == NodeKind.TARGET and not theirs.node_id.startswith(_RANKED)
        for node, theirs in zip(ids, logits, strict=True)
    ]
    found = weighed([_number(theirs) for theirs in logits], made)
    targets = tuple(
        Target(
            text=_text(theirs) or f"#{node.index}",
            token_id=node.index if node.kind == NodeKind.LOGIT else None,
            probability=probability,
        )
        for node, theirs, probability in zip(ids, logits, found.probabilities, strict=True)
    )
    return Read(targets, found.seeds, found.remarks)


def _text(theirs: Node) -> str:
    """The token, or what the direction is; empty where nothing is said."""
    numbered = _NUMBERED.fullmatch(theirs.clerp)
    quoted = _QUOTED.fullmatch(numbered["said"]) if numbered else None
    if quoted:
        return quoted["text"]
    said = numbered["said"].strip() if numbered else theirs.clerp
    fields: list[Any] = [theirs.raw.get(name) for name in ("token", "logitToken")]
    return said or next((field for field in fields if field and isinstance(field, str)), "")


def _number(theirs: Node) -> float | None:
    """A probability or weight; None where nothing is said, 0 where nothing else is."""
    known = [] if theirs.raw.get("token_prob") is None else [theirs.token_prob]
    known += [*_share(theirs.raw.get("logitPct")), *_in_text(theirs.clerp)]
    return next((number for number in known if number), 0.0 if known else None)


def _share(field: Any) -> list[float]:
    is_number = isinstance(field, int | float) and not isinstance(field, bool)
    return [float(field)] if is_number and 0 <= field <= 1 else []  # a whole number may be endless


def _in_text(clerp: str) -> list[float]:
    numbered = _NUMBERED.fullmatch(clerp)
    try:
        number = float(numbered["number"]) if numbered else math.nan
    except ValueError:  # as in 1.2.3
        return []
    return [number] if math.isfinite(number) else []
