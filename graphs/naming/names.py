"""Names of nodes: labels that lead with what tells a feature from its neighbours.

The label of a feature is, in this order: a person's; the words that somebody wrote about it; what
it promotes, if its evidence agrees on a word ("say Texas"); words of the texts in which it fires
("about Austin"); the tokens at which it fires ("on country"); what it promotes at all.

    say Texas, Illinois · about Dealey Plaza, Austin

The token at a feature's own position is no part of its label, nor is what most features at that
position fire on: it tells nothing apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from graphs.analysis.influence import influence
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS, Description, NodeKind
from graphs.naming.evidence import Evidence, agreement, evidence, readable_first
from graphs.naming.wording import LATIN, main_script

AGREED = 0.26  # agreement on a word from which it names the feature: more than one list alone gives
WITH = 0.5  # of the agreement on the first word, from which a second one stands beside it
COMMON, FEW = 0.1, 4  # of the features, and their number: words that more promote count less
SHARED = 0.5  # of the influence at a position: words of more of it tell nothing apart
WORDS = 3  # of one kind in a label


class Names:
    """Names of the nodes of a graph, computed when they are asked for."""

    def __init__(self, graph: AttributionGraph, annotations: Annotations = NO_ANNOTATIONS) -> None:
        self.graph, self.annotations = graph, annotations
        self._known: dict[int, Evidence] = {}  # all that is known of a feature
        self._own: dict[int, Evidence] = {}  # without the token at its position
        self._agreements: dict[int, dict[str, float]] = {}
        self._labels: dict[int, list[str]] = {}  # in parts
        self._targets = {int(row): place for place, row in enumerate(graph.target_rows())}

    def label(self, row: int) -> str:
        """Label of a node: what leads its name, then what else is known; empty if nothing is."""
        return " · ".join(self._parts(row))

    def short(self, row: int) -> str:
        """The same in two or three words."""
        parts = self._parts(row)
        is_feature = self.graph.nodes.kind[row] == NodeKind.FEATURE
        return parts[0].partition(", ")[0] if parts and is_feature else "".join(parts)

    def evidence(self, row: int) -> Evidence:
        """What is known of a feature, without the token at its own position."""
        if row not in self._own:
            token = self.graph.token_text(int(self.graph.nodes.pos[row])).strip().casefold()
            self._own[row] = self._whole(row).without(frozenset([token]))
        return self._own[row]

    def agreement(self, row: int) -> dict[str, float]:
        """Agreement of a feature's evidence on each word; less on words that many features promote.

        Promoted tokens of many features are those with unusual unembeddings, except for a target:
        features that promote it are what the graph is made of, all the more when it is pruned.
        """
        if row not in self._agreements:
            self._agreements[row] = {
                word: agreed * self._kept(word)
                for word, agreed in agreement(self.evidence(row), self.script).items()
            }
        return self._agreements[row]

    def agreed(self, row: int) -> list[str]:
        """Words on which a feature's evidence agrees, the first most; two at most, or none."""
        return _best(self.agreement(row))

    def fires_on_its_token(self, row: int) -> bool:
        """Whether a feature is known to fire on the token at its own position and on no other."""
        return bool(self._whole(row).fires) and not self.evidence(row).fires

    @cached_property
    def influence(self) -> Float[ndarray, " node"]:
        """Influence of every node on the targets."""
        return influence(self.graph)

    @cached_property
    def script(self) -> str:
        """Script of the prompt."""
        return main_script(self.graph.provenance.prompt)

    @cached_property
    def _features(self) -> list[int]:
        return np.flatnonzero(self.graph.nodes.is_kind(NodeKind.FEATURE)).tolist()

    @cached_property
    def _answers(self) -> frozenset[str]:
        return frozenset(target.text.strip() for target in self.graph.provenance.targets)

    @cached_property
    def promoting(self) -> Counter[str]:
        """How many features promote each word."""
        known = map(self._whole, self._features)
        return Counter(
            word for one in known for word in {w.strip() for w in (*one.own, *one.promoted)}
        )

    @cached_property
    def shared(self) -> dict[int, frozenset[str]]:
        """By position, in lower case, words of where features fire that most there share.

        Most is by influence: of features that hardly matter there are many, of all kinds.
        """
        graph, strength = self.graph, self.influence
        features = graph.nodes.is_kind(NodeKind.FEATURE)
        found: dict[int, frozenset[str]] = {}
        for pos in np.unique(graph.nodes.pos[features]).tolist():
            rows = np.flatnonzero(features & (graph.nodes.pos == pos))
            counts: Counter[str] = Counter()
            for row, part in zip(rows.tolist(), strength[rows].tolist(), strict=True):
                counts.update(dict.fromkeys(self._whole(row).where, part))
            most = SHARED * float(strength[rows].sum())
            found[pos] = frozenset(word for word, part in counts.items() if part > most)
        return found

    def _kept(self, word: str) -> float:
        """Part of the agreement on a word that counts."""
        if word in self._answers:
            return 1.0
        limit = max(FEW, COMMON * len(self._features))
        return min(1.0, limit / max(1, self.promoting[word]))

    def _whole(self, row: int) -> Evidence:
        if row not in self._known:
            promoted = self.graph.output_tokens.get(row, ())
            self._known[row] = evidence(self.graph.description(row), promoted)
        return self._known[row]

    def _parts(self, row: int) -> list[str]:
        if row not in self._labels:
            self._labels[row] = self._found(row)
        return self._labels[row]

    def _found(self, row: int) -> list[str]:
        own = self.annotations.label(self.graph, row)
        if own:
            return [own]
        if self.graph.nodes.kind[row] == NodeKind.FEATURE:
            return self._feature(row)
        return [self._plain(row)]

    def _feature(self, row: int) -> list[str]:
        shared = self.shared[int(self.graph.nodes.pos[row])]
        return _parts(self.evidence(row), self.agreed(row), shared, self.script)

    def _plain(self, row: int) -> str:
        graph, node = self.graph, self.graph.nodes[row]
        if node.kind in TARGET_KINDS:
            return graph.provenance.targets[self._targets[row]].text
        match node.kind:
            case NodeKind.TOKEN:
                return graph.token_text(node.pos or 0)
            case NodeKind.POSITION:
                return f"embedding of position {node.pos}"
            case NodeKind.BIAS:
                return f"constants at layer {node.layer}"
            case NodeKind.HEAD:
                return f"head {node.layer}.{node.index}"
            case _:
                return f"{node.kind.word} at layer {node.layer}"


def feature_label(names: Names, name: str) -> str:
    """Label of a feature LAYER/INDEX at its most influential node, or of its node LAYER/INDEX@POS.

    By its description alone if no node is one of it; empty if nothing is known.
    """
    graph, nodes = names.graph, names.graph.nodes
    key, _, pos = name.partition("@")
    layer, index = map(int, key.split("/"))
    of_it = nodes.is_kind(NodeKind.FEATURE) & (nodes.layer == layer) & (nodes.index == index)
    rows = np.flatnonzero(of_it)
    if not len(rows):
        known = graph.descriptions.get(key)
        return "" if known is None else description_label(known)
    there = rows[nodes.pos[rows] == int(pos)] if pos else rows[:0]
    strongest = rows[np.argmax(names.influence[rows])]
    return names.label(int(there[0] if len(there) else strongest))


def description_label(description: Description) -> str:
    """Label of a feature by its description alone, without neighbours."""
    known = evidence(description, ())
    return " · ".join(_parts(known, _best(agreement(known, LATIN)), frozenset(), LATIN))


def _best(agreements: Mapping[str, float]) -> list[str]:
    """Words with agreement enough, the first most; two at most, or none."""
    found = sorted(agreements.items(), key=lambda pair: -pair[1])[:2]
    least = max(AGREED, WITH * found[0][1]) if found else 0.0
    return [word for word, agreed in found if agreed >= least]


def _parts(known: Evidence, agreed: list[str], shared: frozenset[str], script: str) -> list[str]:
    """Parts of a feature's label; `shared` words of where it fires are left out."""
    if known.prose:
        return [known.prose]
    about, on = (
        [word for word in readable_first(listed, script) if word.casefold() not in shared]
        for listed in (known.texts, known.fires)
    )
    every = {word.strip() for word in (*known.own, *known.promoted)}
    promoted = [word for word in agreed if word in every]
    found: list[str] = []
    if promoted:
        found.append(_listed("say", promoted))
    if rest := [word for word in about if word not in promoted]:
        found.append(_listed("about", rest))
    elif on and not promoted:
        found.append(_listed("on", on))
    if not found and known.own:
        found.append(_listed("say", readable_first(known.own, script)[:2]))
    return found


def _listed(how: str, words: list[str]) -> str:
    return f"{how} {', '.join(words[:WORDS])}"
