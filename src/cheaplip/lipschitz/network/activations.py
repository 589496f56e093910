"""Slopes of layers that work unit by unit: over all numbers, or between bounds, always from outside.

A smooth activation is given by its derivative and the places where this turns; between them it rises or falls, so that
its largest and least values on an interval lie at the ends or at those places.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cheaplip.lipschitz.network.rules import Elementwise, Rule, Shape
from cheaplip.lipschitz.system import Pieces

# Far above what a derivative loses in float64, and what a turning point given to ten digits costs.
MARGIN = 1e-12
# Derivatives of functions with e^-|x| in them have reached their limits here to within the margin.
FAR = 40.0


@final
@dataclass(frozen=True)
class Curve:
    """A function of one number.

    Args:
        function: of a tensor, entry by entry.
        derivative: likewise; infinite arguments give its limits.
        special: where the derivative turns or jumps, with its values there.
        limits: numbers that the derivative never leaves.
    """

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    special: tuple[tuple[float, tuple[float, ...]], ...] = ()
    limits: tuple[float, float] = (-math.inf, math.inf)

    def slopes(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return bounds of the derivative between ``low`` and ``high``, entry by entry."""
        ends = torch.stack([self.derivative(low), self.derivative(high)])
        least, most = ends.amin(0), ends.amax(0)
        for place, values in self.special:
            inside = (low <= place) & (place <= high)
            least = torch.where(inside, least.clamp_max(min(values)), least)
            most = torch.where(inside, most.clamp_min(max(values)), most)
        least, most = least - MARGIN * (1 + least.abs()), most + MARGIN * (1 + most.abs())
        return least.clamp(*self.limits), most.clamp(*self.limits)


def _gaussian(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _gelu(x: Tensor) -> Tensor:
    x = x.clamp(-FAR, FAR)
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * _gaussian(x)


def _gelu_tanh(x: Tensor) -> Tensor:
    x = x.clamp(-FAR, FAR)
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    inner = torch.tanh(scale * (x + cubic * x**3))
    return 0.5 * (1 + inner) + 0.5 * x * (1 - inner * inner) * scale * (1 + 3 * cubic * x * x)


def _silu(x: Tensor) -> Tensor:
    x = x.clamp(-FAR, FAR)
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


def _mish(x: Tensor) -> Tensor:
    x = x.clamp(-FAR, FAR)
    inner = torch.tanh(F.softplus(x))
    return inner + x * (1 - inner * inner) * torch.sigmoid(x)


def _sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


def _turning(derivative: Callable[[Tensor], Tensor], *places: float) -> tuple[tuple[float, tuple[float, ...]], ...]:
    return tuple((place, (float(derivative(torch.tensor(place, dtype=torch.float64))),)) for place in places)


_CURVES: dict[type[nn.Module], Curve] = {
    nn.Sigmoid: Curve(torch.sigmoid, _sigmoid, ((0.0, (0.25,)),), (0.0, 0.25)),
    nn.Tanh: Curve(torch.tanh, lambda x: 4 * _sigmoid(2 * x), ((0.0, (1.0,)),), (0.0, 1.0)),
    nn.Tanhshrink: Curve(F.tanhshrink, lambda x: torch.tanh(x) ** 2, ((0.0, (0.0,)),), (0.0, 1.0)),
    nn.Softsign: Curve(F.softsign, lambda x: (1 + x.abs()) ** -2, ((0.0, (1.0,)),), (0.0, 1.0)),
    nn.LogSigmoid: Curve(F.logsigmoid, lambda x: torch.sigmoid(-x), limits=(0.0, 1.0)),
    nn.SiLU: Curve(F.silu, _silu, _turning(_silu, -2.3993572805155, 2.3993572805155)),
    nn.Mish: Curve(F.mish, _mish, _turning(_mish, -2.2563763963608, 1.4905711794854)),
    nn.Hardswish: Curve(
        F.hardswish,
        lambda x: torch.where(x < -3, 0.0, torch.where(x > 3, 1.0, x.clamp(-3, 3) / 3 + 0.5)),
        ((-3.0, (0.0, -0.5)), (3.0, (1.5, 1.0))),
    ),
}


def _curve_of(layer: Any) -> Curve:
    kind = type(layer)
    if kind in _CURVES:
        return _CURVES[kind]
    if kind is nn.GELU:
        if layer.approximate == "none":
            return Curve(F.gelu, _gelu, _turning(_gelu, -math.sqrt(2), math.sqrt(2)))
        return Curve(layer, _gelu_tanh, _turning(_gelu_tanh, -1.4185040087908, 1.4185040087908))
    if kind is nn.Softplus:
        beta, threshold = float(layer.beta), float(layer.threshold)
        if not (0 < beta < math.inf and 20 <= threshold < math.inf):
            raise ValueError(
                f"beta must be above 0 and threshold at least 20, below which it jumps; got {beta:g}, {threshold:g}"
            )
        # Its jump at a threshold of 20 or more is below 3e-9 / beta and taken as rounding.
        return Curve(
            layer,
            lambda x: torch.where(beta * x > threshold, 1.0, torch.sigmoid(beta * x)),
            limits=(0.0, 1.0),
        )
    scale, alpha, rate = _exponential(layer)
    return Curve(
        layer,
        lambda x: torch.where(x > 0, scale, scale * alpha * rate * torch.exp(rate * x.clamp_max(0.0))),
        ((0.0, (scale, scale * alpha * rate)),),
    )


def _exponential(layer: Any) -> tuple[float, float, float]:
    """Return s, α, r of an ELU that is ``s x`` above zero and ``s α (e^(r x) - 1)`` below."""
    if type(layer) is nn.SELU:
        return 1.0507009873554805, 1.6732632423543772, 1.0
    if type(layer) is nn.ELU:
        return 1.0, float(layer.alpha), 1.0
    if not layer.alpha > 0:
        raise ValueError(f"alpha must be above 0; got {layer.alpha}")
    return 1.0, float(layer.alpha), 1.0 / float(layer.alpha)


def _still(layer: Any) -> Any:
    """Return a layer of its own, in eval mode, that leaves what it is given as it is."""
    own = copy.deepcopy(layer).eval()
    if hasattr(own, "inplace"):
        own.inplace = False
    return own


def smooth(layer: Any, shape: Shape) -> Rule:
    """Return the rule of an activation that is given by its derivative."""
    curve = _curve_of(_still(layer))
    return _rule(Elementwise(curve.function, curve.slopes), shape)


def _breaks(layer: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Return where the slopes of a piecewise-linear activation change, and the slopes."""
    kind = type(layer)
    if kind is nn.LeakyReLU:
        return [0.0], [layer.negative_slope, 1.0]
    if kind is nn.RReLU:  # in eval mode
        return [0.0], [(layer.lower + layer.upper) / 2, 1.0]
    if kind in (nn.Hardtanh, nn.ReLU6):
        return [layer.min_val, layer.max_val], [0.0, 1.0, 0.0]
    if kind is nn.Softshrink:
        return [-layer.lambd, layer.lambd], [1.0, 0.0, 1.0]
    if kind is nn.Hardsigmoid:
        return [-3.0, 3.0], [0.0, math.nextafter(1 / 6, 1.0), 0.0]
    return [0.0], [0.0, 1.0]


def piecewise(layer: Any, shape: Shape) -> Rule:
    """Return the rule of ReLU and its relatives."""
    size = math.prod(shape)
    breaks, slopes = (torch.tensor(values, dtype=torch.float64).expand(size, -1) for values in _breaks(layer))
    return pieces_rule(_still(layer), Pieces(breaks, slopes), shape)


def prelu(layer: nn.PReLU, shape: Shape) -> Rule:
    """Return the rule of PReLU, whose slope below zero may differ from channel to channel."""
    weight = layer.weight.detach().double().cpu()
    channels = shape[0] if shape else 1
    if len(weight) not in (1, channels):
        raise ValueError(f"it has {len(weight)} slopes for {channels} channels")
    below = weight.expand(channels).repeat_interleave(math.prod(shape) // max(channels, 1))
    pieces = Pieces(torch.zeros(len(below), 1, dtype=torch.float64), torch.stack([below, torch.ones_like(below)], 1))
    return pieces_rule(lambda x: F.prelu(x, weight), pieces, shape)


def pieces_rule(function: Callable[[Tensor], Tensor], pieces: Pieces, shape: Shape) -> Rule:
    """Return the rule of a function that is made of pieces."""
    if not bool(torch.isfinite(pieces.slopes).all()) or bool(torch.isnan(pieces.breaks).any()):
        raise ValueError("its slopes must be finite numbers")
    left = torch.cat([pieces.breaks.new_full((len(pieces.breaks), 1), -math.inf), pieces.breaks], 1)
    right = torch.cat([pieces.breaks, pieces.breaks.new_full((len(pieces.breaks), 1), math.inf)], 1)

    def slopes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        touched = (left <= high.reshape(-1, 1)) & (right >= low.reshape(-1, 1))
        least = torch.where(touched, pieces.slopes, math.inf).amin(1)
        most = torch.where(touched, pieces.slopes, -math.inf).amax(1)
        return least.view(shape), most.view(shape)

    return _rule(Elementwise(function, slopes, pieces), shape)


def _rule(units: Elementwise, shape: Shape) -> Rule:
    free = torch.full(shape, math.inf, dtype=torch.float64)
    low, high = units.slopes(-free, free)
    top = float(torch.maximum(low.abs(), high.abs()).max()) if free.numel() else 0.0
    if not math.isfinite(top):
        raise ValueError("its slopes must be finite numbers")
    return Rule(lambda p: top, elementwise=units)


SMOOTH = (*_CURVES, nn.GELU, nn.Softplus, nn.ELU, nn.CELU, nn.SELU)
PIECEWISE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.Hardtanh, nn.Softshrink, nn.Hardsigmoid)
