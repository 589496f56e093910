"""Where a function of one variable is steepest: its Lipschitz constant on an interval, by looking everywhere."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor

from cheaplip.modes import Model

POINTS = 4001


@final
class Steepest(NamedTuple):
    """The largest slope of a function on an interval.

    Attributes:
        lip: its size, the Lipschitz constant there.
        at: where it is.
        slope: the derivative there, with its sign.
    """

    lip: float
    at: float
    slope: float


def steepest(function: Model, low: float, high: float, points: int = POINTS) -> Steepest:
    """Scan an interval for the largest slope: derivatives and neighbours on a grid, then closer around the best.

    Args:
        function: of inputs ``(n, 1)`` in float64, differentiable.
        low: the left end.
        high: the right end.
        points: of the grid, 3 or more.

    Example:
        >>> found = steepest(torch.sin, -1.0, 3.0)
        >>> round(found.lip, 6), round(abs(found.at), 6)
        (1.0, 0.0)
    """
    first = _scan(function, low, high, points)
    cell = (high - low) / (points - 1)
    closer = _scan(function, max(low, first.at - cell), min(high, first.at + cell), points)
    return max(first, closer, key=_size)


def _size(found: Steepest) -> float:
    return found.lip


def _scan(function: Model, low: float, high: float, points: int) -> Steepest:
    x = torch.linspace(low, high, points, dtype=torch.float64).unsqueeze(1).requires_grad_()
    y = function(x)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    x, y = x.detach(), y.detach()
    # A kink between two points shows in the slope from one to the other alone.
    between = y.diff(dim=0) / x.diff(dim=0)
    return max(_largest(derivative, x), _largest(between, (x[1:] + x[:-1]) / 2), key=_size)


def _largest(slopes: Tensor, x: Tensor) -> Steepest:
    best = int(slopes.abs().argmax())
    slope = float(slopes[best])
    return Steepest(abs(slope), float(x[best]), slope)
