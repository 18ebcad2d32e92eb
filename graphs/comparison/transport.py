"""Transport plans between the features of two graphs, by similarity and structure.

Unbalanced fused Gromov-Wasserstein: a plan for how much of the influence of each feature of one
graph is moved to each feature of the other, such that it moves to similar features and connected
features move to connected ones.  Influence without a counterpart may stay unmoved, at a cost.
Unlike an assignment a plan can map one feature to two, and its mass is the share of influence that
has a counterpart at all.

Source: Thual et al., "Aligning individual brains with fused unbalanced Gromov-Wasserstein" (2022),
in the implementation of the POT library.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from warnings import catch_warnings

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.influence import graph_shares, influence_shares
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph

MOST_FEATURES = 200  # strongest of each graph; time grows with the third power
UNMOVED_COST = 0.5  # of influence without a counterpart
ENTROPY = 1e-3  # regularisation of the plan


@dataclass(frozen=True, repr=False)
class Transport(Brief):
    """A transport plan between features of two graphs."""

    first: Int[ndarray, " one"]  # places in the list of features
    second: Int[ndarray, " other"]
    plan: Float[ndarray, "one other"]  # influence that is moved, as a share of all at features

    @property
    def mass(self) -> float:
        """Share of the influence at features that has a counterpart; nan if no plan was found."""
        return float(np.minimum(1.0, self.plan.sum()))

    def agreement(self, pairs: Int[ndarray, "pair 2"]) -> float:
        """Share of the moved influence that moves between these pairs; nan if none is moved."""
        total = float(self.plan.sum())
        if total <= 0:
            return float("nan")
        places = [
            {int(feature): place for place, feature in enumerate(side)}
            for side in (self.first, self.second)
        ]
        known = [
            (places[0][one], places[1][other])
            for one, other in pairs.tolist()
            if one in places[0] and other in places[1]
        ]
        return float(sum(self.plan[pair] for pair in known) / total)


def transport(
    first: AttributionGraph,
    second: AttributionGraph,
    rows: tuple[Int[ndarray, " one"], Int[ndarray, " other"]],
    similarity: Float[ndarray, "one other"],
) -> Transport:
    """The plan for the strongest features of both graphs; 0 if one has no influence."""
    ot = _pot()
    graphs = (first, second)
    chosen: list[Int[ndarray, " _kept"]] = []
    masses: list[Float[ndarray, " _kept"]] = []
    structures: list[Float[ndarray, "_kept _kept"]] = []
    for graph, own in zip(graphs, rows, strict=True):
        arrived = influence_shares(graph)[own]
        kept = np.sort(np.argsort(-arrived, kind="stable")[:MOST_FEATURES])
        kept = kept[arrived[kept] > 0]
        chosen.append(kept)
        masses.append(arrived[kept] / (arrived[kept].sum() or 1.0))
        structures.append(_structure(graph, own[kept]))
    if not all(len(kept) for kept in chosen):
        return Transport(chosen[0], chosen[1], np.zeros((len(chosen[0]), len(chosen[1]))))
    try:
        with np.errstate(all="ignore"), catch_warnings(action="ignore"):
            plan: ndarray = ot.gromov.fused_unbalanced_gromov_wasserstein(
                *structures,
                *masses,
                reg_marginals=UNMOVED_COST,
                epsilon=ENTROPY,
                alpha=1.0,
                M=1.0 - similarity[np.ix_(*chosen)],
                unbalanced_solver="mm",
                max_iter=20,
                max_iter_ot=100,
            )[0]
    except ValueError:  # if similarities are so small that the plan underflows
        plan = np.full(tuple(map(len, chosen)), np.nan)
    return Transport(chosen[0], chosen[1], np.asarray(plan, dtype=np.float64))


def _structure(graph: AttributionGraph, rows: Int[ndarray, " _kept"]) -> Float[ndarray, "a b"]:
    """Strength of the connection of each pair of features, in both directions."""
    inner = graph_shares(graph)[rows][:, rows].toarray()
    return np.sqrt(inner + inner.T)


def _pot():  # a module
    """The POT library, kept from importing torch."""
    os.environ.setdefault("POT_BACKEND_DISABLE_PYTORCH", "1")
    return import_module("ot")
