"""Our interior-point method for LipSDP: the multipliers that make the bound least, and how far from the least it is."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from cheaplip.lipschitz.sdp.sectors import Sectors, least_square

STEPS = 100
# How much of the way to the boundary a step may go.
INSIDE = 0.9
# How well the dual's equations must hold before its value is believed.
FEASIBLE = 1e-6


@final
@dataclass(frozen=True)
class Solution:
    """Multipliers, and what is known about them.

    Args:
        multipliers: λ, one a unit, positive.
        square: ρ, for which P is positive definite up to rounding.
        gap: how far ρ is above what the dual problem says, relative to ρ; an estimate, no proof.
        steps: how many were made.
    """

    multipliers: Tensor
    square: float
    gap: float
    steps: int


@contextmanager
def few_threads(size: int) -> Iterator[None]:
    """Let torch use one thread for small matrices: more would wait for each other, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if size < 600 else min(4, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def solve(
    sectors: Sectors, first: Tensor, *, gap: float = 1e-4, deadline: float = math.inf, ceiling: float = math.inf
) -> Solution:
    """Minimise ρ over all multipliers, from feasible ones, by a primal-dual interior-point method.

    The dual problem is over matrices X: to maximise ``tr(Yᵀ Y X)`` with ``tr(E_0 X) = 1`` and ``a_iᵀ X b_i + z_i = 0``,
    X positive semidefinite and ``z >= 0``. As every multiplier's part of P has rank two, the equations of a step are
    products of small matrices, entry by entry.

    Args:
        sectors: the problem.
        first: multipliers to begin with, for which some ρ is feasible.
        gap: relative, at which to stop.
        deadline: by ``time.monotonic()``; what is reached by then is returned.
        ceiling: stop as soon as ρ is known to stay above this.

    Reference: Helmberg, Rendl, Vanderbei, Wolkowicz 1996, "An interior-point method for semidefinite programming".
    """
    # Twice the multipliers and more than twice ρ leave P well inside the positive definite matrices.
    square, multipliers = 2.5 * least_square(sectors, first), 2 * first
    point = _centre(sectors, square, multipliers) if 0 < square < math.inf else None
    if point is None:
        return Solution(first, square / 2.5, math.inf, 0)
    sides, count, centring = _sides(sectors, point.dual), 0, 0.3
    while count < STEPS and time.monotonic() <= deadline:
        feasible = point.residual(sectors, sides) < FEASIBLE
        if feasible and (point.gap <= gap * point.square or point.square - point.gap > ceiling):
            break
        moved = _step(sectors, point, sides, centring)
        if moved is None:
            break
        point, length = moved
        sides = _sides(sectors, point.dual)
        count += 1
        centring = 0.05 if length > 0.8 else 0.2 if length > 0.4 else 0.5
    known = point.gap / point.square if point.residual(sectors, sides) < FEASIBLE else math.inf
    return Solution(point.multipliers, point.square, known, count)


@final
class _Point(NamedTuple):
    """A point of the problem, and one of its dual."""

    square: float
    multipliers: Tensor
    matrix: Tensor  # P
    dual: Tensor  # X
    slack: Tensor  # z

    @property
    def gap(self) -> float:
        return float((self.matrix * self.dual).sum() + self.multipliers @ self.slack)

    def residual(self, sectors: Sectors, sides: _Sides) -> float:
        """Return how far X, which has these sides, and z are from feasible ones, relative to their size."""
        trace = float(self.dual.diagonal()[: sectors.inputs].sum())
        crossed = sides.ab.diagonal() + self.slack
        size = sides.aa.diagonal() + sides.bb.diagonal()
        return max(abs(trace - 1), float((crossed.abs() / size).max()) if len(crossed) else 0.0)


@final
class _Sides(NamedTuple):
    """A matrix S between the vectors of all units: ``S aᵢ`` and ``S bᵢ`` on the inputs, and ``aᵢᵀ S bⱼ`` and so on."""

    input_a: Tensor
    input_b: Tensor
    aa: Tensor
    ab: Tensor
    bb: Tensor


def _sides(sectors: Sectors, matrix: Tensor) -> _Sides:
    n, low, high = sectors.inputs, sectors.low, sectors.high
    fed = matrix @ sectors.weight.T  # S wᵢ; a and b are the unit vectors less multiples of w
    between, own = sectors.weight @ fed, matrix[n:, n:]
    mixed = fed[n:]  # eᵢᵀ S wⱼ
    return _Sides(
        matrix[:n, n:] - fed[:n] * low,
        matrix[:n, n:] - fed[:n] * high,
        own - mixed * low - mixed.T * low[:, None] + between * low * low[:, None],
        own - mixed * high - mixed.T * low[:, None] + between * high * low[:, None],
        own - mixed * high - mixed.T * high[:, None] + between * high * high[:, None],
    )


def _centre(sectors: Sectors, square: float, multipliers: Tensor) -> _Point | None:
    """Return a point with X a multiple of P⁻¹."""
    matrix = sectors.matrix(square, multipliers)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed):
        return None
    inverse = torch.cholesky_inverse(factor)
    mean = 1 / float(inverse.diagonal()[: sectors.inputs].sum())
    return _Point(square, multipliers, matrix, mean * inverse, mean / multipliers)


def _step(sectors: Sectors, at: _Point, sides: _Sides, centring: float) -> tuple[_Point, float] | None:
    """Return the next point, and the shorter of its two step lengths; None where rounding ends it."""
    factor, failed = torch.linalg.cholesky_ex(at.matrix)
    if bool(failed):
        return None
    inverse = torch.cholesky_inverse(factor)
    mean = centring * at.gap / (len(at.matrix) + len(sectors))
    change = _direction(sectors, at, sides, inverse, mean)
    if change is None:
        return None
    by = change[1:]
    towards = sectors.combined(float(change[0]), by)
    dual_by = mean * inverse - at.dual - at.dual @ towards @ inverse
    dual_by = (dual_by + dual_by.T) / 2
    slack_by = (mean - at.slack * by) / at.multipliers - at.slack
    length = min(_inside(at.matrix, towards), _positive(at.multipliers, by))
    other = min(_inside(at.dual, dual_by), _positive(at.slack, slack_by))
    square, multipliers = at.square + length * float(change[0]), at.multipliers + length * by
    matrix = sectors.matrix(square, multipliers)
    moved = _Point(square, multipliers, matrix, at.dual + other * dual_by, at.slack + other * slack_by)
    return moved, min(length, other)


def _direction(sectors: Sectors, at: _Point, x: _Sides, inverse: Tensor, mean: float) -> Tensor | None:
    """Return how ρ and the multipliers change: ``tr(P_i X P_j P⁻¹)`` is the matrix of their equations."""
    n = sectors.inputs
    z = _sides(sectors, inverse)
    system = torch.empty(len(sectors) + 1, len(sectors) + 1, dtype=torch.float64)
    crossed = x.ab.T * z.ab
    system[1:, 1:] = (crossed + crossed.T + x.bb * z.aa + x.aa * z.bb) / 4
    system[1:, 1:].diagonal().add_(at.slack / at.multipliers)
    system[0, 1:] = system[1:, 0] = (z.input_b * x.input_a + z.input_a * x.input_b).sum(0) / 2
    system[0, 0] = (at.dual[:n, :n] * inverse[:n, :n]).sum()
    right = mean * torch.cat([inverse.diagonal()[:n].sum().view(1), z.ab.diagonal() + 1 / at.multipliers])
    right[0] -= 1
    scale = system.diagonal().rsqrt()
    factor, failed = torch.linalg.cholesky_ex(system * scale[:, None] * scale)
    if bool(failed):
        return None
    return torch.cholesky_solve((right * scale)[:, None], factor)[:, 0] * scale


def _inside(matrix: Tensor, change: Tensor) -> float:
    """Return a step, at most 1, that keeps a matrix well inside the positive definite ones."""
    length = 1.0
    for _ in range(60):
        _, failed = torch.linalg.cholesky_ex(matrix + (length / INSIDE) * change)
        if not bool(failed):
            return length
        length *= 0.8
    return 0.0


def _positive(values: Tensor, change: Tensor) -> float:
    """Return a step, at most 1, that keeps numbers well above zero."""
    falling = change < 0
    if not bool(falling.any()):
        return 1.0
    return min(1.0, INSIDE * float((values[falling] / -change[falling]).min()))
