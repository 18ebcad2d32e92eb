"""Numbers of a report (`graphs.core.report`), from predicted and measured effects."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from graphs.comparison.compare import rank_correlation
from graphs.core.regime import Regime
from graphs.core.report import EffectReport, Receivers, SetReport


def effect_report(
    regime: Regime,
    on: Receivers,
    predicted: Float[ndarray, " effect"],
    measured: Float[ndarray, " effect"],
    dropped: float = 0.0,
) -> EffectReport:
    """Agreement of predicted and measured effects.

    >>> predicted, measured = np.array([1.0, 2.0, -1.0]), np.array([2.0, 4.0, 2.0])
    >>> found = effect_report(Regime.FREE, "targets", predicted, measured)
    >>> round(found.same_sign, 2), found.error
    (0.67, 0.75)
    """
    size = float(np.abs(measured).sum())
    rank = rank_correlation(predicted, measured)
    same = int(np.count_nonzero(np.sign(predicted) == np.sign(measured)))
    return EffectReport(
        regime=regime,
        on=on,
        dropped=dropped,
        effects=len(measured),
        rank_correlation=rank if np.isfinite(rank) else None,
        same_sign=same / len(measured) if size else None,
        error=float(np.abs(measured - predicted).sum()) / size if size else None,
    )


def set_report(features: int, share: float, random: Float[ndarray, " one"]) -> SetReport:
    """The effect of one set compared with random sets."""
    return SetReport(
        features=features,
        share=share,
        random_mean=float(random.mean()),
        random_sd=float(random.std(ddof=1)) if len(random) > 1 else 0.0,
        null_probability=float(np.mean(random >= share)),
    )


def areas(shares: Float[ndarray, " k"], faithfulness: Float[ndarray, " k"]) -> tuple[float, float]:
    """CPR and CMD of a curve that starts at (0, 0).

    >>> areas(np.array([0.5, 1.0]), np.array([1.0, 1.0]))
    (0.75, 0.25)
    """
    k, f = np.append(0.0, shares), np.append(0.0, faithfulness)
    return float(np.trapezoid(f, k)), float(np.trapezoid(np.abs(1 - f), k))
