"""What the theory says of the trained networks, and whether it came out so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cheaplip.experiments.propositions import Check

# Along growing λ the risk may fall, and Lip rise, by this part of its value; the propositions speak of global minima.
TOLERANCE = 0.01
# Training has come close if the objective is at most this part above the least of all functions; some of these no
# output sigmoid gives, for they are negative somewhere.
CLOSE = 0.1

Floats = NDArray[np.float64]


def checks(stages: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Check the networks of one run: risk and Lip along growing λ, and how close to the least objective they are.

    Args:
        stages: for each λ a mapping of ``weight``, ``risk``, ``lip`` and ``objective``, and of ``least`` where it is
            known; λ = 0 is left out, for it is no part of the path.

    Reference: Bungert et al. 2021, Proposition 2.

    Example:
        >>> low = {"weight": 1.0, "risk": 0.1, "lip": 2.0, "objective": 2.1}
        >>> high = {"weight": 10.0, "risk": 0.2, "lip": 3.0, "objective": 30.2}
        >>> [(check.name, check.holds) for check in checks([high, low])]
        [('risk does not fall', True), ('Lip does not rise', False)]
    """
    found = []
    path = sorted((stage for stage in stages if stage["weight"] > 0), key=_weight)
    for one, next_one in pairwise(path):
        weights = (one["weight"], next_one["weight"])
        fall, rise = one["risk"] - next_one["risk"], next_one["lip"] - one["lip"]
        found.append(Check("risk does not fall", "2", fall, TOLERANCE * one["risk"], weights))
        found.append(Check("Lip does not rise", "2", rise, TOLERANCE * one["lip"], weights))
    for stage in (stage for stage in path if "least" in stage):
        excess = stage["objective"] / stage["least"] - 1
        found.append(Check("objective is close to the least possible", "premise", excess, CLOSE, (stage["weight"],)))
    return found


def _weight(stage: Mapping[str, Any]) -> float:
    return float(stage["weight"])


def least(x: Floats, y: Floats, weight: float) -> float:
    """Return the least of ``sum (f(x) - y)² + λ Lip(f)`` over all functions of one variable.

    A function is best drawn straight from sample to sample, so for a given Lip it is a bounded least squares problem in
    the slopes; the least over Lip is searched.

    Args:
        x: places ``(n,)``.
        y: values ``(n,)``.
        weight: λ, above 0; far below 1 the search over Lip is coarse.

    Example:
        >>> round(least(np.array([0.0, 1.0]), np.array([0.0, 1.0]), weight=1.0), 4)  # (1 - L)² / 2 + L at L = 0
        0.5
    """
    from scipy.optimize import lsq_linear, minimize_scalar

    order = np.argsort(x)
    steps, values = np.diff(x[order]), y[order]
    below = np.tri(len(x), len(x) - 1, -1)
    constant = float(np.sum((values - values.mean()) ** 2))
    bound = 1 + 2 * np.abs(values).max()  # of the first value: never reached

    def objective(lip: float) -> float:
        matrix = np.hstack([np.full((len(x), 1), bound), below * (lip * steps)])
        return 2.0 * float(lsq_linear(matrix, values, bounds=(-1.0, 1.0), method="bvls").cost) + weight * lip

    # Lip alone would cost more than the constant does, if it were larger.
    found = minimize_scalar(objective, bounds=(0.0, constant / weight), method="bounded", options={"maxiter": 20})
    return min(constant, float(found.fun))
