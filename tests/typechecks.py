"""Types of all functions are checked while tests run: beartype's checks, with jaxtyping's arrays.

jaxtyping's own way binds the arguments of every call by their names, checks them before and after
it, and makes the check of a function inside a function whenever that is defined: of tests with
tiny models it took half of the time.  Here beartype checks arguments before a call and its result
after it, once for each piece of code, and jaxtyping keeps the sizes that the names in the shapes of
one call stand for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import update_wrapper, wraps
from inspect import isgeneratorfunction
from types import CellType, FunctionType
from typing import Any, get_args

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray

Function = Callable[..., Any]
FUNCTION = "__beartype_func"  # the parameter of beartype's checks that is what they check
_jaxtyped = jaxtyping.jaxtyped
_made: dict[tuple[object, ...], Function | None] = {}


def checked(function: Function) -> Function:
    """What the option of pytest names; `jaxtyped` below does the work."""
    return function


def jaxtyped(*, typechecker: Function) -> Callable[[Any], Any]:
    """In the place of `jaxtyping.jaxtyped`, which decorates all functions and classes."""
    del typechecker

    def decorate(decorated: Any) -> Any:
        if isinstance(decorated, type):
            if is_dataclass(decorated):
                decorated.__init__ = decorate(decorated.__init__)
            return decorated
        inside = "<locals>" in decorated.__qualname__
        if not inside and not _has_arrays(decorated):
            return beartype(decorated)
        if isgeneratorfunction(decorated):  # beartype checks it when it is asked for something
            return _jaxtyped(decorated, typechecker=beartype)
        check = _check_of_its_code(decorated) if inside else beartype(decorated)
        if check is None:
            return decorated
        # A function that is defined once more has other variables, and may have other defaults.
        this = {FUNCTION: decorated} if inside else {}

        @wraps(decorated)
        def call(*args: Any, **kwargs: Any) -> Any:
            with _jaxtyped("context"):
                return check(*args, **this, **kwargs)

        return call

    return decorate


def _check_of_its_code(function: Function) -> Function | None:
    """None if there is nothing to check, where beartype gives the function itself."""
    types = tuple(function.__annotations__.items())
    key = function.__module__, function.__qualname__, function.__code__, types
    if key not in _made:
        _resolve(function)
        # Without its variables, so that what they hold is not held from now on.
        code, cells = function.__code__, [CellType() for _ in function.__code__.co_freevars]
        bare = FunctionType(code, function.__globals__, None, function.__defaults__, (*cells,))
        bare = update_wrapper(bare, function)
        bare.__kwdefaults__ = function.__kwdefaults__
        del bare.__wrapped__
        check = beartype(bare)
        _made[key] = None if check is bare else check
    return _made[key]


def _has_arrays(function: Function) -> bool:
    """Whether types of a function have shapes."""
    _resolve(function)
    return any(map(_is_of_arrays, function.__annotations__.values()))


def _resolve(function: Function) -> None:
    """Keep types in the place of their names."""
    for name, hint in function.__annotations__.items():
        if isinstance(hint, str):
            try:
                found = eval(hint, function.__globals__)
            except NameError:  # imported for type checkers alone, or where a class inherits it
                found = Any
            function.__annotations__[name] = found


def _is_of_arrays(hint: object) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_is_of_arrays, hint if isinstance(hint, list) else get_args(hint)))


jaxtyping.jaxtyped = jaxtyped
