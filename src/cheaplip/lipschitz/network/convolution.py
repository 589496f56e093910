"""Rules of convolutions of any dimension, stride, padding, dilation and number of groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cheaplip.lipschitz.network.linear import (
    DENSE,
    matrix_norm,
    matrix_of,
    moved,
    norm_of,
    outward,
    scaled,
    weight_of,
    wide,
)
from cheaplip.lipschitz.network.rules import LinearMap, Rule, Shape

_FUNCTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
# With more complex numbers than this the symbol is not computed.
SYMBOL = 2**26


def convolution(layer: Any, shape: Shape) -> Rule:
    """Return the rule of Conv1d, Conv2d or Conv3d."""
    weight, bias = weight_of(layer), wide(layer.bias)
    if len(shape) != weight.dim() - 1:
        sizes = ", ".join(("height", "width", "depth")[: weight.dim() - 2]) if weight.dim() > 3 else "length"
        raise ValueError(f"it needs inputs of shape (channels, {sizes}); got {shape}")
    if layer.padding_mode == "zeros":
        return _zero_padded(layer, weight, bias, shape, layer.padding)
    # Reflected, repeated or wrapped around: numbers are copied first, then there is no more padding.
    mode, widths = layer.padding_mode, layer._reversed_padding_repeated_twice
    border = moved(lambda x: F.pad(x, widths, mode=mode), shape)
    padded = border_shape(border, shape)
    inner = _zero_padded(layer, weight, bias, padded, 0)
    return chained(border, inner, shape)


def border_shape(rule: Rule, shape: Shape) -> Shape:
    """Return the shape of what a linear layer gives."""
    if rule.linear is None:
        raise ValueError("it is not linear")
    return tuple(rule.linear.apply(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])


def chained(first: Rule, second: Rule, shape: Shape) -> Rule:
    """Return the rule of two linear layers, one after the other."""
    one, two = first.linear, second.linear
    if one is None or two is None:
        raise ValueError("only linear layers can be joined")
    offset, terms = two.offset, two.offset_size()
    if one.offset is not None:
        moved_on = two.apply(one.offset.unsqueeze(0))[0]
        offset = moved_on if offset is None else moved_on + offset
        terms = two.magnitude((one.offset_size() + torch.zeros_like(one.offset)).unsqueeze(0))[0] + terms
    both = LinearMap(
        lambda x: two.apply(one.apply(x)),
        lambda x: two.magnitude(one.magnitude(x)),
        offset,
        # Moving numbers about in front of a layer adds some up, at most.
        exact=False,
        terms=terms if isinstance(terms, Tensor) else None,
    )

    def constant(p: float) -> float:
        product = outward(first.constant(p) * second.constant(p), 1)
        size = math.prod(shape) * two.apply(one.apply(torch.zeros(1, *shape, dtype=torch.float64))).numel()
        return min(product, norm_of(both, shape, p)) if size <= DENSE else product

    return Rule(constant, linear=both)


def _zero_padded(layer: Any, weight: Tensor, bias: Tensor | None, shape: Shape, padding: Any) -> Rule:
    size = weight.abs()
    function = _FUNCTIONS[weight.dim() - 2]
    settings = (layer.stride, padding, layer.dilation, layer.groups)

    def apply_with(kernel: Tensor, x: Tensor) -> Tensor:
        return function(x, kernel, None, *settings)

    def rescaled(factors: Tensor) -> Rule:
        kernel = weight * factors.view(-1, *[1] * (weight.dim() - 1))
        return _zero_padded(layer, kernel, None if bias is None else bias * factors, shape, padding)

    output = apply_with(weight, torch.zeros(1, *shape, dtype=torch.float64))
    offset = None if bias is None else bias.view(-1, *[1] * (len(shape) - 1)).expand(output.shape[1:])
    linear = LinearMap(lambda x: apply_with(weight, x), lambda x: apply_with(size, x), offset, rescaled=rescaled)

    def constant(p: float) -> float:
        def measure(kernel: Tensor) -> float:
            part = LinearMap(lambda x: apply_with(kernel, x), lambda x: apply_with(kernel.abs(), x))
            if p == 2 and math.prod(shape) * output.numel() <= DENSE:
                return matrix_norm(matrix_of(part, shape), 2)
            bound = norm_of(part, shape, p)
            return min(bound, _by_symbol(layer, kernel, shape)) if p == 2 else bound

        return scaled(measure, weight, _terms(layer, weight, shape, output))

    return Rule(constant, linear=linear)


def _terms(layer: Any, weight: Tensor, shape: Shape, output: Tensor) -> int:
    taps = weight[0].numel() + weight[:, 0].numel()
    sides = math.prod(layer.stride) * layer.in_channels + math.prod(_grid(layer, weight, shape))
    return taps + sides if math.prod(shape) * output.numel() > DENSE else taps + math.prod(shape) + output.numel()


def _grid(layer: Any, weight: Tensor, shape: Shape) -> tuple[int, ...]:
    """Return the size of a torus on which nothing wraps around: n + k - 1, up to a multiple of the stride."""
    sides = zip(shape[1:], weight.shape[2:], layer.dilation, layer.stride, strict=True)
    return tuple(-(-(n + d * (k - 1)) // s) * s for n, k, d, s in sides)


def _by_symbol(layer: Any, weight: Tensor, shape: Shape) -> float:
    """Return the norm of the same convolution on a torus, of which the zero-padded one is a part.

    On the torus it is a matrix for each frequency; a stride of s adds up the frequencies that look alike after it.
    Where that is too large to compute, the norms of all taps are added up instead.
    """
    grid, stride = _grid(layer, weight, shape), layer.stride
    if weight[:, :, 0].numel() * math.prod(grid) > SYMBOL:
        taps = weight.flatten(2).view(layer.groups, -1, weight.shape[1], math.prod(weight.shape[2:]))
        return float(torch.linalg.matrix_norm(taps.movedim(-1, 0), 2).amax(1).sum())
    kernel = weight.new_zeros(*weight.shape[:2], *grid)
    places = tuple(slice(0, d * k, d) for k, d in zip(weight.shape[2:], layer.dilation, strict=True))
    kernel[(slice(None), slice(None), *places)] = weight
    dimensions = range(2, weight.dim())
    split = itertools.chain.from_iterable((s, g // s) for g, s in zip(grid, stride, strict=True))
    symbol = torch.fft.fftn(kernel, dim=tuple(dimensions)).view(layer.groups, -1, weight.shape[1], *split)
    # (groups, outputs, inputs, s, g/s, t, h/t ...) -> (groups, g/s, h/t ..., outputs, inputs · s · t ...)
    alike = [3 + 2 * k for k in range(len(grid))]
    symbol = symbol.permute(0, *(k + 1 for k in alike), 1, 2, *alike).flatten(2 + len(grid))
    half = symbol[:, : grid[0] // stride[0] // 2 + 1]  # real weights: opposite frequencies have equal norms
    return float(torch.linalg.matrix_norm(half, 2).max()) / math.sqrt(math.prod(stride))


def transposed(layer: Any, shape: Shape) -> Rule:
    """Return the rule of ConvTranspose1d, 2d or 3d."""
    weight, bias = weight_of(layer), wide(layer.bias)
    if len(shape) != weight.dim() - 1:
        raise ValueError(f"it needs inputs of {weight.dim() - 1} dimensions; got {shape}")
    function, size = _TRANSPOSED[weight.dim() - 2], weight.abs()
    settings = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
    output = function(torch.zeros(1, *shape, dtype=torch.float64), weight, None, *settings)
    offset = None if bias is None else bias.view(-1, *[1] * (len(shape) - 1)).expand(output.shape[1:])
    linear = LinearMap(
        lambda x: function(x, weight, None, *settings), lambda x: function(x, size, None, *settings), offset
    )
    return Rule(lambda p: norm_of(linear, shape, p), linear=linear)
