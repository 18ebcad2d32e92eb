"""Selection: nodes by name.

feature:12/345@7     one node, by its canonical name (`graphs.core.nodes`)
feature:12/345       this feature at all positions
token: Dallas        tokens or logits with this text, with or without the leading space
token, error, …      all nodes of a kind
layer:12             all features and errors of a layer
group:Texas          the user's group of this name; supernode:Texas is the same
concept:Texas        features whose label names it, or that promote this token most
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from graphs.core.graph import AttributionGraph
from graphs.core.nodes import RESPONSE_KINDS, TARGET_KINDS, NodeId, NodeKind
from graphs.errors import HeadwaterError

KINDS = {kind.word: kind for kind in NodeKind if kind not in RESPONSE_KINDS}
TEXTUAL = (NodeKind.TOKEN, *TARGET_KINDS)  # kinds that are also named by their text
MARKS = dict.fromkeys(map(ord, "\u2068\u2069"))  # of direction, around texts in terminals
MOST_SUGGESTED = 5000  # nodes whose names are compared with a mistyped one
FORMS = (
    f"expected {', '.join(KINDS)}, layer:N, group:NAME or concept:NAME, a node as in "
    "feature:12/345@7, or a text as in token:Dallas."
)


class SelectionError(HeadwaterError):
    """A name selects no node; the message is one sentence that says what would."""


def select(
    graph: AttributionGraph, name: str, groups: Mapping[str, Int[ndarray, " _member"]] | None = None
) -> Bool[ndarray, " node"]:
    """The nodes that a name selects.  Raises SelectionError if there are none."""
    name = name.translate(MARKS)
    kind, _, rest = name.partition(":")
    if kind in ("group", "supernode"):
        found = _group(graph, rest, groups or {})
    elif kind == "concept":
        found = _concept(graph, rest)
    elif kind == "layer":
        found = _layer(graph, name, rest)
    elif kind in KINDS:
        found = _of_kind(graph, KINDS[kind], name, rest)
    else:
        like = _meant(graph, name, kind, rest)
        raise SelectionError(
            f"{name!r} does not name a node: " + (f"did you mean {like!r}?" if like else FORMS)
        )
    return found


def _meant(graph: AttributionGraph, name: str, kind: str, rest: str) -> str:
    """What may have been meant by a name of no form: a mistyped kind, a token, a concept."""
    like = get_close_matches(kind, [*KINDS, "layer", "group", "supernode", "concept"], n=1)
    if like:
        return ":".join(filter(None, (like[0], rest)))
    for word, texts in ((one.word, _texts(graph, one).values()) for one in TEXTUAL):
        if name in map(str.strip, texts):
            return f"{word}:{name}"
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE)).tolist()
    return f"concept:{name}" if any(names_concept(graph, row, name) for row in features) else ""


def names_concept(graph: AttributionGraph, row: int, concept: str) -> bool:
    """Whether a feature's label names a concept; without a label, its most promoted token."""
    return concept in _concepts(graph, row)


def _concepts(graph: AttributionGraph, row: int) -> list[str]:
    """What a feature's label names; without a label, the token that it promotes most."""
    description = graph.description(row)
    if description is None:
        return [token.strip() for token in graph.output_tokens.get(row, ())][:1]
    return re.split(" → | · |, ", description.label)


def _of_kind(
    graph: AttributionGraph, kind: NodeKind, name: str, rest: str
) -> Bool[ndarray, " node"]:
    of_kind = graph.nodes.is_kind(kind)
    found = np.zeros(len(graph), dtype=bool)
    if not rest:
        found = of_kind
    elif _is_node(name):
        found[_row(graph, name)] = True
    elif kind == NodeKind.FEATURE and (parts := re.fullmatch(r"(\d{1,6})/(\d{1,18})", rest)):
        same = (graph.nodes.layer == int(parts[1])) & (graph.nodes.index == int(parts[2]))
        found = of_kind & same
    else:
        texts = _texts(graph, kind)
        found[[row for row, text in texts.items() if rest in (text, text.strip())]] = True
        if not np.any(found) and texts:
            known = ", ".join(repr(text) for text in list(texts.values())[:12])
            raise SelectionError(f"No {kind.word} has the text {rest!r}: the graph has {known}.")
    if not np.any(found):
        raise SelectionError(f"This graph of {len(graph)} nodes has no {name}.")
    return found


def _is_node(name: str) -> bool:
    try:
        NodeId.parse(name)
    except ValueError:
        return False
    return True


def _row(graph: AttributionGraph, name: str) -> int:
    try:
        return graph.find(name)
    except KeyError as error:
        node = NodeId.parse(name)
        of_kind = graph.nodes.is_kind(node.kind)
        there = of_kind & (graph.nodes.pos == (-1 if node.pos is None else node.pos))
        rows = np.flatnonzero(there if np.any(there) else of_kind)[:MOST_SUGGESTED]
        like = get_close_matches(name, [str(graph.nodes[row]) for row in rows.tolist()], n=2)
        meant = f": did you mean {' or '.join(like)}?" if like else "."
        raise SelectionError(f"{name} is not in this graph of {len(graph)} nodes{meant}") from error


def _texts(graph: AttributionGraph, kind: NodeKind) -> dict[int, str]:
    """Texts of the nodes of a kind, by row; empty for kinds without texts."""
    if kind == NodeKind.TOKEN:
        rows = np.flatnonzero(graph.nodes.is_kind(kind)).tolist()
        return {row: graph.token_text(int(graph.nodes.pos[row])) for row in rows}
    if kind in TARGET_KINDS:
        pairs = zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True)
        return {row: target.text for row, target in pairs if graph.nodes.kind[row] == kind}
    return {}


def _layer(graph: AttributionGraph, name: str, rest: str) -> Bool[ndarray, " node"]:
    if not re.fullmatch(r"\d{1,6}", rest):
        raise SelectionError(f"{name!r} does not name a layer: expected a number, as in layer:12.")
    inner = graph.nodes.is_kind(NodeKind.FEATURE, NodeKind.ERROR)
    found = inner & (graph.nodes.layer == int(rest))
    if not np.any(found):
        raise SelectionError(f"This graph has no feature or error at {name}.")
    return found


def _group(
    graph: AttributionGraph, name: str, groups: Mapping[str, Int[ndarray, " _member"]]
) -> Bool[ndarray, " node"]:
    if name not in groups:
        known = ", ".join(map(repr, groups)) or "none"
        raise SelectionError(f"There is no group {name!r}: the groups are {known}.")
    found = np.zeros(len(graph), dtype=bool)
    found[groups[name]] = True
    return found


def _concept(graph: AttributionGraph, name: str) -> Bool[ndarray, " node"]:
    found = np.zeros(len(graph), dtype=bool)
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE)).tolist()
    found[[row for row in features if names_concept(graph, row, name)]] = True
    if not np.any(found):
        raise SelectionError(_no_concept(graph, features, name))
    return found


def _no_concept(graph: AttributionGraph, features: list[int], name: str) -> str:
    """What to say of a concept that no feature has, with those that are spelled like it."""
    known = dict.fromkeys(word for row in features for word in _concepts(graph, row))
    plain = name.casefold()
    like = get_close_matches(plain, [word.casefold() for word in known])
    meant = [word for word in known if word.casefold() == plain]
    meant = meant or [word for word in known if word.casefold() in like]
    did_you = f": did you mean {' or '.join(map(repr, meant[:3]))}?" if meant else "."
    return f"No feature of this graph has a label that names {name!r}{did_you}"
