"""Elementary functions, each called once by one thread before many threads call it at a time.

torch hands these functions of CPU tensors to MKL, a part of the tensor from each thread.  MKL
chooses the code of a function at its first call, and a thread that comes in meanwhile may compute
its part with code of low accuracy, that once.  On a busy machine half the cosines of the rotary
embedding were wrong by 6e-5 in a trace out of twenty, and its graph by 1e-4.
Source: github.com/pytorch/pytorch/issues/188792.
"""

from __future__ import annotations

import torch

IN_MKL = (
    torch.acos,
    torch.asin,
    torch.atan,
    torch.cos,
    torch.erf,
    torch.erfc,
    torch.erfinv,
    torch.exp,
    torch.log,
    torch.log10,
    torch.log2,
    torch.sin,
    torch.sqrt,
    torch.tan,
    torch.tanh,
    torch.trunc,
)


def call_first() -> None:
    """Have MKL choose the code of every function for both sizes of floats."""
    for dtype in (torch.float32, torch.float64):
        for function in IN_MKL:
            function(torch.full((1,), 0.5, dtype=dtype))
