"""The Jacobian's norm at points: how steep a function is there, and along which direction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cheaplip.lipschitz.climb import Places, Task, slope, unit
from cheaplip.lipschitz.region import Region
from cheaplip.lipschitz.witness import Wide, evaluated, plain, widest
from cheaplip.modes import Model, modules_of
from cheaplip.norms import Norm, check_norm, dual, norm_gradient, per_sample, vector_norm
from cheaplip.pairs.starts import check_points, scale_of
from cheaplip.pairs.steepness import apply, pull_back, widen

# Up to so many outputs the Jacobian is written out, a backward for each; so many of its numbers at a time.
ROWS, NUMBERS = 64, 2**22
# Power iterations where it is not, and from how many directions.
TURNS, STARTS = 40, 4
# Distance of the pairs that stand for a derivative, in units of the data's scale: in float64 and in float32.
TINY, SMALL = 1e-5, 1e-2
# Up to so many outputs all signs are tried, where signs are what a norm depends on.
SIGNS = 10


def jacobian_norms(
    model: Model,
    x: Tensor,
    *,
    p_in: Norm = 2,
    p_out: Norm = 2,
    modules: Iterable[nn.Module] | None = None,
) -> Tensor:
    """Return the operator norm of the Jacobian at each point: how steep the function is there.

    Of up to 64 outputs the Jacobian is written out, row by row; else it is found by a power iteration without it. A
    module is evaluated in float64 if it takes that.

    Args:
        model: a module or any callable of its input; it is evaluated as in eval mode.
        x: the points, ``(n, *input)``, floating, finite.
        p_in: the norm of inputs: 1, 2, inf or a callable ``(n, *shape) -> (n,)``.
        p_out: the norm of outputs, likewise.
        modules: the modules that a callable uses, if they cannot be read off what it refers to.

    Returns:
        The norms, ``(n,)``, float64. Exact but for rounding of up to 64 outputs where ``p_in`` is 1, ``p_out`` is inf,
        or both are 2, and of up to 10 outputs where ``p_out`` is 1; else what the power iteration reached, which is at
        most the norm.

    Raises:
        ValueError: if ``x`` does not fit the model.
        TypeError: if ``x`` or an output is no floating tensor.

    Example:
        >>> jacobian_norms(lambda x: x**2, torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        tensor([2., 6.], dtype=torch.float64)
    """
    check_points(x, "x")
    p_in, p_out = check_norm(p_in, "p_in"), check_norm(p_out, "p_out")
    inner = plain(model)
    with evaluated(modules_of(model, modules)):
        wide = widest(inner, x)
        points = x.detach().to(wide.dtype)
        task = Task(wide.function, p_in, p_out, Region(None, None, p_in, points), scale_of(x), math.inf)
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(points[:1].shape, generator=generator, dtype=torch.float64).to(points)
        return leading(task, points, unit(start).expand_as(points), STARTS).values.double()


def leading(task: Task, points: Tensor, directions: Tensor, starts: int = 1) -> Places:
    """Return how steep the function is at the points, and along which directions.

    Args:
        task: the function and the norms.
        points: ``(n, *input)``.
        directions: where power iterations start, of unit 2-norm, likewise.
        starts: how often they start, if there are any; all but the first time from random directions.
    """
    with torch.no_grad():
        outputs = apply(task.function, points[:1]).numel()
    if outputs > ROWS or callable(task.p_in) or callable(task.p_out):
        return _turned(task, points, directions, starts)
    size = max(1, NUMBERS // (outputs * points[0].numel()))
    parts = []
    for some, given in zip(torch.split(points, size), torch.split(directions, size), strict=True):
        norms, steepest = operator_norm(rows(task, some), float(task.p_in), float(task.p_out))
        turned = unit(steepest.view_as(some)).to(some)
        # Where all is flat one direction is as good as another.
        parts.append((some, torch.where(per_sample(norms > 0, some), turned, given), norms))
    return Places(*(torch.cat(part) for part in zip(*parts, strict=True)))


def rows(task: Task, points: Tensor) -> Tensor:
    """Return the Jacobian at each point, ``(n, outputs, inputs)``, by one backward an output."""
    leaf = points.detach().requires_grad_()
    with torch.enable_grad():
        output = widen(apply(task.function, leaf))
        total = output.reshape(len(points), -1).sum(0)
        gradients = [pull_back(one, leaf, torch.ones_like(one), keep=True) for one in total]
    return widen(torch.stack(gradients, 1).flatten(2))


def operator_norm(matrix: Tensor, p_in: float, p_out: float) -> tuple[Tensor, Tensor]:
    """Return operator norms of matrices, and directions that attain them.

    Args:
        matrix: ``(n, rows, columns)``.
        p_in: the norm of what a matrix is applied to, 1, 2 or inf.
        p_out: the norm of the result, likewise.

    Returns:
        The norms ``(n,)`` and directions of unit norm ``(n, columns)``. Where finding the norm is NP-hard (into 1 from
        2 or inf, and from inf into 2) it is the largest local maximum found, but for few rows into 1.

    Example:
        >>> operator_norm(torch.tensor([[[1.0, -2.0], [3.0, 4.0]]]), 1.0, 1.0)
        (tensor([6.]), tensor([[0., 1.]]))
    """
    count, height, width = matrix.shape
    if p_in == 1:
        norms, best = torch.linalg.vector_norm(matrix, p_out, dim=1).max(1)
        return norms, nn.functional.one_hot(best, width).to(matrix)
    if p_out == math.inf:
        norms, best = torch.linalg.vector_norm(matrix, dual(p_in), dim=2).max(1)
        return norms, norm_gradient(matrix[torch.arange(count, device=matrix.device), best], dual(p_in))
    vectors = torch.linalg.eigh(matrix @ matrix.transpose(1, 2))[1]
    if p_in == p_out == 2:
        along = (matrix.transpose(1, 2) @ vectors[..., -1:]).squeeze(2)
        return vector_norm(along), norm_gradient(along)
    starts = vectors.transpose(1, 2)
    if p_out == 1 and height <= SIGNS:
        signs = matrix.new_tensor(list(itertools.product((1.0, -1.0), repeat=height)))
        starts = signs[: 2 ** (height - 1)].expand(count, -1, -1)
    return _local_maximum(matrix, starts, p_in, p_out)


def _local_maximum(matrix: Tensor, starts: Tensor, p_in: float, p_out: float) -> tuple[Tensor, Tensor]:
    """Return the best of nonlinear power iterations from each start ``(n, starts, rows)``."""
    count, several, height = starts.shape
    back = starts
    for _ in range(TURNS):
        along = norm_gradient((back @ matrix).flatten(0, 1), dual(p_in)).view(count, several, -1)
        reached = along @ matrix.transpose(1, 2)
        back = norm_gradient(reached.flatten(0, 1), p_out).view(count, several, height)
    norms, best = torch.linalg.vector_norm(reached, p_out, dim=2).max(1)
    return norms, along[torch.arange(count, device=matrix.device), best]


def _turned(task: Task, points: Tensor, directions: Tensor, starts: int) -> Places:
    """Turn each direction to where the function is steepest, by power iterations from it and a few others."""
    part = TINY if points.dtype == torch.float64 else SMALL
    distance = points.new_full((len(points),), part * task.scale)
    generator = torch.Generator().manual_seed(1)
    best = Places(points, directions, points.new_full((len(points),), -torch.inf))
    for start in range(starts):
        if start:
            drawn = torch.randn(points[:1].shape, generator=generator, dtype=torch.float64).to(points)
            directions = unit(drawn).expand_as(points)
        for _ in range(TURNS):
            value, turned, _ = slope(task, points, directions, distance)
            better = value > best.values  # never true of NaN
            kept = torch.where(per_sample(better, directions), directions, best.directions)
            best = Places(points, kept, torch.where(better, value, best.values))
            directions = turned
    return best


def sharpened(task: Task, wide: Wide, places: Places) -> Places:
    """Return the places with the directions along which they are steepest, in the widest arithmetic."""
    wider = task._replace(function=wide.function)
    return leading(wider, places.points.to(wide.dtype), places.directions.to(wide.dtype))
