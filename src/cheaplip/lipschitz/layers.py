"""The Lipschitz constant of one layer, proven: a table from the type of a module to a function that gives it.

A constant is that of the layer's function in exact arithmetic with the weights as they are, from the p-norm to the
p-norm. It is computed in float64 and rounded outward, by more than the computation can lose.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Shape: TypeAlias = "tuple[int, ...]"
# Of a layer in eval mode, the shape of one of its inputs, and p = 1, 2 or inf.
Constant: TypeAlias = "Callable[[Any, Shape, float], float]"

# A convolution with at most so many entries as a matrix is measured as that matrix, which is exact.
DENSE = 2**20


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
    weight = weight.detach().cpu().double()
    largest = float(weight.abs().max()) if weight.numel() else 0.0
    # Not even the smallest number may come out as zero.
    return outward(max(measure(weight / largest) * largest, math.ulp(0.0)), terms) if largest else 0.0


def matrix_norm(matrix: Tensor, p: float) -> float:
    """Return the operator norm of a matrix: its largest singular value, column sum or row sum of absolute values."""
    return float(torch.linalg.matrix_norm(matrix, p))


def linear(layer: nn.Linear, shape: Shape, p: float) -> float:
    """Return ‖W‖; the layer does the same to every vector along the last dimension."""
    return scaled(lambda weight: matrix_norm(weight, p), layer.weight, sum(layer.weight.shape))


def conv2d(layer: nn.Conv2d, shape: Shape, p: float) -> float:
    """Return the norm of a zero-padded convolution: exact, but for p = 2 and large images a bound from above."""
    if len(shape) != 3:
        raise ValueError(f"it needs inputs of shape (channels, height, width); got {shape}")
    if layer.padding_mode != "zeros":
        raise ValueError(f"padding_mode {layer.padding_mode!r} is not understood, only 'zeros'")
    taps = layer.weight[0].numel() + layer.weight[:, 0].numel()
    if p != 2:
        return scaled(lambda weight: _sums(layer, weight, shape)[p], layer.weight, taps)
    numbers = math.prod(shape)
    size = _apply(layer, layer.weight.detach().cpu().double(), torch.zeros(1, *shape).double()).numel()
    if numbers * size <= DENSE:

        def exact(weight: Tensor) -> float:
            columns = torch.eye(numbers, dtype=torch.float64).view(numbers, *shape)
            return matrix_norm(_apply(layer, weight, columns).flatten(1), 2)

        return scaled(exact, layer.weight, numbers + size)
    grid = _grid(layer, shape)

    def bound(weight: Tensor) -> float:
        sums = _sums(layer, weight, shape)
        return min(_symbol_norm(layer, weight, grid), math.sqrt(sums[1] * sums[math.inf]))

    return scaled(bound, layer.weight, taps + math.prod(layer.stride) * layer.in_channels + math.prod(grid))


def _apply(layer: nn.Conv2d, weight: Tensor, x: Tensor) -> Tensor:
    return nn.functional.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _sums(layer: nn.Conv2d, weight: Tensor, shape: Shape) -> dict[float, float]:
    """Return the convolution's largest column sum and row sum of absolute values, its norms for p = 1 and inf."""
    with torch.enable_grad():
        ones = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
        rows = _apply(layer, weight.abs(), ones)
        (columns,) = torch.autograd.grad(rows.sum(), ones)
    return {1.0: float(columns.max()), math.inf: float(rows.detach().max())}


def _grid(layer: nn.Conv2d, shape: Shape) -> tuple[int, ...]:
    """Return the size of a torus on which nothing wraps around: n + k - 1, up to a multiple of the stride."""
    sides = zip(shape[1:], layer.kernel_size, layer.dilation, layer.stride, strict=True)
    return tuple(-(-(n + d * (k - 1)) // s) * s for n, k, d, s in sides)


def _symbol_norm(layer: nn.Conv2d, weight: Tensor, grid: tuple[int, ...]) -> float:
    """Return the norm of the same convolution on a torus, of which the zero-padded one is a part.

    On the torus it is a matrix for each frequency; a stride of s adds up the s² frequencies that look alike after it.
    """
    height, width = grid
    s, t = layer.stride
    kernel = weight.new_zeros(*weight.shape[:2], *grid)
    down, across = layer.dilation
    kernel[..., : down * weight.shape[2] : down, : across * weight.shape[3] : across] = weight
    symbol = torch.fft.fft2(kernel).view(layer.groups, -1, weight.shape[1], s, height // s, t, width // t)
    # (groups, outputs, inputs, s, height/s, t, width/t) -> (groups, height/s, width/t, outputs, inputs · s · t)
    symbol = symbol.permute(0, 4, 6, 1, 2, 3, 5).flatten(-3)
    half = symbol[:, : height // s // 2 + 1]  # real weights: opposite frequencies have equal norms
    return float(torch.linalg.svdvals(half).max()) / math.sqrt(s * t)


def batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, shape: Shape, p: float) -> float:
    """Return the largest factor of BatchNorm with its running statistics, as in eval mode."""
    if layer.running_var is None:
        raise ValueError("BatchNorm without running statistics has no Lipschitz constant")
    spread = (layer.running_var.detach().cpu().double() + layer.eps).sqrt()
    if layer.weight is None:
        return outward(float(spread.reciprocal().max()), 4)
    return scaled(lambda weight: float((weight.abs() / spread).max()), layer.weight, 4)


def max_pool2d(layer: nn.MaxPool2d, shape: Shape, p: float) -> float:
    """Return the p-th root of the number of windows that share an input: 1 where windows do not overlap."""
    if layer.return_indices:
        raise ValueError("return_indices=True is not understood")
    sides = zip(*(_two(side) for side in (layer.kernel_size, layer.stride, layer.dilation)), strict=True)
    sharing = math.prod(-(-k * math.gcd(s, d) // s) for k, s, d in sides)
    return 1.0 if sharing == 1 or p == math.inf else outward(float(sharing) ** (1 / p), 1)


def _two(side: int | tuple[int, int]) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else side


def softmax(layer: nn.Softmax, shape: Shape, p: float) -> float:
    """Return 1/2: the rows and columns of diag(s) - s sᵀ have absolute sums 2 s (1 - s)."""
    if layer.dim is None or layer.dim % (len(shape) + 1) == 0:
        raise ValueError(f"dim must be one of a sample's dimensions; got {layer.dim}")
    return 0.5


def softplus(layer: nn.Softplus, shape: Shape, p: float) -> float:
    """Return 1; torch's jump at a threshold of 20 or more is below 3e-9 and taken as rounding."""
    if not (layer.beta > 0 and layer.threshold >= 20):
        raise ValueError(
            f"beta must be above 0 and threshold at least 20, below which it jumps; got {layer.beta}, {layer.threshold}"
        )
    return 1.0


def gelu(layer: nn.GELU, shape: Shape, p: float) -> float:
    """Return the largest slope of GELU, exact or by tanh."""
    return 1.12891 if layer.approximate == "none" else 1.12900


def prelu(layer: nn.PReLU, shape: Shape, p: float) -> float:
    """Return the larger of the two slopes, over all units."""
    return _largest_slope(float(layer.weight.detach().abs().max()))


def leaky_relu(layer: nn.LeakyReLU, shape: Shape, p: float) -> float:
    """Return the larger of the two slopes."""
    return _largest_slope(layer.negative_slope)


def elu(layer: nn.ELU, shape: Shape, p: float) -> float:
    """Return the larger of the slopes on both sides of zero."""
    return _largest_slope(layer.alpha)


def _largest_slope(other: float) -> float:
    # A NaN is handed on, for the caller to refuse.
    return 1.0 if abs(other) <= 1 else abs(other)


def _always(constant: float) -> Constant:
    return lambda layer, shape, p: constant


# Exact types: a subclass may do anything in its forward. Numbers with five digits are rounded outward.
CONSTANTS: dict[type[nn.Module], Constant] = {
    nn.Linear: linear,
    nn.Conv2d: conv2d,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.MaxPool2d: max_pool2d,
    nn.Softmax: softmax,
    nn.Softplus: softplus,
    nn.GELU: gelu,
    nn.PReLU: prelu,
    nn.LeakyReLU: leaky_relu,
    nn.ELU: elu,
    **dict.fromkeys((nn.Identity, nn.Flatten, nn.Unflatten), _always(1.0)),
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout), _always(1.0)),
    **dict.fromkeys((nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Tanh, nn.Softsign, nn.LogSigmoid), _always(1.0)),
    nn.Sigmoid: _always(0.25),
    nn.SiLU: _always(1.09984),
    nn.SELU: _always(1.75810),
}
