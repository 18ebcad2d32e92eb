"""Activation functions of neurons, by the names that headers of graphs give them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit, ndtr

from graphs.core.responses import Nonlinearity

Function = Callable[[Float[ndarray, "*any"]], Float[ndarray, "*any"]]
STEP = 1e-4  # of a difference quotient


def _gelu_tanh(x: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """The approximation of Hendrycks and Gimpel (arXiv 1606.08415)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


NONLINEARITIES: dict[Nonlinearity, Function] = {
    "gelu": lambda x: x * ndtr(x),
    "gelu_tanh": _gelu_tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "relu_squared": lambda x: np.maximum(x, 0.0) ** 2,
    "silu": lambda x: x * expit(x),
}


def slope(function: Function, x: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """The derivative of a function.

    >>> slope(NONLINEARITIES["relu_squared"], np.array([-1.0, 2.0])).round(6)
    array([0., 4.])
    """
    return (function(x + STEP) - function(x - STEP)) / (2 * STEP)
