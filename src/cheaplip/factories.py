"""A user's own function, named as ``pkg.mod:factory``: found, checked and called."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import reduce
from typing import Any

from torch import nn


def imported(spec: str, expected: str, kind: str) -> Callable[..., Any]:
    """Import the function or class of a name; this runs the code of its module.

    Args:
        spec: ``pkg.mod:factory``.
        expected: how an error begins if there is no such thing.
        kind: what it must be, in words.

    Raises:
        ValueError: if the text is no such name, nothing has it, or the module raises.
        TypeError: if it is no function or class.

    Example:
        >>> imported("math:sqrt", "expected a function", "a function")(4.0)
        2.0
    """
    module, _, name = spec.partition(":")
    if not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
        raise ValueError(expected)
    try:
        found: Any = reduce(getattr, name.split("."), importlib.import_module(module))
    except ImportError as error:
        raise ValueError(f"{expected}: {error}; its folder must be on PYTHONPATH") from error
    except AttributeError as error:
        raise ValueError(f"{expected}: {error}") from error
    except Exception as error:  # whatever a user's module raises
        raise ValueError(f"{expected}: importing {module} {_raised(error)}") from error
    if isinstance(found, nn.Module) or not callable(found):
        raise TypeError(f"{spec} must be {kind}; got {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def called(factory: Callable[..., Any], spec: str, offered: dict[str, Any]) -> Any:
    """Call a function with those of the offered arguments that it takes by keyword.

    Args:
        factory: the function.
        spec: its name, for errors.
        offered: arguments by name.

    Raises:
        TypeError: if it needs other arguments.
        ValueError: if it raises.

    Example:
        >>> called(lambda seed: seed + 1, "mine:make", {"seed": 4, "data_dir": None})
        5
    """
    signature = inspect.signature(factory)
    parameters, names = signature.parameters.values(), " and ".join(offered)
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        offered = {p.name: offered[p.name] for p in parameters if p.name in offered and p.kind != p.POSITIONAL_ONLY}
    try:
        signature.bind(**offered)
    except TypeError as error:
        raise TypeError(f"{spec} must need no arguments but {names}; got {signature}") from error
    try:
        return factory(**offered)
    except Exception as error:  # whatever a user's function raises
        unknown = " and ".join(f"{name}=None" for name, value in offered.items() if value is None)
        raise ValueError(f"{spec} {_raised(error)}" + (f"; it was called with {unknown}" if unknown else "")) from error


def _raised(error: Exception) -> str:
    """Say in one line what was raised."""
    reason = " ".join(str(error).split())
    return f"raised {type(error).__name__}" + (f": {reason}" if reason else "")
