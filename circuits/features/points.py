"""Points of the residual stream at which dictionaries read and write.

Read points (x is what the MLP's norm reads, n its denominator on this prompt):

    residual     x                      raw residual stream
    normalised   x / n                  before the norm's gain (LayerNorm: centred)
    mlp-input    x / n · gain + bias    what the MLP module receives

Write points: `mlp-output` is what the MLP module returns, `contribution` what is added to the
residual stream.  They differ where a norm follows the MLP (Gemma).
"""

from __future__ import annotations

from enum import StrEnum


class ReadPoint(StrEnum):
    RESIDUAL = "residual"
    NORMALISED = "normalised"
    MLP_INPUT = "mlp-input"


class WritePoint(StrEnum):
    MLP_OUTPUT = "mlp-output"
    CONTRIBUTION = "contribution"


class Site(StrEnum):
    """What an autoencoder reconstructs."""

    RESIDUAL = "residual"  # the residual stream after a block
    MLP = "mlp"  # what the MLP adds to the residual stream
    MLP_OUTPUT = "mlp-output"  # what the MLP module returns, before a post-norm
    ATTENTION = "attention"  # what attention adds to the residual stream
    HEADS = "heads"  # outputs of all heads, concatenated, before W_O
    TRANSCODER = "transcoder"  # no autoencoder: it reads the MLP's input, writes the MLP's output
