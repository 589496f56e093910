"""What the propositions of the paper say of a trained network, and whether it came out so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Check:
    """One check of one proposition. These speak of global minimisers and training finds others: hence a tolerance.

    Args:
        name: what should hold.
        proposition: which one says so, or ``"premise"``: that the network is near a minimiser.
        value: what was found, where less is better.
        tolerance: the largest value with which it holds.
        weights: at which λ, or from which to which; empty for all.

    Example:
        >>> Check("the risk never falls", "2", value=0.03, tolerance=0.02).holds
        False
    """

    name: str
    proposition: str
    value: float
    tolerance: float
    weights: tuple[float, ...] = ()
    holds: bool = field(init=False)

    def __post_init__(self) -> None:
        """Compare; what is not a number does not hold."""
        object.__setattr__(self, "holds", bool(self.value <= self.tolerance))

    def told(self) -> dict[str, Any]:
        """Return all of it by name, for a file."""
        return {**asdict(self), "weights": list(self.weights)}


def verdict(checked: Iterable[tuple[str, Check]]) -> list[str]:
    """Name each violated check, and count those that hold.

    Args:
        checked: each with words that say of which network.

    Example:
        >>> good, bad = (Check("Lip never rises", "2", rise, tolerance=0.02) for rise in (0.0, 1.0))
        >>> verdict([("seed 0", good), ("seed 1", bad)])
        ['VIOLATED, seed 1, Proposition 2: Lip never rises; 1, where at most 0.02 is allowed', '1 of 2 checks hold']
    """
    found = list(checked)
    said = []
    for where, check in found:
        if not check.holds:
            at = f", λ = {' to '.join(f'{weight:g}' for weight in check.weights)}" if check.weights else ""
            which = check.proposition if check.proposition == "premise" else f"Proposition {check.proposition}"
            said.append(
                f"VIOLATED, {where}{at}, {which}: {check.name}; {check.value:.3g}, where at most {check.tolerance:.3g} "
                "is allowed"
            )
    return [*said, f"{len(found) - len(said)} of {len(found)} checks hold"]


def constant_from(x: Floats, y: Floats) -> float:
    """Return the λ from which on a constant has the least ``mean (f(x) - y)² + λ Lip(f)`` of all functions.

    A slope s at t changes the mean by -2 s (sum of y - mean(y) right of t) / n; the steepest descent among functions
    with Lip 1 takes slopes of the sign of that.

    Args:
        x: places ``(n,)``.
        y: values ``(n,)``.

    Reference: Bungert et al. 2021, Proposition 4 and Remark 2.

    Example:
        >>> constant_from(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
        0.5
    """
    order = np.argsort(x)
    right = -np.cumsum(y[order] - y.mean())[:-1]
    return float(2 * np.sum(np.abs(right) * np.diff(x[order])) / len(x))
