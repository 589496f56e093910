"""What a user's function refers to, read off its code object without running it."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

# How many calls deep a helper's code is looked at.
DEPTH = 3


def closed_over(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield what a function, method or partial refers to: arguments, cells, defaults and the globals that it names.

    Example:
        >>> offset = [1]
        >>> def make():
        ...     cell = {2}
        ...     return lambda x: x + len(offset) + len(cell)
        >>> list(closed_over(make()))[:1]
        [{2}]
    """
    if isinstance(function, functools.partial):
        yield from (function.func, *function.args, *function.keywords.values())
        yield from closed_over(function.func)
    if (owner := getattr(function, "__self__", None)) is not None:
        yield owner
    code = getattr(function, "__code__", None)
    if code is None:
        yield from getattr(function, "__dict__", {}).values()
        return
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    yield from getattr(function, "__defaults__", None) or ()
    names = getattr(function, "__globals__", {})
    yield from (names[name] for name in _names(code) if name in names)


def reads_training(member: Any, depth: int = DEPTH) -> bool:
    """Tell whether a method, property or function, or a helper of the user's that it calls, names ``training``.

    Example:
        >>> reads_training(lambda layer, x: 2 * x if layer.training else x)
        True
        >>> reads_training(lambda layer, x: 2 * x)
        False
    """
    for function in _functions(member):
        if "training" in _names(function.__code__):
            return True
        helpers = (h for h in closed_over(function) if isinstance(h, types.FunctionType))
        own = (h for h in helpers if not h.__module__.startswith("torch."))
        if depth > 1 and any(reads_training(helper, depth - 1) for helper in own):
            return True
    return False


def _functions(member: Any) -> Iterator[types.FunctionType]:
    """Yield the plain functions behind a member of a class, under its decorators."""
    if isinstance(member, property):
        candidates = [member.fget]
    elif isinstance(member, functools.cached_property):
        candidates = [member.func]
    elif isinstance(member, (staticmethod, classmethod)):
        candidates = [member.__func__]
    else:
        candidates = [member]
    for candidate in candidates:
        if callable(candidate):
            plain = inspect.unwrap(candidate)
            if isinstance(plain, types.FunctionType):
                yield plain


def _names(code: types.CodeType) -> set[str]:
    """Return the attributes and globals that code names, in functions within it too."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)
