"""Targets in the JSON of circuit-tracer, Neuronpedia and others: text and probability or weight.

The text is in `clerp`, followed by the probability:

    Output "Austin" (p=0.750)   circuit-tracer        output: "Austin" (p=0.750)   EleutherAI
    "Austin" k(p=0.75)          circuit-tracer's viewer reads this as well

or in `token` (OpenMOSS' server) or `logitToken`.  The number is token_prob, else logitPct, the
viewers' name for it, else the one in the text.  For custom directions circuit-tracer writes weights
instead of probabilities.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from graphs.core.nodes import NodeId, NodeKind
from graphs.core.provenance import Target
from graphs.formats.neuronpedia.schema import Node
from graphs.formats.target_weights import is_probability, target_seeds

_NUMBERED = re.compile(r"(?P<text>.*)\(p=(?P<number>[^()]*)\)\s*", re.DOTALL)
_QUOTED = re.compile(
    r"""(?:\w+(?::\s*|\s+))?(?P<quote>["'])(?P<text>.*)(?P=quote)[^"']*""", re.DOTALL
)  # optional word, the quoted token, anything after it
_RANKED = "output_"  # ids of EleutherAI's predictions, which contain no vocabulary id


class ReadTargets(NamedTuple):
    """Targets of a file, in its order."""

    targets: tuple[Target, ...]
    seeds: list[float]
    remarks: tuple[str, ...]


def are_custom(logits: list[Node]) -> bool:
    """Whether the targets are custom directions, whose numbers are weights."""
    numbers = [number for node in logits if (number := _number(node)) is not None]
    return not all(map(is_probability, numbers))


def read_targets(logits: list[Node], ids: list[NodeId]) -> ReadTargets:
    """The targets of a file, whose nodes are `ids`."""
    custom = [
        node.kind == NodeKind.TARGET and not theirs.node_id.startswith(_RANKED)
        for node, theirs in zip(ids, logits, strict=True)
    ]
    found = target_seeds([_number(theirs) for theirs in logits], custom)
    targets = tuple(
        Target(
            text=_text(theirs) or f"#{node.index}",
            token_id=node.index if node.kind == NodeKind.LOGIT else None,
            probability=probability,
        )
        for node, theirs, probability in zip(ids, logits, found.probabilities, strict=True)
    )
    return ReadTargets(targets, found.seeds, found.remarks)


def _text(theirs: Node) -> str:
    """The token, or the name of the direction; empty if the file has none."""
    numbered = _NUMBERED.fullmatch(theirs.clerp)
    quoted = _QUOTED.fullmatch(numbered["text"]) if numbered else None
    if quoted:
        return quoted["text"]
    text = numbered["text"].strip() if numbered else theirs.clerp
    fields: list[Any] = [theirs.raw.get(name) for name in ("token", "logitToken")]
    return text or next((field for field in fields if field and isinstance(field, str)), "")


def _number(theirs: Node) -> float | None:
    """A probability or weight: the first that is not 0; None if the file has none."""
    known = [] if theirs.raw.get("token_prob") is None else [theirs.token_prob]
    known += [*_share(theirs.raw.get("logitPct")), *_in_text(theirs.clerp)]
    return next((number for number in known if number), 0.0 if known else None)


def _share(field: Any) -> list[float]:
    is_number = isinstance(field, int | float) and not isinstance(field, bool)
    return (
        [float(field)] if is_number and 0 <= field <= 1 else []
    )  # an integer may be too large for float


def _in_text(clerp: str) -> list[float]:
    numbered = _NUMBERED.fullmatch(clerp)
    try:
        number = float(numbered["number"]) if numbered else math.nan
    except ValueError:  # as in 1.2.3
        return []
    return [number] if math.isfinite(number) else []
