"""How fast the difference of two outputs can change: Lip of f_i - f_j, for all pairs of classes."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time

import torch
from torch import Tensor

from cheaplip.lipschitz.dense import is_dense, system_of
from cheaplip.lipschitz.network.graph import times, up
from cheaplip.lipschitz.problem import Problem
from cheaplip.lipschitz.sdp.eclipse import multipliers_by_layer
from cheaplip.lipschitz.sdp.interior import few_threads, solve
from cheaplip.lipschitz.sdp.sectors import Sectors, least_square, proven_square
from cheaplip.lipschitz.upper import LARGEST, bounded, in_range

# |z_i - z_j| is at most so many times the p-norm of z.
SPREAD = {1.0: 1.0, 2.0: math.sqrt(2) * (1 + 1e-15), math.inf: 2.0}

# The relative gap of a pair's bound: it costs half as much of the radius.
ENOUGH = 1e-3


def by_one(problem: Problem, deadline: float) -> tuple[Tensor, str]:
    """Return bounds of Lip(f_i - f_j) from one bound of Lip(f), for all i and j alike.

    Args:
        problem: the network that was read.
        deadline: by ``time.monotonic()``.

    Returns:
        The bounds, ``(classes, classes)``, zero on the diagonal, and how the one bound was found.
    """
    value, method, _ = bounded(problem, "auto", deadline)
    classes = problem.graph.nodes[-1].size
    constants = torch.full((classes, classes), times(value, SPREAD[problem.product.p]), dtype=torch.float64)
    return constants.fill_diagonal_(0.0), method


def by_pair(problem: Problem, method: str, deadline: float) -> tuple[Tensor, str]:
    """Return a bound of Lip(f_i - f_j) for each pair of outputs by itself.

    All but the last part of the network is bounded as a whole; the last part is bounded with the difference of the two
    outputs in the place of all of them, by LipSDP where it is for it.

    Args:
        problem: the network that was read.
        method: ``"sdp"`` solves LipSDP for each pair; ``"shared"`` takes the multipliers of the whole network for all.
        deadline: by ``time.monotonic()``; pairs that come after it take the multipliers of the whole network.

    Returns:
        The bounds, ``(classes, classes)``, and how they were found.
    """
    simple, name = by_one(problem, time.monotonic() + max(0.0, deadline - time.monotonic()) / 4)
    start, end, tight = problem.parts(LARGEST["eclipse"])[-1]
    before = 1.0
    if start:
        before = bounded(problem, "auto", time.monotonic() + max(0.0, deadline - time.monotonic()) / 4, start)[0]
    if tight and problem.product.p == 2 and in_range(sectors := problem.sectors(start, end)):
        found, how = _by_sectors(sectors, method, deadline)
    elif is_dense(problem.graph, start, end, 0):
        found, how = _by_rows(problem, start, end), "rows of the last layer"
    else:
        return simple, name
    constants = torch.tensor([[times(before, value) for value in row] for row in found.tolist()], dtype=torch.float64)
    return torch.minimum(constants, simple), f"{how}, pair by pair"


def _by_rows(problem: Problem, start: int, end: int) -> Tensor:
    """Return the dual norms of differences of the rows of a last part that is linear."""
    system = system_of(problem.graph, start, end, {})
    weight, sizes = system.weights[0], (system.sizes or system.weights)[0]
    if weight is None or sizes is None:
        return torch.zeros(len(system.offset), len(system.offset), dtype=torch.float64)
    dual = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[problem.product.p]
    change = torch.linalg.vector_norm(weight[:, None] - weight[None], ord=dual, dim=-1)
    lost = torch.linalg.vector_norm(sizes[:, None] + sizes[None].abs(), ord=dual, dim=-1)
    eps = torch.finfo(torch.float64).eps
    bounds: Tensor = change * (1 + 1e-14) + 4 * (system.terms + weight.shape[1] + 8) * eps * lost
    return bounds.fill_diagonal_(0.0)


def _by_sectors(sectors: Sectors, method: str, deadline: float) -> tuple[Tensor, str]:
    count = len(sectors.output)
    found = torch.full((count, count), math.inf, dtype=torch.float64).fill_diagonal_(0.0)
    name = "ECLipsE-Fast"
    with few_threads(sectors.inputs + len(sectors)):
        shared = multipliers_by_layer(sectors)
        if shared is None:
            return found, name
        if len(sectors) <= LARGEST["sdp"] and time.monotonic() < deadline:
            shared = solve(sectors, shared, gap=ENOUGH, deadline=deadline).multipliers
            name = "LipSDP-Neuron"
        shared = shared / least_square(sectors, shared)  # for ρ = 1
        for i, j in itertools.combinations(range(count), 2):
            square = _of_pair(sectors, i, j, shared, method, deadline)
            found[i, j] = found[j, i] = up(math.sqrt(square)) if math.isfinite(square) else math.inf
    return found, name


def _of_pair(sectors: Sectors, i: int, j: int, shared: Tensor, method: str, deadline: float) -> float:
    row = (sectors.output[i] - sectors.output[j]).unsqueeze(0)
    sizes = (sectors.sizes[0], (sectors.sizes[1][i] + sectors.sizes[1][j]).unsqueeze(0))
    own = dataclasses.replace(sectors, output=row, sizes=sizes, terms=sectors.terms + 1)
    if not bool(sizes[1].any()):
        return 0.0
    first = _resized(own, shared)
    best = proven_square(own, first)
    if method == "sdp" and len(own) <= LARGEST["sdp"] and time.monotonic() < deadline:
        by_layer = multipliers_by_layer(own)
        if by_layer is not None:
            best = min(best, proven_square(own, solve(own, by_layer, gap=ENOUGH, deadline=deadline).multipliers))
    return best


def _resized(sectors: Sectors, multipliers: Tensor) -> Tensor:
    """Return a multiple of multipliers for ρ = 1 that fits another output: P is homogeneous but for it."""
    inverse = torch.linalg.inv(sectors.combined(1.0, multipliers))
    return multipliers * float((sectors.output @ inverse @ sectors.output.T).max()) * (1 + 1e-9)
