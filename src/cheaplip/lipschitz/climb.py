"""Climb the Jacobian's norm over inputs, many places at a time, by nothing but forwards and backwards of close pairs.

A close pair along a direction v is both a forward-mode and a second derivative: f(x + v/2) - f(x - v/2) is J v, and the
difference of the two input gradients is what changes of Jᵀ w along v, which is the gradient of <w, J v> in x. So no
layer needs a double backward.
"""

from __future__ import annotations

import time
from typing import NamedTuple, final

import torch
from torch import Tensor

from cheaplip.lipschitz.region import Region
from cheaplip.lipschitz.smooth import Smoothing
from cheaplip.modes import Model
from cheaplip.norms import Norm, dual, norm_gradient, per_sample, vector_norm
from cheaplip.pairs.steepness import apply, pull_back, widen

# Of Adam; its memory is short, since climbs are.
FIRST, SECOND = 0.9, 0.99
# How close the pairs are that say how steep a place is, in units of the data's scale.
CLOSE = 0.01
# How far directions turn at a time in a norm whose dual is not known.
CALLABLE_TURN = 0.3
# Power iterations before a place is judged.
TURNS = 2


@final
class Places(NamedTuple):
    """Where a function is steep.

    Attributes:
        points: the places, ``(n, *input)``.
        directions: along which it is steep there, of unit 2-norm, ``(n, *input)``.
        values: how steep, ``(n,)``; -inf where that is no finite number.
    """

    points: Tensor
    directions: Tensor
    values: Tensor

    def best(self, count: int) -> Places:
        """Return the ``count`` steepest places, the steepest first."""
        return self.at(self.values.topk(min(count, len(self.values))).indices)

    def at(self, index: Tensor) -> Places:
        """Return the places of these indices."""
        return Places(self.points[index], self.directions[index], self.values[index])

    def with_(self, other: Places) -> Places:
        """Return these places and others."""
        return Places(*(torch.cat(parts) for parts in zip(self, other, strict=True)))


@final
class Task(NamedTuple):
    """What is to be climbed, and where.

    Attributes:
        function: any function of a batch.
        p_in: the norm of inputs, normal form.
        p_out: the norm of outputs.
        region: where the points may be.
        scale: of the data, in input units, at most the size of the region.
        deadline: when to stop, by ``time.monotonic``.
    """

    function: Model
    p_in: Norm
    p_out: Norm
    region: Region
    scale: float
    deadline: float

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.deadline


def unit(x: Tensor) -> Tensor:
    """Return each sample, scaled to unit 2-norm."""
    return x / per_sample(vector_norm(x).clamp_min(torch.finfo(x.dtype).tiny ** 0.5), x)


def slope(task: Task, points: Tensor, directions: Tensor, distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how steep the function is, along which direction it is steeper, and where it gets steeper.

    Args:
        task: what to climb.
        points: ``(n, *input)``.
        directions: of unit 2-norm, ``(n, *input)``.
        distance: the 2-norm distance of the pairs, ``(n,)``.

    Returns:
        The quotients ``(n,)``; directions of unit 2-norm, one step of the (nonlinear) power iteration further; and
        uphill directions of unit 2-norm, or zero where the function is straight.
    """
    distance = task.region.apart(directions, distance)
    halves = directions * per_sample(distance / 2, directions)
    middles = task.region.around(points, halves)
    leaf = torch.cat([middles + halves, middles - halves]).requires_grad_()
    with torch.enable_grad():
        output = apply(task.function, leaf)
    output_u, output_v = widen(output.detach()).chunk(2)
    change = output_u - output_v
    size = vector_norm(change, task.p_out).detach()
    towards = norm_gradient(change, task.p_out, size).to(output.dtype)
    of_u, of_v = pull_back(output, leaf, torch.cat([towards, towards])).nan_to_num_(0.0, 0.0, 0.0).chunk(2)
    if task.p_in != 2:
        distance = distance * vector_norm(directions, task.p_in).detach()
    return size / distance, _turned(task, directions, of_u + of_v, size / distance), unit(of_u - of_v)


def _turned(task: Task, directions: Tensor, pulled: Tensor, value: Tensor) -> Tensor:
    """Return the directions along which <Jᵀ w, v> is largest, for v of a given norm; ``pulled`` is twice Jᵀ w."""
    if callable(task.p_in):
        # No dual norm is known: a step along the quotient's own gradient.
        own = norm_gradient(directions, task.p_in) * per_sample(2 * value, pulled)
        pulled = directions + CALLABLE_TURN * unit(pulled - own)
    elif task.p_in != 2:
        pulled = norm_gradient(pulled, dual(float(task.p_in)))
    size = per_sample(vector_norm(pulled), pulled)
    return torch.where(size > 0, pulled / size, directions)


def judge(task: Task, points: Tensor, directions: Tensor) -> Places:
    """Return how steep the function is at the points, after a few power iterations."""
    points = task.region.near(points)
    distance = points.new_full((len(points),), CLOSE * task.scale)
    best = points.new_full((len(points),), -torch.inf)
    kept = directions
    for _ in range(TURNS):
        value, turned, _ = slope(task, points, directions, distance)
        better = value > best  # never true of NaN
        best, kept = (
            torch.where(better & value.isfinite(), value, best),
            torch.where(per_sample(better, kept), directions, kept),
        )
        directions = turned
    return Places(points, kept, best)


def climb(
    task: Task, start: Places, steps: int, length: Tensor, distance: tuple[Tensor, float], bend: tuple[float, float]
) -> Places:
    """Let each place walk uphill by Adam, its direction turning by a power iteration as it goes.

    Args:
        task: what to climb.
        start: where from.
        steps: the number of moves; each costs one forward and one input backward of two points a place.
        length: the length of the first moves, in input units, ``(n,)``; they shrink to a twentieth.
        distance: of the pairs, in input units: the first, ``(n,)``, and the last; far pairs see kinks from afar.
        bend: how far activations are smoothed, the first and the last, relative to their typical size; 0 not at all.
    """
    points, directions = start.points.clone(), start.directions
    first, second = torch.zeros_like(points), torch.zeros_like(points)
    each = per_sample(length / max(1, points[0].numel()) ** 0.5, points)
    smoothing = Smoothing(task.function)
    true = task
    if bend[0]:
        task = task._replace(function=smoothing)
    apart, closer = distance[0].clone(), (distance[1] / distance[0]) ** (1 / max(1, steps - 1))
    for step in range(steps):
        if task.late:
            break
        part = step / max(1, steps - 1)
        smoothing.width = bend[0] * (bend[1] / bend[0]) ** part if bend[0] else 0.0
        _, directions, uphill = slope(task, points, directions, apart)
        first.lerp_(uphill, 1 - FIRST)
        second.mul_(SECOND).addcmul_(uphill, uphill, value=1 - SECOND)
        corrected = (1 - SECOND ** (step + 1)) ** 0.5 / (1 - FIRST ** (step + 1)) * (1 - 0.95 * part)
        points = task.region.near(points.addcdiv_(first, second.sqrt().add_(1e-8).div_(each), value=corrected))
        apart.mul_(closer)
    # A function that overflows on the way leaves no place behind.
    lost = ~torch.isfinite(points).flatten(1).all(1)
    points = torch.where(per_sample(lost, points), start.points, points)
    return judge(true, points, directions)
