"""What the propositions say of the path, and whether it came out so.

They speak of global minimisers, training finds others; so each has a tolerance, the same for all runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from cheaplip.experiments.propositions import Check

# How far an objective may lie above the least of all functions: a narrow piece of the network that no pair saw in the
# last steps may be a few percent too steep.
CLOSE = 0.05
# Of the objective at the smaller λ, and of the smallest Lipschitz constant of a fit. Networks within a part g of the
# least objective may let the risk fall by up to some 4 g objectives, and Lip rise by some 3 g, from a λ to the next;
# this is stricter.
FALL, RISE = 0.02, 0.02
# At the smallest λ, 10⁻⁴, the best function of all is itself 1.7 % flatter than the steepest slope between points.
FLATTER = 0.03
# Root mean squares and distances, beside the standard deviation of the labels.
MISFIT, APART = 0.01, 0.01


def check(points: Sequence[Mapping[str, float]], smallest: float, spread: float) -> list[Check]:
    """Check one direction of a path.

    Args:
        points: for each λ a mapping of ``weight``, ``risk``, ``lipschitz``, ``distance`` (from the constant at the
            labels' mean) and ``least`` (the least objective of all functions), in any order.
        smallest: the smallest Lipschitz constant of a function through all data.
        spread: the standard deviation of the labels.

    Raises:
        ValueError: for fewer than two points.

    Reference: Bungert et al. 2021, Propositions 2 to 4 and Remark 2.

    Example:
        >>> flat = {"weight": 1.0, "risk": 1.0, "lipschitz": 0.0, "distance": 0.0, "least": 1.0}
        >>> steep = {"weight": 1e-3, "risk": 0.0, "lipschitz": 2.0, "distance": 1.0, "least": 2e-3}
        >>> [found.value for found in check([flat, steep], smallest=2.0, spread=1.0)]
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    if len(points) < 2:
        raise ValueError(f"a path has two points or more; got {len(points)}")
    path = sorted(points, key=_weight)
    first, last = path[0], path[-1]
    excess = _largest(_objective(point) / point["least"] - 1 for point in path)
    return [
        Check("the objective is near the least of all functions", "premise", excess, CLOSE),
        Check("the risk never falls along growing λ", "2", _worst(path, _fall), FALL),
        Check("Lip never rises along growing λ", "2", _worst(path, lambda a, b: _rise(a, b) / smallest), RISE),
        Check("Lip at the smallest λ is that of the flattest fit", "3", abs(first["lipschitz"] / smallest - 1),
              FLATTER),
        Check("the network at the smallest λ fits the data", "3", math.sqrt(first["risk"]) / spread, MISFIT),
        Check("the network at the largest λ is the constant at the mean", "4, Remark 2", last["distance"] / spread,
              APART),
    ]  # fmt: skip


def _weight(point: Mapping[str, float]) -> float:
    return point["weight"]


def _objective(point: Mapping[str, float]) -> float:
    return point["risk"] + point["weight"] * point["lipschitz"]


def _fall(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return (one["risk"] - other["risk"]) / _objective(one)


def _rise(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return other["lipschitz"] - one["lipschitz"]


def _worst(
    path: Sequence[Mapping[str, float]], change: Callable[[Mapping[str, float], Mapping[str, float]], float]
) -> float:
    """Return the largest change from any λ to any larger one, at least 0."""
    return _largest(change(one, other) for k, one in enumerate(path) for other in path[k + 1 :])


def _largest(values: Iterable[float]) -> float:
    """Return the largest value, at least 0; NaN if there is one, which max would pass over."""
    return float(np.max([0.0, *values]))
