"""Numbers of a report (`graphs.core.report`), from predicted and measured effects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from graphs.comparison.compare import rank_correlation
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.regime import Regime
from graphs.core.report import (
    MOST_NULL_PROBABILITY,
    AdversarialReport,
    EffectReport,
    Order,
    Receivers,
    RunningReport,
    SetReport,
)


def effect_report(
    regime: Regime,
    on: Receivers,
    predicted: Float[ndarray, " effect"],
    measured: Float[ndarray, " effect"],
    dropped: float = 0.0,
    order: Order = "first",
    null: Sequence[Float[ndarray, " effect"]] = (),
) -> EffectReport:
    """Agreement of predicted and measured effects; `null`: those predicted by permuted edges.

    >>> predicted, measured = np.array([1.0, 2.0, -1.0]), np.array([2.0, 4.0, 2.0])
    >>> found = effect_report(Regime.FREE, "targets", predicted, measured)
    >>> round(found.same_sign, 2), found.error
    (0.67, 0.75)
    """
    size = float(np.abs(measured).sum())
    rank = rank_correlation(predicted, measured)
    ranks = [rank_correlation(draw, measured) for draw in null]
    signs = [_same_sign(draw, measured) for draw in null]
    return EffectReport(
        regime=regime,
        on=on,
        order=order,
        dropped=dropped,
        effects=len(measured),
        rank_correlation=rank if np.isfinite(rank) else None,
        same_sign=_same_sign(predicted, measured) if size else None,
        error=float(np.abs(measured - predicted).sum()) / size if size else None,
        null_rank_correlation=_mean(ranks),
        null_same_sign=_mean(signs),
    )


def _same_sign(predicted: Float[ndarray, " effect"], measured: Float[ndarray, " effect"]) -> float:
    return int(np.count_nonzero(np.sign(predicted) == np.sign(measured))) / len(measured)


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None


def set_report(
    features: int, share: float, random: Float[ndarray, " one"], predicted: float = np.nan
) -> SetReport:
    """The effect of one set compared with random sets; `predicted` is nan if it is unknown."""
    return SetReport(
        features=features,
        share=share,
        predicted=predicted if np.isfinite(predicted) else None,
        random_mean=float(random.mean()),
        random_sd=float(random.std(ddof=1)) if len(random) > 1 else 0.0,
        null_probability=float(np.mean(random >= share)),
    )


def adversarial_report(
    nodes: Sequence[str],
    changes: Float[ndarray, " step"],
    measured: Sequence[int],
    outside: int,
    random: Float[ndarray, " one"],
    circuit: float,
    effect: float,
) -> AdversarialReport:
    """The changes of a greedy set outside a circuit, after each step, and those of random sets.

    All are of the targets' value, also `circuit`, that of ablating the circuit; `effect` is what
    ablating all features takes from it.
    """
    shares = random / effect
    sizes: list[float] = sorted(np.abs(shares).tolist())
    share = float(changes[-1]) / effect
    return AdversarialReport(
        nodes=tuple(nodes),
        changes=tuple(changes.tolist()),
        measured=tuple(measured),
        outside=outside,
        share=share,
        circuit=circuit / effect,
        random_mean=float(shares.mean()),
        random_sd=float(shares.std(ddof=1)) if len(shares) > 1 else 0.0,
        random_size=sizes[math.ceil((1 - MOST_NULL_PROBABILITY) * len(sizes)) - 1],
        null_probability=sum(size >= abs(share) for size in sizes) / len(sizes),
    )


def areas(shares: Float[ndarray, " k"], faithfulness: Float[ndarray, " k"]) -> tuple[float, float]:
    """CPR and CMD of a curve that starts at (0, 0).

    >>> areas(np.array([0.5, 1.0]), np.array([1.0, 1.0]))
    (0.75, 0.25)
    """
    k, f = np.append(0.0, shares), np.append(0.0, faithfulness)
    return float(np.trapezoid(f, k)), float(np.trapezoid(np.abs(1 - f), k))


def running_report(graph: AttributionGraph) -> RunningReport | None:
    """What the graph's predictions let run; None for a graph that holds everything."""
    known = graph.responses
    if known is None:
        return None
    inside = [norm.before for norm in known.norms if norm.before != "unembedding"]
    return RunningReport(
        final_norm=len(inside) < len(known.norms),
        norms=len(inside),
        gates=int(known.nodes.is_kind(NodeKind.GATE).sum()),
    )
