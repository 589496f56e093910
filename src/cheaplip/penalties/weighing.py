"""What all penalties check alike."""

from __future__ import annotations

from cheaplip.checks import number


def check_weight(weight: float) -> float:
    """Return a penalty's weight as a float, or raise: it must be a finite number of at least 0."""
    return number(weight, "weight (λ)", low=0)


def check_power(power: int) -> int:
    """Return the power, or raise: it must be 1 or 2."""
    if not isinstance(power, int) or power not in (1, 2):
        raise ValueError(f"power must be 1 or 2; got {power!r}")
    return power
