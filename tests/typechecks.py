"""Checks of types by beartype that are made once for functions inside functions.

jaxtyping has a function's check made whenever the function is defined, which for one inside
another is at every call, and takes longer than the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype

Function = Callable[..., Any]
_made: dict[tuple[object, ...], Function] = {}


def checked(function: Function) -> Function:
    """The check of a signature, in the place of a function that has nothing else."""
    if function.__defaults__ or function.__kwdefaults__:
        return beartype(function)
    types = tuple(function.__annotations__.items())
    key = function.__module__, function.__qualname__, function.__code__, types
    if key not in _made:
        _made[key] = beartype(function)
    return _made[key]
