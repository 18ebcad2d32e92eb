"""Names of groups: what their members agree on, no two alike.

    votes(w) = Σ over members  influence · agreement on w  /  Σ influence

less the mean votes of the other groups for w, which tells a group from its neighbours.  A group is
named, in this order: by the token at its own position, if its members fire on nothing else; by the
word that has most votes, if these are enough; by the one token of the prompt from which most of it
comes; by the word that has most votes.

"say" leads the name of a group that stands for the text of a target or of a token, which are boxes
of their own, and for the token at its position while most of its influence goes straight to the
targets: "say Austin", "say a capital".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.carrying import carry_up
from graphs.analysis.influence import influence_shares, row_shares
from graphs.core.annotations import FreeNames
from graphs.core.nodes import NodeKind
from graphs.naming.names import Names
from graphs.naming.wording import Reading, alike, reading

STRAIGHT = 0.5  # of what a group passes on: share that goes to targets, from which it "says"
ALONE = 0.5  # of a group's influence: share of members that fire on their own token alone
ENOUGH = 0.04
WITH = 0.6  # of the votes for the first word, from which a second one stands beside it
SHOWN = 0.25  # factor of votes for what tokens of the prompt and targets say already
MOSTLY = 0.5  # of what comes from tokens: share of one from which a group is named by it
LONGEST = 24  # characters of two words
Votes = dict[str, float]  # by word
Origins = tuple[Int[ndarray, " token"], Float[ndarray, "node token"]]
_DEPTHS = {1: ("",), 2: (", early", ", late"), 3: (", early", ", middle", ", late")}


@dataclass(frozen=True)
class _Candidate:
    """What a group may be called."""

    token: str  # its name by a token; empty if it has none
    words: tuple[str, ...]  # by falling votes
    second: bool  # whether the second word belongs to the first
    shown: frozenset[str]  # texts of the graph's tokens and targets
    depth: float  # mean layer


def group_names(names: Names, groups: Sequence[Int[ndarray, " _member"]]) -> list[str]:
    """A name for each group of features of a graph, the first groups choosing first."""
    candidates = _candidates(names, groups)
    found = _by_tokens(candidates)
    free = FreeNames(filter(None, found))
    for number, candidate in enumerate(candidates):
        if not found[number]:
            found[number] = free.take(_by_votes(candidate, found))
    return found


def _by_tokens(candidates: Sequence[_Candidate]) -> list[str]:
    """Names by tokens; where up to three groups have the same one, with how deep they are."""
    alike_at: dict[str, list[int]] = defaultdict(list)
    for number, candidate in enumerate(candidates):
        alike_at[candidate.token].append(number)
    found = [""] * len(candidates)
    for token, numbers in alike_at.items():
        by_depth = sorted(numbers, key=lambda number: candidates[number].depth)
        for number, depth in zip(by_depth, _DEPTHS.get(len(numbers), ()), strict=False):
            found[number] = f"{token}{depth}" if token else ""
    return found


def _by_votes(candidate: _Candidate, taken: Sequence[str]) -> str:
    """The first word that no other name has, and the second where it belongs to it."""
    used = [word for name in taken for word in name.removeprefix("say ").split(", ") if word]
    words = [word for word in candidate.words if not any(alike(word, one) for one in used)]
    first, second = [*words, *candidate.words, "unnamed", ""][0], [*words[1:], ""][0]
    both = f"{first}, {second}"
    together = candidate.second and words[:1] == [*candidate.words[:1]] and second
    name = both if together and len(both) <= LONGEST else first
    return f"say {name}" if first in candidate.shown else name


def _candidates(names: Names, groups: Sequence[Int[ndarray, " _member"]]) -> list[_Candidate]:
    graph = names.graph
    total = float(graph.seed.sum()) or 1.0
    strength = influence_shares(graph, names.influence)
    weights = [strength[rows] / (float(strength[rows].sum()) or 1.0) for rows in groups]
    votes = [_votes(names, rows, weight) for rows, weight in zip(groups, weights, strict=True)]
    straight = _straight(names, strength)
    shown = _shown(names)
    origins: Origins | None = None
    found: list[_Candidate] = []
    for number, (rows, weight) in enumerate(zip(groups, weights, strict=True)):
        says = float(straight[rows].sum()) > STRAIGHT * float(names.influence[rows].sum()) / total
        ranked = _ranked(names, votes, number)
        agreed = _agreed(names, rows, weight)
        clear = [one for one in ranked if agreed.get(one[0], 0.0) >= ENOUGH]
        ranked = clear + [one for one in ranked if one not in clear]
        token = _own_token(names, rows, weight, says)
        if not token and not clear:
            origins = origins or _origins(names)
            token = _source(names, origins[0], weight @ origins[1][rows])
        second = len(clear) > 1 and clear[1][1] >= WITH * clear[0][1]
        words = tuple(word for word, _ in ranked)
        depth = float(weight @ graph.nodes.layer[rows])
        found.append(_Candidate(token, words, second, shown, depth))
    return found


def _votes(
    names: Names, rows: Int[ndarray, " _member"], weight: Float[ndarray, " _member"]
) -> Votes:
    votes: Votes = defaultdict(float)
    for row, part in zip(rows.tolist(), weight.tolist(), strict=True):
        for word, agreed in names.agreement(row).items():
            votes[word] += part * agreed
    return votes


def _agreed(
    names: Names, rows: Int[ndarray, " _member"], weight: Float[ndarray, " _member"]
) -> Votes:
    """Share of the members whose evidence agrees on a word, by word."""
    agreed: Votes = defaultdict(float)
    for row, part in zip(rows.tolist(), weight.tolist(), strict=True):
        for word in names.agreed(row):
            agreed[word] += part
    return agreed


def _ranked(names: Names, votes: Sequence[Votes], number: int) -> list[tuple[str, float]]:
    """A group's votes less those of its neighbours, and less for what the page says already."""
    shown, others = _shown(names), max(1, len(votes) - 1)
    ranked: Votes = {}
    for word, own in votes[number].items():
        left = own - (sum(one.get(word, 0.0) for one in votes) - own) / others
        ranked[word] = left * (SHOWN if word in shown and left > 0 else 1.0)
    return sorted(ranked.items(), key=lambda pair: -pair[1])


def _shown(names: Names) -> frozenset[str]:
    """What tokens of the prompt and targets say."""
    header = names.graph.provenance
    return frozenset(
        text.strip() for text in (*header.tokens, *(one.text for one in header.targets))
    )


def _straight(names: Names, strength: Float[ndarray, " node"]) -> Float[ndarray, " node"]:
    """What each node passes on straight to targets."""
    targets = names.graph.target_rows()
    shares = row_shares(
        csr_array(names.graph.weights[targets]), names.graph.dropped_absolute[targets]
    )
    return strength[targets] @ shares


def _own_token(
    names: Names, rows: Int[ndarray, " _member"], weight: Float[ndarray, " _member"], says: bool
) -> str:
    """A name by the token at the members' position, if most of them fire on nothing else."""
    header, pos = names.graph.provenance, int(names.graph.nodes.pos[rows[0]])
    token = header.tokens[pos]
    alone = np.array([names.fires_on_its_token(row) for row in rows.tolist()])
    if reading(token, names.script) != Reading.WORD or float(weight @ alone) <= ALONE:
        return ""
    word = token.strip()
    # Words that a prompt begins with or repeats are hardly names of what is asked for.
    unique = [one.strip().casefold() for one in header.tokens].count(word.casefold()) == 1
    if not says or not unique or pos <= header.n_prefix:
        return f"on {word}"
    return f"say {'an' if word[0].casefold() in 'aeiou' else 'a'} {word}"


def _source(names: Names, tokens: Int[ndarray, " token"], come: Float[ndarray, " token"]) -> str:
    """A name by the token from which most comes, of all that comes from tokens."""
    if not len(come) or come.max() <= MOSTLY * come.sum():
        return ""
    token = names.graph.token_text(int(names.graph.nodes.pos[tokens[int(come.argmax())]]))
    return f"from {token.strip()}" if reading(token, names.script) == Reading.WORD else ""


def _origins(names: Names) -> Origins:
    """Rows of the tokens, and the share of each node that comes from each over all paths."""
    graph = names.graph
    tokens = np.flatnonzero(graph.nodes.is_kind(NodeKind.TOKEN))
    origin = np.zeros((len(graph), len(tokens)))
    origin[tokens, np.arange(len(tokens))] = 1.0
    return tokens, carry_up(origin, graph.weights, graph.row_totals())
