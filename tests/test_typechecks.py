"""Types are checked in all functions, also where a check is that of the last time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import pytest
import torch
from beartype.roar import (
    BeartypeCallHintParamViolation,
    BeartypeCallHintReturnViolation,
    BeartypeCallHintViolation,
)
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor

from circuits.largest import largest
from graphs.core.nodes import NodeId, NodeKind
from tests.typechecks import checked, jaxtyped
from viz.text.words import visible

Row = Float[Tensor, " row"]


def multiplying(by: int) -> Callable[..., Tensor]:
    @jaxtyped(typechecker=checked)
    def multiply(x: Float[Tensor, "row 2"], *, plus: int = by) -> Float[Tensor, "row 2"]:
        return x * by + plus if len(x) < 3 else x[:2]

    return multiply


def test_functions_inside_functions_are_checked_each_time():
    for by in (2, 3):
        double = multiplying(by)
        assert double(torch.ones(2, 2)).sum() == 8 * by
        assert double(torch.ones(2, 2), plus=0).sum() == 4 * by
        with pytest.raises(BeartypeCallHintParamViolation):
            double(torch.ones(2, 3))
        with pytest.raises(BeartypeCallHintReturnViolation):
            double(torch.ones(3, 2))


def test_a_check_does_not_keep_what_was_checked():
    @jaxtyped(typechecker=checked)
    def only_here(x: Row) -> None: ...

    only_here(torch.ones(1))
    kept = ref(only_here.__wrapped__)
    del only_here
    gc.collect()
    assert kept() is None


def test_a_function_inside_a_function_may_take_anything():
    for by in (2, 3):

        @jaxtyped(typechecker=checked)
        def times(x: Any, by: Any = by) -> Any:
            return [x] * by

        assert times(1) == [1] * by


def test_generators_are_checked_when_they_are_called():
    rows = jaxtyped(typechecker=checked)(each_row)
    with pytest.raises(TypeCheckError):
        rows(torch.arange(4))
    made = rows(torch.ones(3, 2))
    assert len(list(made)) == 3


def each_row(rows: Float[Tensor, "row 2"]) -> Iterator[Float[Tensor, " 2"]]:
    yield from rows


def test_functions_of_one_name_are_checked_by_their_own_types():
    @jaxtyped(typechecker=checked)
    def same(x: Int[Tensor, " row"]) -> None: ...

    same(torch.arange(3))
    with pytest.raises(BeartypeCallHintViolation):
        same(torch.ones(3))

    @jaxtyped(typechecker=checked)
    def same(x: Float[Tensor, " row"]) -> None: ...

    same(torch.ones(3))
    with pytest.raises(BeartypeCallHintViolation):
        same(torch.arange(3))


def test_packages_are_checked_by_it():
    with pytest.raises(BeartypeCallHintViolation):
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
    with pytest.raises(BeartypeCallHintViolation):
        listed([torch.arange(2)])
    made = jaxtyped(typechecker=checked)(in_a_callable)
    assert made(lambda row: row, None) is None
    with pytest.raises(BeartypeCallHintViolation):
        made(lambda _: long, short)


def test_names_of_sizes_are_those_of_one_call():
    square = jaxtyped(typechecker=checked)(of_one_size)
    assert square(torch.ones(2), torch.ones(2), 1) == 3
    with pytest.raises(BeartypeCallHintParamViolation):
        square(torch.ones(2), torch.ones(3), 0)


def of_one_size(one: Row, other: Row, longer: int) -> int:
    if longer:  # a call inside a call
        return jaxtyped(typechecker=checked)(of_one_size)(torch.ones(3), torch.ones(3), 0)
    return len(one)
