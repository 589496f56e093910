"""The exact Lipschitz constant of a small piecewise-linear network."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from torch import Tensor

from cheaplip.checks import number
from cheaplip.lipschitz.piecewise.integers import Floats
from cheaplip.lipschitz.piecewise.network import Network
from cheaplip.lipschitz.piecewise.search import Search
from cheaplip.lipschitz.system import System
from cheaplip.norms import check_norm


@final
@dataclass(frozen=True)
class Exact:
    """The Lipschitz constant of a piecewise-linear network, between two numbers.

    Both allow for rounding: 16 last places for each input, unit and output, and each rounding that the weights have
    behind them, of the Jacobian with all terms taken absolutely.

    Args:
        lower: the norm of the Jacobian in a region that is there for certain.
        upper: no region has more.
        point: an input in the interior of that region, up to rounding, ``(inputs,)``.
        cells: how many linear regions the search came down to; it leaves out all that cannot be steeper.
        complete: whether the search came to its end; otherwise ``upper`` is the bound of what is left.

    Example:
        >>> Exact(1.0, 1.0, torch.zeros(1), 2, True).complete
        True
    """

    lower: float
    upper: float
    point: Tensor = field(repr=False, compare=False)
    cells: int
    complete: bool


def exact(
    system: System,
    *,
    p: float = 2,
    box: tuple[Tensor, Tensor] | None = None,
    seconds: float | None = None,
) -> Exact:
    """Return the exact Lipschitz constant of a small piecewise-linear network, up to rounding.

    It is the largest norm of the Jacobian in any linear region. Regions are told apart in exact arithmetic on the
    system's float64 weights, taken as they are: one that is not there is never counted, one that is, however thin,
    always. In a box of more than 8 inputs, regions are found by linear programmes instead; one that is too thin for
    these to decide counts for ``upper`` only.

    The time grows with the number of regions, exponentially in inputs and units: seconds for 20 units, or for
    more where the inputs are one, two or three.

    Args:
        system: the network; every layer has its pieces. Their slopes count, not the layer's ``low`` and ``high``.
        p: the norm of inputs and outputs: 1, 2 or inf.
        box: ``(low, high)``, ``(inputs,)`` each, low below high, which may be infinite; None is all space.
        seconds: stop after this time, at the next region; None takes the time it needs.

    Raises:
        ValueError: where a layer has no pieces, a number of the network is not finite, or an argument is out of range.

    Example:
        >>> from cheaplip.lipschitz.system import Pieces, Units
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> zero, top = one.new_zeros(1), one.new_ones(1)
        >>> pieces = Pieces(one - 1, torch.tensor([[0.0, 1.0]], dtype=torch.float64))
        >>> units = Units("act", (one,), zero, zero, top, torch.relu, pieces)
        >>> result = exact(System(1, (units,), (one, -one), zero))  # x - relu(x)
        >>> round(result.lower, 9), round(result.upper, 9), result.complete
        (1.0, 1.0, True)
    """
    start = time.monotonic()
    norm = check_norm(p)
    if callable(norm):
        raise ValueError("p must be 1, 2 or inf for an exact value; got a callable")
    limit = math.inf if seconds is None else start + number(seconds, "seconds", low=0)
    low, high = _check(system, box)
    with torch.no_grad(), np.errstate(all="ignore"):
        search = Search(Network(system), norm, low, high)
        search.run(limit)
    point = torch.zeros(len(low)).double() if search.point is None else torch.from_numpy(search.point)
    complete = search.unsearched <= search.ceiling
    return Exact(search.lower, max(search.ceiling, search.unsearched), point, search.cells, complete)


def _check(system: System, box: tuple[Tensor, Tensor] | None) -> tuple[Floats, Floats]:
    """Return the box, after a look at all that was given."""
    for layer in system.units:
        if layer.pieces is None:
            raise ValueError(
                f"every unit must be piecewise linear for an exact value; {layer.name!r} is not: use another method"
            )
    tensors = [
        *(t for unit in system.units if unit.pieces for t in (*unit.weights, unit.offset, unit.pieces.slopes)),
        *system.weights,
    ]
    if not all(bool(t.isfinite().all()) for t in tensors if t is not None):
        raise ValueError("the network's weights, offsets and slopes must be finite; got NaN or infinity")
    if box is None:
        return np.full(system.inputs, -math.inf), np.full(system.inputs, math.inf)
    low, high = (side.detach().cpu().double().numpy() for side in box)
    if low.shape != high.shape or low.shape != (system.inputs,) or not (low < high).all():
        raise ValueError(
            f"box must be two tensors of shape ({system.inputs},), the first below the second everywhere; "
            f"got shapes {low.shape} and {high.shape}, {int((low < high).sum())} of them so"
        )
    return low, high
