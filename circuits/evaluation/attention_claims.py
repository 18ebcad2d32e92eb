"""Claims about attention, tested in the model: pairs of features that make heads look.

For the entries that carry most into the most heavily weighted target, scores name the features at
the query and at the key that add most to the log odds of the key, with norms running
(`circuits.attention.scores`).  In pairs, the one is removed from the head's query and the other
from its key, with the blocks below held and this layer's norms running:

    drop = log odds of the key on the prompt - log odds without the pair

Random pairs of features that are active at the same query and key are the null.  Of single
features, removed from one side, the change is compared with the one that scores predict to first
order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attention.entries import attention_entries
from circuits.attention.scores import attention_score
from circuits.interventions.constrained_run import Hold
from circuits.interventions.experiment import Experiment
from circuits.interventions.passes import NOTHING, Passes
from circuits.machine import exactly, in_float64
from circuits.recording.meeting import Meeting
from graphs.comparison.compare import rank_correlation
from graphs.core.attended import AttentionReport
from graphs.core.nodes import NodeKind
from graphs.interventions.changes import Change, Intervention

ENTRIES, SEARCHED = 3, 64  # entries that are tested, and among how many they are looked for
PAIRS, RANDOM_PAIRS = 5, 40  # of each entry
SINGLES = 25  # features of each side


def attention_report(experiment: Experiment, seed: int) -> AttentionReport | None:
    """The test; None where no head above the first layer looks from features at features."""
    generator = np.random.default_rng(seed)
    found = [_Entry(experiment, *place).tested(generator) for place in _places(experiment)]
    found = [one for one in found if len(one.named) and len(one.random)]
    if not found:
        return None
    named = np.concatenate([one.named for one in found])
    random = np.concatenate([one.random for one in found])
    predicted, measured = np.concatenate([one.singles for one in found], 1)
    rank = rank_correlation(predicted, measured)
    return AttentionReport(
        entries=len(found),
        pairs=len(named),
        drop=float(named.mean()),
        random_pairs=len(random),
        random_drop=float(random.mean()),
        random_sd=float(random.std(ddof=1)) if len(random) > 1 else 0.0,
        null_probability=float(np.mean(random >= named.mean())),
        singles=len(predicted),
        rank_correlation=rank if np.isfinite(rank) else None,
    )


def _places(experiment: Experiment) -> list[tuple[int, int, int, int]]:
    """Layer, head, query and key of the entries that are tested."""
    graph = experiment.graph
    entries = attention_entries(experiment, graph.heaviest_target(), SEARCHED)
    columns = entries.layer, entries.head, entries.query, entries.key
    places = zip(*(column.tolist() for column in columns), strict=True)
    prefix = graph.provenance.n_prefix
    return [place for place in places if place[0] > 0 and place[3] >= prefix][:ENTRIES]


@dataclass(frozen=True)
class _Tested:
    """Drops of the log odds of one entry."""

    named: Float[ndarray, " pair"]
    random: Float[ndarray, " random_pair"]
    singles: Float[ndarray, "2 feature"]  # changes as predicted and as measured


class _Entry:
    """One entry, with features that can be removed from its query and its key."""

    def __init__(self, experiment: Experiment, layer: int, head: int, query: int, key: int) -> None:
        self.experiment = experiment
        self.layer, self.head, self.query, self.key = layer, head, query, key
        self.score = attention_score(experiment, layer, head, query, key)
        nodes = self.score.nodes
        features = nodes.is_kind(NodeKind.FEATURE)
        self.at_query = np.flatnonzero(features & (nodes.pos == query))
        self.at_key = np.flatnonzero(features & (nodes.pos == key))

    def tested(self, generator: np.random.Generator) -> _Tested:
        """Remove named pairs, random pairs and single features."""
        if self.score.odds is None or not (len(self.at_query) and len(self.at_key)):
            return _Tested(np.zeros(0), np.zeros(0), np.zeros((2, 0)))
        named = self._named()
        sides = [generator.choice(side, RANDOM_PAIRS) for side in (self.at_query, self.at_key)]
        random = np.stack(sides, 1)
        odds = self.score.odds
        singles: list[Int[ndarray, "row 2"]] = []
        predicted: list[Float[ndarray, " row"]] = []
        for side, (own, parts) in enumerate(
            ((self.at_query, odds.at_query), (self.at_key, odds.at_keys))
        ):
            most = own[np.argsort(-np.abs(parts.running[own]), kind="stable")][:SINGLES]
            pair = np.full((len(most), 2), -1)
            pair[:, side] = most
            singles.append(pair)
            predicted.append(-parts.running[most])
        drops = self._drops(np.concatenate([named, random, *singles]))
        ends = len(named), len(named) + len(random)
        return _Tested(
            named=drops[: ends[0]],
            random=drops[ends[0] : ends[1]],
            singles=np.stack([np.concatenate(predicted), -drops[ends[1] :]]),
        )

    def _named(self) -> Int[ndarray, "pair 2"]:
        """The pairs that add most to the log odds, both of which add to them."""
        odds = self.score.odds
        assert odds is not None
        query, key = (
            side[np.argsort(-parts.running[side], kind="stable")][:PAIRS]
            for side, parts in ((self.at_query, odds.at_query), (self.at_key, odds.at_keys))
        )
        pairs = np.stack(np.meshgrid(query, key, indexing="ij"), -1).reshape(-1, 2)
        parts = np.stack([odds.at_query.running[pairs[:, 0]], odds.at_keys.running[pairs[:, 1]]])
        order = np.argsort(-parts.sum(0), kind="stable")[:PAIRS]
        return pairs[order[(parts[:, order] > 0).all(0)]]

    def _drops(self, pairs: Int[ndarray, "pair 2"]) -> Float[ndarray, " pair"]:
        """What each pair takes from the log odds if it is removed; -1: nothing of that side."""
        removed = np.unique(pairs[pairs >= 0])
        nodes = self.score.nodes
        made = [
            NOTHING,
            *(Intervention("", (Change(nodes[row], 0.0),)) for row in removed.tolist()),
        ]
        hold = Hold(np.full(len(made), self.layer - 1), patterns=True)
        with exactly():
            met = Passes(self.experiment).meetings(made, hold, {self.layer})[self.layer]
            copy = np.where(pairs < 0, 0, np.searchsorted(removed, pairs) + 1)
            rows = self._rows(met, np.concatenate([[[0, 0]], copy]))
        own, rivals = rows[:, self.key], rows[:, self.score.competitors > 0].sum(1)
        odds = np.log(own / rivals)
        return odds[0] - odds[1:]

    def _rows(self, met: Meeting, copy: Int[ndarray, "pair 2"]) -> Float[ndarray, "pair key"]:
        """Attention from the query, with the query of one copy and the keys of another."""
        query, key = (torch.from_numpy(column).to(met.query.device) for column in copy.T)
        mask = None if met.mask is None else met.mask[:1]
        mixed = met._replace(query=met.query[query], key=met.key[key], mask=mask)
        pattern: Tensor = mixed.pattern[:, self.head, self.query]
        return in_float64(pattern).numpy()
