"""Types are checked in all functions, also where a check is that of the last time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError, jaxtyped
from torch import Tensor

from circuits.training.sparsity import top_k
from tests.typechecks import checked


def doubling() -> Callable[[Tensor], Tensor]:
    @jaxtyped(typechecker=checked)
    def double(x: Float[Tensor, "row 2"]) -> Float[Tensor, "row 2"]:
        return x * 2 if len(x) < 3 else x[:2]

    return double


def test_functions_inside_functions_are_checked_each_time():
    for double in (doubling(), doubling()):
        assert double(torch.ones(2, 2)).sum() == 8
        with pytest.raises(TypeCheckError, match="checking the parameters"):
            double(torch.ones(2, 3))
        with pytest.raises(TypeCheckError, match="checking the return value"):
            double(torch.ones(3, 2))


def test_functions_of_one_name_are_checked_by_their_own_types():
    @jaxtyped(typechecker=checked)
    def same(x: Int[Tensor, " row"]) -> None: ...

    same(torch.arange(3))
    with pytest.raises(TypeCheckError):
        same(torch.ones(3))

    @jaxtyped(typechecker=checked)
    def same(x: Float[Tensor, " row"]) -> None: ...

    same(torch.ones(3))
    with pytest.raises(TypeCheckError):
        same(torch.arange(3))


def test_packages_are_checked_by_it():
    with pytest.raises(TypeCheckError):
        top_k(torch.ones(2), 1)  # pyright: ignore
