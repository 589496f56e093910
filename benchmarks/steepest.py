"""The largest Jacobian of a network that a search at many points finds: a lower bound to hold upper bounds against."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from architectures import Drawn, Draws
from pieces import Applied
from torch import Tensor, nn

Sides: TypeAlias = "tuple[float | list[float], float | list[float]]"

NORMS = (1.0, 2.0, math.inf)
POINTS = 24


def _celu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0) / alpha))


NORMALISE = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def _normalised(x: Tensor, layer: Any) -> Tensor:
    if isinstance(layer, nn.LayerNorm):
        rows, shape = x.flatten(x.dim() - len(layer.normalized_shape)), layer.normalized_shape
    else:
        groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else x.shape[1]
        rows, shape = x.reshape(len(x), int(groups), -1), (-1, *[1] * (x.dim() - 2))
    centred = rows - rows.mean(-1, keepdim=True)
    centred = centred - centred.mean(-1, keepdim=True)  # of large equal numbers the first mean is rounded
    x = (centred * (centred.square().mean(-1, keepdim=True) + layer.eps).rsqrt()).reshape(x.shape)
    return x if layer.weight is None else x * layer.weight.view(shape) + layer.bias.view(shape)


def as_smooth(net: nn.Module) -> nn.Module:
    """Return the same network for autograd.

    It misses what is overwritten, rounds some slopes to float32, and divides the rounding of a mean of 1e18 by the
    standard deviation of numbers that are equal.
    """
    for layer in net.modules():
        for name, inner in list(layer.named_children()):
            if isinstance(inner, nn.ReLU):
                inner.inplace = False
            elif isinstance(inner, nn.Hardsigmoid):
                setattr(layer, name, Applied("hardsigmoid", lambda x: (x + 3).clamp(0, 6) / 6))
            elif isinstance(inner, nn.CELU):
                setattr(layer, name, Applied("celu", functools.partial(_celu, alpha=inner.alpha)))
            elif isinstance(inner, NORMALISE) and not getattr(inner, "track_running_stats", False):
                setattr(layer, name, Applied("normalised", functools.partial(_normalised, layer=inner)))
    return net


def jacobians(net: nn.Module, points: Tensor) -> Tensor:
    """Return the Jacobian at each point, ``(n, outputs, inputs)``."""
    net = as_smooth(copy.deepcopy(net))
    points = points.detach().requires_grad_()
    outputs = net(points * 1.0).flatten(1).unbind(1)  # the network may change what it is given
    rows = [torch.autograd.grad(output.sum(), points, retain_graph=True)[0].flatten(1) for output in outputs]
    return torch.stack(rows, 1)


def starts(shape: tuple[int, ...], sides: tuple[Tensor, Tensor] | None, draw: Draws) -> Tensor:
    """Return points near and far, or points of a box and its corners."""
    if sides is None:
        radii = torch.cat([torch.logspace(-3, 3, POINTS), torch.logspace(-42, 42, POINTS // 3)]).double()
        return radii.view(-1, *[1] * len(shape)) * draw.normal((len(radii), *shape))
    share = torch.rand(POINTS, *shape, generator=draw.generator, dtype=torch.float64)
    share[: POINTS // 3] = share[: POINTS // 3].round()
    return torch.minimum(sides[0] + share * (sides[1] - sides[0]), sides[1])


def steepest(
    drawn: Drawn, box: Sides | None = None, norms: Sequence[float] = NORMS, climbs: int = 2
) -> dict[float, float]:
    """Return the largest norm of a Jacobian that is found, for each norm: a lower bound.

    Args:
        drawn: the network.
        box: where points may be; None for all space.
        norms: of inputs and outputs.
        climbs: how often the best points are moved a little.
    """
    draw, sides = Draws(drawn.seed), None
    if box is not None:
        view = (-1, *[1] * (len(drawn.shape) - 1))
        low, high = (torch.as_tensor(side, dtype=torch.float64) for side in box)
        sides = (low.view(view) if low.dim() else low, high.view(view) if high.dim() else high)
    points = starts(drawn.shape, sides, draw)
    best = dict.fromkeys(norms, 0.0)
    for climb in range(climbs + 1):
        matrices = jacobians(drawn.net, points)
        matrices = torch.where(torch.isfinite(matrices).all(2, keepdim=True).all(1, keepdim=True), matrices, 0.0)
        leaders = []
        for p in norms:
            values = torch.linalg.matrix_norm(matrices, p)
            best[p] = max(best[p], float(values.max()))
            leaders.append(points[int(values.argmax())])
        # Around the best points, closer each time.
        centres = torch.stack(leaders).repeat(POINTS // (3 * len(leaders)) + 1, *[1] * len(drawn.shape))
        sizes = centres.abs().reshape(len(centres), -1).amax(1).view(-1, *[1] * len(drawn.shape))
        points = centres + 0.3 * 0.1**climb * sizes * draw.normal(centres.shape)
        if sides is not None:
            points = torch.minimum(torch.maximum(points, sides[0]), sides[1])
    return best


def random_box(drawn: Drawn) -> Sides:
    """Return a box of a random size, for all channels or for each."""
    draw = Draws(drawn.seed + 1)

    def side() -> tuple[float, float]:
        centre, size = draw.real(-1, 1), 10 ** draw.real(-3, 2)
        return centre - size, centre + size

    if draw.chance(0.6):
        return side()
    each = [side() for _ in range(drawn.shape[0])]
    return [low for low, _ in each], [high for _, high in each]
