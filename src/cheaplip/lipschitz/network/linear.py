"""Rules of layers that are linear, up to an offset, and norms of linear maps."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cheaplip.lipschitz.network.rules import LinearMap, Rule, Shape

# A linear map with at most so many entries is measured as a matrix, which is exact.
DENSE = 2**20
MIXES = "it mixes samples: keep the first dimension as it is"


def outward(value: float, terms: int) -> float:
    """Return a number above ``value`` by more than rounding loses in sums and factorisations of so many terms.

    Zero stays zero, where it can only come from zeros; a number below the smallest normal one becomes that.

    Example:
        >>> 1.0 < outward(1.0, 784) < 1.0 + 1e-11
        True
    """
    if value == 0:
        return 0.0
    return max(value * (1 + 16 * sys.float_info.epsilon * terms), sys.float_info.min)


def scaled(measure: Callable[[Tensor], float], weight: Tensor, terms: int) -> float:
    """Measure weights in float64, scaled to 1 lest squares overflow or vanish, and round outward."""
    largest = float(weight.abs().max()) if weight.numel() else 0.0
    # Not even the smallest number may come out as zero.
    return outward(max(measure(weight / largest) * largest, math.ulp(0.0)), terms) if largest else 0.0


def matrix_norm(matrix: Tensor, p: Any) -> float:
    """Return a norm of a matrix: for p = 2, 1, inf its largest singular value, column sum or row sum, or ``"fro"``."""
    if not bool(torch.isfinite(matrix).all()):
        return math.nan
    return float(torch.linalg.matrix_norm(matrix, p)) if matrix.numel() else 0.0


def wide(tensor: Tensor | None) -> Tensor | None:
    """Return a layer's tensor as a constant in float64 on the CPU."""
    return None if tensor is None else tensor.detach().cpu().double()


def weight_of(layer: Any) -> Tensor:
    """Return the weight of a layer in float64 on the CPU, as its parametrization makes it."""
    weight: Tensor = layer.weight
    return weight.detach().cpu().double()


def norm_of(linear: LinearMap, shape: Shape, p: float) -> float:
    """Return a proven norm of a linear map: exact but for p = 2 and large maps, there ``√(‖A‖₁ ‖A‖_∞)``."""
    zeros = torch.zeros(1, *shape, dtype=torch.float64)
    rows, columns = linear.apply(zeros).numel(), zeros.numel()
    if not rows * columns:
        return 0.0
    if p == 2 and rows * columns <= DENSE:
        norm = matrix_norm(matrix_of(linear, shape), 2)
        if not linear.exact:  # what was rounded while making the matrix is relative to what entries were summed from
            sizes = matrix_norm(matrix_of(LinearMap(linear.magnitude, linear.magnitude), shape), "fro")
            norm += 4 * (rows + columns) * sys.float_info.epsilon * sizes
        return outward(norm, rows + columns)
    with torch.inference_mode(False), torch.enable_grad():
        ones = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
        sums = linear.magnitude(ones)
        (across,) = torch.autograd.grad(sums.sum(), ones)
    largest = {1.0: float(across.max()), math.inf: float(sums.detach().max())}
    return outward(largest[p] if p in largest else math.sqrt(math.prod(largest.values())), rows + columns)


def matrix_of(linear: LinearMap, shape: Shape) -> Tensor:
    """Return the transposed matrix of a linear map, ``(inputs, outputs)``."""
    numbers = math.prod(shape)
    return linear.apply(torch.eye(numbers, dtype=torch.float64).view(numbers, *shape)).reshape(numbers, -1)


def of_map(linear: LinearMap, shape: Shape) -> Rule:
    """Return the rule of a linear map that nothing else is known about."""
    return Rule(lambda p: norm_of(linear, shape, p), linear=linear)


def dense(layer: nn.Linear, shape: Shape) -> Rule:
    """Return the rule of a linear layer, which does the same to every vector along the last dimension."""
    return matrix_rule(weight_of(layer), wide(layer.bias), shape)


def matrix_rule(weight: Tensor, bias: Tensor | None, shape: Shape) -> Rule:
    """Return the rule of ``x @ weight.T + bias`` along the last dimension."""
    if not shape or shape[-1] != weight.shape[1]:
        raise ValueError(f"its weight takes vectors of {weight.shape[1]}")
    size = weight.abs()
    offset = None if bias is None else bias.expand(*shape[:-1], len(weight))

    def rescaled(factors: Tensor) -> Rule:
        return matrix_rule(weight * factors[:, None], None if bias is None else bias * factors, shape)

    return Rule(
        lambda p: scaled(lambda matrix: matrix_norm(matrix, p), weight, sum(weight.shape)),
        linear=LinearMap(
            lambda x: x @ weight.T,
            lambda x: x @ size.T,
            offset,
            rescaled=rescaled if len(shape) == 1 else None,
        ),
    )


def diagonal(factors: Tensor, shape: Shape, *, exact: bool = True) -> Rule:
    """Return the rule of multiplying every number by its own factor.

    Args:
        factors: float64, broadcasting to ``shape``.
        shape: of the input.
        exact: whether the factors are as they were given, not rounded.
    """
    sizes = factors.abs()
    top = float(sizes.max()) if sizes.numel() else 0.0
    return Rule(lambda p: outward(top, 4), linear=LinearMap(lambda x: x * factors, lambda x: x * sizes, exact=exact))


def batch_norm(layer: Any, shape: Shape) -> Rule:
    """Return the rule of BatchNorm with its running statistics, as in eval mode."""
    if layer.running_var is None or layer.running_mean is None:
        raise ValueError(
            "BatchNorm without running statistics has no Lipschitz constant: its output depends on the other samples"
        )
    if layer.training:
        raise ValueError("BatchNorm in training mode depends on the other samples; call model.eval() first")
    return normalised(layer.running_mean, layer.running_var, layer.weight, layer.bias, layer.eps, shape)


def normalised(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, shape: Shape
) -> Rule:
    """Return the rule of ``(x - mean) / √(variance + eps) * weight + bias``, channel by channel."""
    centre, spread = mean.detach().cpu().double(), (variance.detach().cpu().double() + eps).sqrt()
    if not shape or shape[0] != len(spread):
        raise ValueError(f"it has statistics of {len(spread)} channels")
    factors = spread.reciprocal() if weight is None else weight.detach().cpu().double() / spread
    added = torch.zeros_like(factors) if bias is None else bias.detach().cpu().double()
    view = (-1, *[1] * (len(shape) - 1))
    each, sizes = factors.view(view), factors.view(view).abs()
    top = float(sizes.max()) if sizes.numel() else 0.0
    return Rule(
        lambda p: outward(top, 8),
        linear=LinearMap(
            lambda x: x * each,
            lambda x: x * sizes,
            (added - centre * factors).view(view).expand(shape),
            exact=False,
            factors=factors,
            terms=((centre * factors).abs() + added.abs()).view(view).expand(shape),
        ),
    )


def unchanged(layer: Any, shape: Shape) -> Rule:
    """Return the rule of a layer that hands its input on."""
    return Rule(lambda p: 1.0, linear=LinearMap(_same, _same, moves=True))


def _same(x: Tensor) -> Tensor:
    return x


def moved(function: Callable[[Tensor], Tensor], shape: Shape, samples: int = 3) -> Rule:
    """Return the rule of a function that only moves numbers about, copies them, leaves some out or adds constants.

    Which goes where is read off by giving it numbers to move; the caller vouches that the function does not look at
    them.

    Raises:
        ValueError: if it moves numbers from one sample to another.
    """
    count = math.prod(shape)
    numbers = torch.arange(1.0, samples * count + 1, dtype=torch.float64).view(samples, *shape)
    constant = function(torch.zeros_like(numbers))
    there = function(numbers) - constant
    if there.dim() == 0 or len(there) != samples:
        raise ValueError(MIXES)
    if not bool(torch.isfinite(there).all()):
        raise ValueError("it fills in numbers that are not finite")
    own = there - count * torch.arange(samples, dtype=torch.float64).view(-1, *[1] * (there.dim() - 1))
    index = torch.where(there == 0, 0.0, own).long()
    if bool((index < 0).any()) or bool((index > count).any()) or not bool((index == index[0]).all()):
        raise ValueError(MIXES)
    if not bool(((there == 0) | (own == index)).all()):
        raise ValueError("it does more than move numbers about")
    if not bool((constant == constant[0]).all()):
        raise ValueError("it adds something else to every sample")
    index = index[0]
    copies = int(index.flatten().bincount(minlength=count + 1)[1:].max()) if index.numel() and count else 0

    def apply(x: Tensor) -> Tensor:
        flat = torch.cat([x.new_zeros(len(x), 1), x.reshape(len(x), -1)], 1)
        return flat[:, index.flatten()].view(len(x), *index.shape)

    sizes = {1.0: float(copies), 2.0: outward(math.sqrt(copies), 1) if copies > 1 else float(copies)}
    added = constant[0] if bool(constant.any()) else None
    return Rule(lambda p: sizes.get(p, float(copies > 0)), linear=LinearMap(apply, apply, added, moves=True))


def moving(layer: Any, shape: Shape) -> Rule:
    """Return the rule of a layer without weights that only moves numbers about."""
    return moved(layer, shape)


def plain(layer: Any, shape: Shape) -> Rule:
    """Return the rule of a linear layer without weights whose factors are not negative, such as average pooling."""
    if bool((layer(torch.ones(1, *shape, dtype=torch.float64)) < 0).any()):
        raise ValueError("its factors must not be negative")
    return of_map(LinearMap(layer, layer, exact=False), shape)
