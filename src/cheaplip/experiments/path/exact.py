"""Ten points without noise, and what is known exactly: the best functions for each λ, and a network's own steepness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float64]

INTERVAL = (-1.0, 1.0)
X = np.array([-0.95, -0.80, -0.60, -0.30, -0.10, 0.10, 0.30, 0.60, 0.75, 0.95])
Y = np.array([-0.09, -0.48, -0.77, -0.47, -0.01, 0.48, 0.82, 0.75, 0.54, 0.16])
# Pieces of a network narrower than this are lost in rounding; no pair is so close.
NARROW = 1e-9
# The best functions are found to this part of their objective.
EXACT = 1e-12


@final
@dataclass(frozen=True)
class Best:
    """The best function of all for one λ.

    Args:
        values: at the points; straight lines between them and constants outside give the function.
        risk: its mean squared error.
        lipschitz: its Lipschitz constant.
        objective: ``risk + λ lipschitz``.
    """

    values: Floats
    risk: float
    lipschitz: float
    objective: float


def largest_slope(x: Floats, y: Floats) -> float:
    """Return the largest slope between neighbours: the smallest Lipschitz constant of a function through points.

    Args:
        x: places ``(n,)``, growing; neighbours so close that rounding blurs their slope are left out.
        y: values ``(n,)``.

    Example:
        >>> largest_slope(np.array([0.0, 1.0, 3.0]), np.array([0.0, -2.0, 0.0]))
        2.0
    """
    wide = np.diff(x) > NARROW
    return float(np.abs(np.diff(y)[wide] / np.diff(x)[wide]).max())


def best(x: Floats, y: Floats, weight: float) -> Best:
    """Return the function with the least ``mean (f(x) - y)² + λ Lip(f)`` of all, a ReLU network's among them.

    Only the values z at the points count, and Lip(f) is the largest of the slopes D z between neighbours. The dual
    problem, over multipliers u of the slopes with ``sum |u| <= λ``, is solved by accelerated projected gradients until
    both objectives agree.

    Args:
        x: places ``(n,)``, growing.
        y: values ``(n,)``.
        weight: λ, above 0.

    Raises:
        RuntimeError: if the objectives do not come to agree.

    Example:
        >>> found = best(np.array([0.0, 1.0]), np.array([0.0, 1.0]), weight=0.25)  # (1 - L)² / 4 + L / 4 at L = 1/2
        >>> round(found.lipschitz, 6), round(found.objective, 6)
        (0.5, 0.1875)
    """
    slopes, half = _slopes(x), len(x) / 2
    square, linear = half * slopes @ slopes.T, slopes @ y
    step = 1 / float(np.linalg.eigvalsh(square)[-1])
    u = ahead = np.zeros(len(x) - 1)
    momentum = 1.0
    for _ in range(200_000):
        values = y - half * slopes.T @ u
        risk, lipschitz = float(np.mean((values - y) ** 2)), float(np.abs(slopes @ values).max())
        objective = risk + weight * lipschitz
        if objective - float(u @ linear - u @ square @ u / 2) <= EXACT * objective:
            return Best(values, risk, lipschitz, objective)
        gradient = square @ ahead - linear
        moved = _onto_diamond(ahead - step * gradient, weight)
        if gradient @ (moved - u) > 0:
            momentum = 1.0  # the momentum leads uphill: drop it
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (momentum - 1) / following * (moved - u)
        u, momentum = moved, following
    raise RuntimeError(f"the best function for λ = {weight:g} was not found: the points may be too close")


def _slopes(x: Floats) -> Floats:
    """Return the matrix D that makes slopes between neighbours of values at the points."""
    return (np.eye(len(x) - 1, len(x), 1) - np.eye(len(x) - 1, len(x))) / np.diff(x)[:, None]


def _onto_diamond(u: Floats, radius: float) -> Floats:
    """Project on the vectors whose absolute values add up to at most ``radius``."""
    size = np.abs(u)
    if size.sum() <= radius:
        return u
    descending = np.sort(size)[::-1]
    excess = (np.cumsum(descending) - radius) / np.arange(1, len(u) + 1)
    cut = excess[np.nonzero(descending > excess)[0][-1]]
    return np.asarray(np.sign(u) * np.maximum(size - cut, 0.0))


def pieces(net: nn.Sequential, low: float, high: float) -> tuple[Floats, Floats]:
    """Return all kinks of a ReLU network of one variable in an interval, with its ends, and the values there.

    Between neighbours the network is a straight line. Layer by layer, a unit that changes sign between two neighbours
    adds a kink there.

    Args:
        net: ``Linear`` and ``ReLU`` layers, from one number to one, on the CPU; ``Flatten`` is skipped.
        low: where the interval begins.
        high: where it ends.

    Raises:
        TypeError: for another layer.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> _ = nn.init.ones_(net[0].weight), nn.init.zeros_(net[0].bias)
        >>> pieces(net, -1.0, 1.0)
        (array([-1.,  0.,  1.]), array([0., 0., 1.]))
    """
    at = np.array([low, high])
    units = at[None]
    for layer in net:
        if isinstance(layer, nn.Linear):
            weight, bias = (tensor.detach().double().numpy() for tensor in (layer.weight, layer.bias))
            units = weight @ units + bias[:, None]
        elif isinstance(layer, nn.ReLU):
            left, right = units[:, :-1], units[:, 1:]
            change = left * right < 0
            share = np.where(change, left / np.where(change, left - right, 1.0), 0.0)
            kinks = np.unique(np.concatenate([at, (at[:-1] + share * np.diff(at))[change]]))
            units = np.maximum(np.stack([np.interp(kinks, at, unit) for unit in units]), 0.0)
            at = kinks
        elif not isinstance(layer, nn.Flatten):
            raise TypeError(f"pieces are those of Linear and ReLU layers; got {type(layer).__name__}")
    return at, units[0]
