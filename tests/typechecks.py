"""Types of all functions are checked while tests run: those of arrays by jaxtyping with beartype.

Two things make jaxtyping slow where there is nothing for it to do, and take a third of the time of
all tests: it binds the arguments of every call by their names, also of functions whose types have
no shape, and it makes the check of a function inside a function whenever that is defined.  So
beartype alone checks what has no array in its types, and checks are made once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray

Function = Callable[..., Any]
_by_jaxtyping = jaxtyping.jaxtyped
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


def jaxtyped(*, typechecker: Function) -> Callable[[Any], Any]:
    """In the place of `jaxtyping.jaxtyped`, which decorates all functions and classes."""

    def decorate(decorated: Any) -> Any:
        if isinstance(decorated, type):
            if is_dataclass(decorated):
                decorated.__init__ = decorate(decorated.__init__)
            return decorated
        if "<locals>" not in decorated.__qualname__ and not _has_arrays(decorated):
            return beartype(decorated)
        return _by_jaxtyping(decorated, typechecker=typechecker)

    return decorate


def _has_arrays(function: Function) -> bool:
    """Whether types of a function have shapes.  They are kept in the place of their names."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError:  # of a module that is imported for type checkers only
        return True
    function.__annotations__.update(hints)
    return any(map(_is_of_arrays, hints.values()))


def _is_of_arrays(hint: object) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_is_of_arrays, hint if isinstance(hint, list) else get_args(hint)))


jaxtyping.jaxtyped = jaxtyped
