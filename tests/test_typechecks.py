"""Types are checked in all functions, also where a check is that of the last time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor

from circuits.training.sparsity import largest
from graphs.core.nodes import NodeId, NodeKind
from tests.typechecks import checked, jaxtyped
from viz.text.words import visible

Row = Float[Tensor, " row"]


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
        largest(torch.ones(2), 1)  # pyright: ignore
    with pytest.raises(BeartypeCallHintViolation):
        visible(5)  # pyright: ignore
    with pytest.raises(BeartypeCallHintViolation):
        NodeId(NodeKind.TOKEN, pos=0.5)  # pyright: ignore


def in_a_list(rows: list[Row]) -> list[Row]:
    return rows[:1]


def in_a_callable(make: Callable[[Row], Row], row: Row | None) -> Row | None:
    return None if row is None else make(row)


def test_arrays_inside_other_types_have_one_shape_in_a_call():
    short, long = torch.ones(2), torch.ones(3)
    listed = jaxtyped(typechecker=checked)(in_a_list)
    assert len(listed([short, short])) == 1
    with pytest.raises(TypeCheckError):
        listed([torch.arange(2)])
    made = jaxtyped(typechecker=checked)(in_a_callable)
    assert made(lambda row: row, None) is None
    with pytest.raises(TypeCheckError):
        made(lambda _: long, short)
