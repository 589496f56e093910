"""Numbers in arguments: one sentence that says what was expected and what came."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Iterable
from typing import Any

# The largest whole number that torch takes.
LARGEST = 2**64 - 1


def whole_number(value: Any, name: str, low: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``low``.

    Raises:
        ValueError: otherwise.

    Example:
        >>> whole_number(3, "steps")
        3
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}; got {value!r}")
    if value > LARGEST:
        raise ValueError(f"{name} must be below 2**64; got {value!r}")
    return value


def number(value: Any, name: str, *, low: float | None = None, above: float | None = None) -> float:
    """Return ``value`` as a float if it is a finite number, at least ``low`` or above ``above``.

    Raises:
        ValueError: otherwise.

    Example:
        >>> number(2, "step", above=0)
        2.0
    """
    # Whole numbers may be too large for a float.
    real = isinstance(value, numbers.Real) and not isinstance(value, bool) and abs(value) <= sys.float_info.max  # type: ignore[operator]
    if not real or (low is not None and value < low) or (above is not None and value <= above):
        limit = (
            "" if low is None and above is None else f" of at least {low:g}" if low is not None else f" above {above:g}"
        )
        raise ValueError(f"{name} must be a finite number{limit}; got {value!r}")
    return float(value)


def several(values: Any, name: str, what: str) -> list[Any]:
    """Return several values as a list, or raise.

    Args:
        values: any iterable but a text.
        name: of the argument.
        what: it holds, in words.

    Raises:
        TypeError: if it is no iterable, or a text.

    Example:
        >>> several((1, 2), "eps", "radii")
        [1, 2]
    """
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes)) or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a list of {what}; got {values!r}")
    return list(values)
