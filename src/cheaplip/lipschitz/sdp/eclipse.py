"""ECLipsE-Fast: multipliers for LipSDP in one pass over the layers, good at once and a start for better ones."""

from __future__ import annotations

import torch
from torch import Tensor

from cheaplip.lipschitz.sdp.sectors import Sectors

# Where slopes have two signs, how many multiples of the usual multiplier are tried.
TRIES = 33


def multipliers_by_layer(sectors: Sectors) -> Tensor | None:
    """Return multipliers, one number a layer, with which some ρ makes P positive definite; None where none were found.

    Layer by layer that multiplier is taken which leaves the most of the new units' block. For slopes in [0, β] and a
    chain this is ECLipsE-Fast; here sums and skipped layers are allowed, and slopes of any sign.

    Reference: Xu and Sivaranjani 2024, "ECLipsE: Efficient compositional Lipschitz constant estimation for deep neural
    networks".
    """
    multipliers = torch.zeros(len(sectors), dtype=torch.float64)
    n = sectors.inputs
    inverse = torch.eye(n, dtype=torch.float64)
    for first, end in zip(sectors.starts, sectors.starts[1:], strict=False):
        if first == end:
            continue
        mine = slice(first - n, end - n)
        chosen = _largest_block(inverse, sectors.weight[mine, :first], sectors.low[mine], sectors.high[mine])
        if chosen is None:
            return None
        multipliers[mine] = chosen
        leading, failed = torch.linalg.cholesky_ex(sectors.combined(1.0, multipliers)[:end, :end])
        if bool(failed):
            return None
        inverse = torch.cholesky_inverse(leading)
    # P is homogeneous but for the output, which now tells the size of ρ, and with it of all multipliers.
    square = float(torch.linalg.eigvalsh(sectors.output @ inverse @ sectors.output.T)[-1])
    # A little more of it, since where slopes have two signs P is singular at exactly this size, whatever ρ is.
    return multipliers * (square * (1 + 1e-6)) if square > 0 else multipliers


def _largest_block(inverse: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> float | None:
    """Return the t for which the new block's Schur complement has the largest least eigenvalue.

    With what stands before in P⁻¹, the ``inverse``, it is ``t I - t² M (P + t K)⁻¹ Mᵀ`` with ``M = (α + β) W / 2`` and
    ``K = Wᵀ (α β) W``.
    """
    middle = weight * (0.5 * (low + high))[:, None]
    largest = float(torch.linalg.eigvalsh(middle @ inverse @ middle.T)[-1])
    product = low * high
    if not bool(product.any()):
        return 1 / (2 * largest) if largest > 0 else 1.0
    coupled = (weight * product[:, None]).T @ weight
    before = torch.linalg.inv(inverse)
    # The size of the coupling matters too: with α = -β the middle is zero.
    top = torch.maximum(low.abs(), high.abs())
    outer = weight * top[:, None]
    size = max(2 * largest, float(torch.linalg.eigvalsh(outer @ inverse @ outer.T)[-1]))
    guess = 1 / size if size > 0 else 1.0
    best, chosen = 0.0, None
    for factor in torch.logspace(-3, 1, TRIES, dtype=torch.float64).tolist():
        t = guess * factor
        # A little further than t, lest P be singular but for rounding.
        _, outside = torch.linalg.cholesky_ex(before + 1.05 * t * coupled)
        cholesky, failed = torch.linalg.cholesky_ex(before + t * coupled)
        if bool(outside) or bool(failed):
            continue
        half = torch.linalg.solve_triangular(cholesky, middle.T, upper=False)
        least = t - t * t * float(torch.linalg.eigvalsh(half.T @ half)[-1])
        if least > best:
            best, chosen = least, t
    return chosen
