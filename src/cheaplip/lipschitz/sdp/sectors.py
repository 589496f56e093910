"""LipSDP with diagonal multipliers, as matrices: what has to be positive definite, and the proof that it is.

For two inputs let ``v = (δx_0, δx_1, ..., δx_l)`` be the differences of the inputs and of all units. A unit with slopes
in [α, β], fed by a row w of weights, keeps ``(δx - α w v)(δx - β w v) <= 0``. So ‖δy‖² <= ρ ‖δx_0‖² holds wherever

    P(ρ, λ) = ρ E_0 + Σ_i λ_i (a_i b_iᵀ + b_i a_iᵀ) / 2 - Yᵀ Y,    a_i = e_i - α_i w_i,  b_i = e_i - β_i w_i,

is positive semidefinite for some λ >= 0, with E_0 the identity of the inputs and Y the output's matrix. One multiplier
a unit, none that couples units: those are no bound (Pauli et al. 2021).

Reference: Fazlyab et al. 2019, "Efficient and accurate estimation of Lipschitz constants for deep neural networks",
LipSDP-Neuron.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from cheaplip.lipschitz.system import Matrices, System, Units

EPS = sys.float_info.epsilon
# A unit whose slope is fixed would want an infinite multiplier; it is given so much room, relative to its slope.
ROOM = 1e-4


@final
@dataclass(frozen=True)
class Sectors:
    """The data of P, for the units that can change at all.

    Args:
        inputs: the number of rows of E_0.
        weight: the rows w_i, ``(units, inputs + units)``.
        low: the least slopes α, ``(units,)``.
        high: the largest slopes β.
        output: Y, ``(outputs, inputs + units)``.
        starts: where the units of each layer begin, then their end, counted in rows of P.
        kept: for each unit of the system, in order, whether it is here.
        sizes: of the entries of ``weight`` and of ``output``, at least their absolute values.
        terms: how many roundings are behind an entry, each relative to its size.
    """

    inputs: int
    weight: Tensor
    low: Tensor
    high: Tensor
    output: Tensor
    starts: tuple[int, ...]
    kept: Tensor
    sizes: tuple[Tensor, Tensor]
    terms: int

    def __len__(self) -> int:
        """Return the number of units, which is that of multipliers."""
        return len(self.weight)

    def combined(self, square: float, multipliers: Tensor) -> Tensor:
        """Return the part of P that is linear in ρ and λ."""
        n = self.inputs
        product = multipliers * self.low * self.high
        if bool(product.any()):
            matrix = (self.weight * product[:, None]).T @ self.weight
        else:
            matrix = self.weight.new_zeros(n + len(self), n + len(self))
        crossed = self.weight * (-0.5 * multipliers * (self.low + self.high))[:, None]
        matrix[n:] += crossed
        matrix[:, n:] += crossed.T
        matrix.diagonal()[:n] += square
        matrix.diagonal()[n:] += multipliers
        return matrix

    def matrix(self, square: float, multipliers: Tensor) -> Tensor:
        """Return P for ρ and λ."""
        return self.combined(square, multipliers) - self.output.T @ self.output

    def doubt(self, square: float, multipliers: Tensor) -> Tensor:
        """Return what rounding can have changed in each entry of :meth:`matrix`."""
        weight, output = self.sizes
        top = torch.maximum(self.low.abs(), self.high.abs())
        sizes = (weight * (multipliers * top * top)[:, None]).T @ weight + output.T @ output
        n = self.inputs
        crossed = weight * (multipliers * top)[:, None]
        sizes[n:] += crossed
        sizes[:, n:] += crossed.T
        sizes.diagonal()[:n] += square
        sizes.diagonal()[n:] += multipliers
        return 4 * (len(weight) + len(output) + self.terms + 8) * EPS * sizes


def sectors_of(system: System) -> Sectors:
    """Write a system as the data of P: constant units left out, the inputs reduced to the directions that count."""
    widths = system.sizes_of_layers
    size = sum(widths)
    none = torch.zeros(0, dtype=torch.float64)
    low = torch.cat([*(units.low for units in system.units), none])
    high = torch.cat([*(units.high for units in system.units), none])
    empty = torch.zeros(0, size, dtype=torch.float64)
    weight = torch.cat([*(_wide(units.weights, len(units), widths) for units in system.units), empty])
    bounds = torch.cat([*(_sizes(units, len(units), widths) for units in system.units), empty])
    output, output_bounds = (
        _wide(system.weights, len(system.offset), widths),
        _sizes(system, len(system.offset), widths),
    )
    top = torch.maximum(low.abs(), high.abs())
    kept = (top > 0) & (bounds != 0).any(1)
    columns = torch.cat([torch.ones(widths[0], dtype=torch.bool), kept])
    low, high, top = low[kept], high[kept], top[kept]
    low = torch.minimum(low, high - ROOM * top)
    both = torch.cat([weight[kept][:, columns], output[:, columns]])
    sizes = torch.cat([bounds[kept][:, columns], output_bounds[:, columns]])
    both, sizes, inputs = _reduced(both, sizes, widths[0], system.terms)
    counts = [int(part.sum()) for part in torch.split(kept, list(widths[1:]))]
    starts = tuple(inputs + sum(counts[:k]) for k in range(len(counts) + 1))
    units = len(low)
    parts = (sizes[:units], sizes[units:])
    return Sectors(inputs, both[:units], low, high, both[units:], starts, kept, parts, system.terms)


def _sizes(of: System | Units, rows: int, widths: tuple[int, ...]) -> Tensor:
    return _wide(of.weights, rows, widths).abs() if of.sizes is None else _wide(of.sizes, rows, widths)


def _wide(weights: Matrices, rows: int, widths: tuple[int, ...]) -> Tensor:
    """Return the matrices of all sources side by side, zeros where there is no path or no layer yet."""
    parts = [
        torch.zeros(rows, width, dtype=torch.float64) if k >= len(weights) or (part := weights[k]) is None else part
        for k, width in enumerate(widths)
    ]
    return torch.cat(parts, 1)


def _reduced(rows: Tensor, sizes: Tensor, inputs: int, terms: int) -> tuple[Tensor, Tensor, int]:
    """Replace the inputs by as many as there are rows fed by them, where these are fewer.

    All that counts of ``S``, the matrix of the inputs, is ``S Sᵀ``: with ``S Sᵀ ⪯ R Rᵀ`` every ``S x`` of a unit vector
    x is some ``R u`` of a u that is no longer, so that the constant of the network with R is no smaller.
    """
    fed, fed_sizes = rows[:, :inputs], sizes[:, :inputs]
    used = (fed_sizes != 0).any(1)
    count = int(used.sum())
    if count >= inputs or not bool(torch.isfinite(sizes).all()):
        return rows, sizes, inputs
    scale = torch.exp2(-torch.log2(fed_sizes[used].amax(1)).round())  # powers of two: no rounding
    mine, mine_sizes = fed[used] * scale[:, None], fed_sizes[used] * scale[:, None]
    gram = mine @ mine.T
    lost = float((mine_sizes @ mine_sizes.T).sum(1).max()) if count else 0.0
    margin = 4 * (inputs + count + terms + 8) * EPS * (lost + float(gram.trace()))
    reduced = fed.new_zeros(len(fed), count)
    factor = torch.linalg.cholesky(gram + margin * torch.eye(count, dtype=torch.float64))
    reduced[used] = factor / scale[:, None]
    return torch.cat([reduced, rows[:, inputs:]], 1), torch.cat([reduced.abs(), sizes[:, inputs:]], 1), count


def least_square(sectors: Sectors, multipliers: Tensor) -> float:
    """Return the least ρ with which P is positive semidefinite, up to rounding; inf where there is none.

    It is the largest eigenvalue of the Schur complement of the units' block.
    """
    matrix = sectors.matrix(0.0, multipliers)
    n = sectors.inputs
    factor, failed = torch.linalg.cholesky_ex(matrix[n:, n:])
    if bool(failed):
        return math.inf
    half = torch.linalg.solve_triangular(factor, matrix[n:, :n], upper=False)
    return max(0.0, float(torch.linalg.eigvalsh(half.T @ half - matrix[:n, :n])[-1])) if n else 0.0


def is_proven(sectors: Sectors, square: float, multipliers: Tensor) -> bool:
    """Tell whether P(ρ, λ) is positive semidefinite beyond all rounding, by a Cholesky factorisation.

    Where the factorisation of an n × n matrix C goes through in floating point, C is positive definite but for an error
    of at most (n + 1) ε trace(C) (Rump 2006, "Verification of positive definiteness"); four times this, and what
    forming P can have lost, are taken off its diagonal first. The scaling is by powers of two, which round nothing.
    """
    if not (math.isfinite(square) and square >= 0 and bool(torch.isfinite(multipliers).all())):
        return False
    if bool((multipliers < 0).any()):
        return False
    matrix = sectors.matrix(square, multipliers)
    if not len(matrix):
        return True  # nothing is fed by the input
    diagonal = matrix.diagonal()
    if not bool((diagonal > 0).all()) or not bool(torch.isfinite(matrix).all()):
        return False
    scale = torch.exp2(-0.5 * torch.log2(diagonal)).log2().round().exp2()
    matrix = matrix * scale[:, None] * scale
    lost = float((sectors.doubt(square, multipliers) * scale[:, None] * scale).sum(1).max())
    margin = lost + 4 * (len(matrix) + 2) * EPS * float(matrix.trace())
    matrix.diagonal().sub_(margin)
    _, failed = torch.linalg.cholesky_ex(matrix)
    return not bool(failed)


def proven_square(sectors: Sectors, multipliers: Tensor) -> float:
    """Return a proven ρ for multipliers, as small as rounding allows; inf where there is none."""
    least = least_square(sectors, multipliers)
    if not math.isfinite(least):
        return math.inf
    if not len(sectors) and least == 0:
        return 0.0 if not bool(sectors.output.any()) else sys.float_info.min
    for digits in range(26, 2, -1):
        square = least * (1 + 10 ** (-digits / 2))
        if is_proven(sectors, square, multipliers):
            return square
    return math.inf
