"""What a user's function refers to, read off its code object without running it."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Found = TypeVar("Found")

# How many calls deep a helper's code is looked at, and how many references deep objects are searched.
DEPTH = 5
# Containers with more entries than this hold data, not networks.
MOST_ENTRIES = 1000


def closed_over(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield what a function, method, partial or callable object refers to directly.

    That is its owner, arguments, cells and defaults, the globals that it names, and an object's attributes.

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
        return
    if (owner := getattr(function, "__self__", None)) is not None:
        yield owner
    code = getattr(function, "__code__", None)
    if code is None:
        yield from _attributes(function)
        return
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    yield from getattr(function, "__defaults__", None) or ()
    yield from (getattr(function, "__kwdefaults__", None) or {}).values()
    names = getattr(function, "__globals__", {})
    yield from (names[name] for name in _names(code) if name in names)


def reachable(start: Any, kind: type[Found]) -> list[Found]:
    """Return the objects of a kind that something refers to, directly or through what it refers to, each once.

    What is found is not searched further; nor are Python modules, classes and containers of data.

    Example:
        >>> reachable(lambda x: x + 0 * len([1]), dict)
        []
    """
    found: dict[int, Found] = {}
    seen: set[int] = set()
    layer = [start]
    for _ in range(DEPTH):
        following: list[Any] = []
        for thing in layer:
            if id(thing) in seen or isinstance(thing, (type, types.ModuleType, str, bytes, int, float)):
                continue
            seen.add(id(thing))
            if isinstance(thing, kind):
                found[id(thing)] = thing
            else:
                following.extend(_referred(thing))
        layer = following
    return list(found.values())


def _referred(thing: Any) -> Iterator[Any]:
    if isinstance(thing, (list, tuple, set, frozenset)):
        yield from thing if len(thing) <= MOST_ENTRIES else ()
    elif isinstance(thing, dict):
        yield from thing.values() if len(thing) <= MOST_ENTRIES else ()
    elif callable(thing):
        yield from closed_over(thing)
    elif not type(thing).__module__.startswith(("torch", "numpy", "builtins")):
        yield from _attributes(thing)


def _attributes(thing: Any) -> Iterator[Any]:
    """Yield the values of an object's attributes, without running its properties."""
    yield from getattr(thing, "__dict__", {}).values()
    for base in type(thing).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                yield getattr(thing, name)


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
