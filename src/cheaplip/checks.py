"""Numbers in arguments: one sentence that says what was expected and what came."""

from __future__ import annotations

import math
import numbers
from typing import Any


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
    return value


def number(value: Any, name: str, *, low: float | None = None, above: float | None = None) -> float:
    """Return ``value`` as a float if it is a finite number, at least ``low`` or above ``above``.

    Raises:
        ValueError: otherwise.

    Example:
        >>> number(2, "step", above=0)
        2.0
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not real or (low is not None and value < low) or (above is not None and value <= above):
        limit = (
            "" if low is None and above is None else f" of at least {low:g}" if low is not None else f" above {above:g}"
        )
        raise ValueError(f"{name} must be a finite number{limit}; got {value!r}")
    return float(value)
