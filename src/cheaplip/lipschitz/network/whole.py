"""Rules of layers that are neither linear nor work unit by unit: pooling by the maximum, normalisation, softmax."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cheaplip.lipschitz.network.linear import outward
from cheaplip.lipschitz.network.rules import Rule, Shape


def _several(value: Any, dimensions: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values if len(values) == dimensions else values * dimensions


def _check_dimensions(layer: Any, shape: Shape, *, channels: bool) -> int:
    """Return the dimensions in a layer's name; without channels torch takes the samples for them, which pooling may."""
    dimensions = int(type(layer).__name__[-2])
    if len(shape) != dimensions + 1 and (channels or len(shape) != dimensions):
        raise ValueError(f"it needs inputs of {dimensions + 1} dimensions; got {shape}")
    return dimensions


def _check_end(layer: Any, shape: Shape) -> None:
    wanted = tuple(layer.normalized_shape)
    if not wanted or shape[-len(wanted) :] != wanted:
        raise ValueError(f"it normalises {wanted}, which must be the last dimensions of a sample; got {shape}")


def max_pool(layer: Any, shape: Shape) -> Rule:
    """Return the rule of pooling by the maximum: a number counts as often as there are windows over it, at most.

    Every output is 1-Lipschitz in the largest difference within its window; summed over the windows, each number is
    counted once for each window that holds it.
    """
    if layer.return_indices:
        raise ValueError("return_indices=True gives two tensors")
    dimensions = _check_dimensions(layer, shape, channels=False)
    sizes = (layer.kernel_size, layer.stride or layer.kernel_size, layer.dilation)
    kernel, stride, dilation = (_several(value, dimensions) for value in sizes)
    # Windows over one number start at distances that are multiples of the stride and of the dilation.
    windows = math.prod(-(-k // (s // math.gcd(s, d))) for k, s, d in zip(kernel, stride, dilation, strict=True))
    if not bool(torch.isfinite(layer(torch.zeros(1, *shape, dtype=torch.float64))).all()):
        raise ValueError("a window lies in the padding alone, where the largest number is minus infinity")
    return _counted(windows, layer)


def adaptive_max_pool(layer: Any, shape: Shape) -> Rule:
    """Return the rule of AdaptiveMaxPool, whose windows may overlap."""
    if layer.return_indices:
        raise ValueError("return_indices=True gives two tensors")
    dimensions = _check_dimensions(layer, shape, channels=False)
    windows = 1
    for size, wanted in zip(shape[-dimensions:], _several(layer.output_size, dimensions), strict=True):
        count = size if wanted is None else wanted
        covered = [0] * size
        for k in range(count):
            for place in range(k * size // count, -(-(k + 1) * size // count)):
                covered[place] += 1
        windows *= max(covered)
    return _counted(windows, layer)


def _counted(windows: int, function: Callable[[Tensor], Tensor]) -> Rule:
    sizes = {1.0: float(windows), 2.0: outward(math.sqrt(windows), 1) if windows > 1 else 1.0}
    return Rule(lambda p: sizes.get(p, 1.0), function=function, rises=True)


def layer_norm(layer: Any, shape: Shape) -> Rule:
    """Return the rule of LayerNorm.

    With s² the variance plus eps and x̂ the normalised vector of n numbers, its Jacobian before the weights is
    ``(I - 1 1ᵀ/n - x̂ x̂ᵀ/n) / s``. As ``‖x̂‖² <= n`` and x̂ is orthogonal to 1, this is between 0 and I/s, and
    ``s >= √eps``.
    """
    _check_end(layer, shape)
    return _normalised(layer, math.prod(layer.normalized_shape), float(layer.eps), layer.weight)


def rms_norm(layer: Any, shape: Shape) -> Rule:
    """Return the rule of RMSNorm; its Jacobian is ``(I - x̂ x̂ᵀ/n) / s``, as for :func:`layer_norm`."""
    _check_end(layer, shape)
    if layer.eps is None:
        raise ValueError("with eps=None it takes another eps for every dtype: give it a number, such as eps=1e-6")
    return _normalised(layer, math.prod(layer.normalized_shape), float(layer.eps), layer.weight)


def group_norm(layer: nn.GroupNorm, shape: Shape) -> Rule:
    """Return the rule of GroupNorm: as :func:`layer_norm`, group by group."""
    return _normalised(layer, math.prod(shape) // layer.num_groups, float(layer.eps), layer.weight)


def instance_norm(layer: Any, shape: Shape) -> Rule:
    """Return the rule of InstanceNorm without running statistics: as :func:`layer_norm`, channel by channel."""
    if layer.track_running_stats:
        raise ValueError("InstanceNorm with running statistics is not understood")
    _check_dimensions(layer, shape, channels=True)
    return _normalised(layer, math.prod(shape[1:]), float(layer.eps), layer.weight)


def _normalised(layer: Any, numbers: int, eps: float, weight: Tensor | None) -> Rule:
    if not eps > 0:
        raise ValueError(f"with eps = {eps} it has no Lipschitz constant: it needs eps above 0")
    top = 1.0 if weight is None else float(weight.detach().abs().double().max())
    euclidean = outward(top / math.sqrt(eps), 8)
    # ‖J‖_p <= √n ‖J‖_2 for p = 1 and inf on vectors of n numbers.
    other = outward(euclidean * math.sqrt(numbers), 8)
    return Rule(lambda p: euclidean if p == 2 else other, function=copy.deepcopy(layer).cpu().double().eval())


def softmax(layer: Any, shape: Shape) -> Rule:
    """Return the rule of Softmax: its Jacobian ``diag(s) - s sᵀ`` has absolute row sums ``2 s (1 - s) <= 1/2``."""
    _inside_the_sample(layer.dim, shape)
    dim = layer.dim
    return Rule(lambda p: 0.5, function=lambda x: F.softmax(x, dim))


def log_softmax(layer: Any, shape: Shape) -> Rule:
    """Return the rule of LogSoftmax, by the norms of its Jacobian ``I - 1 sᵀ`` at the corners of the simplex.

    A norm is convex in s, so that it is largest at a corner; there the matrix is an oblique projection of norm √n.
    """
    _inside_the_sample(layer.dim, shape)
    dim = layer.dim
    n = shape[dim - 1] if dim > 0 else shape[dim]
    sizes = {1.0: float(max(1, n - 1)), 2.0: outward(math.sqrt(n), 1)}
    return Rule(lambda p: sizes.get(p, 2.0), function=lambda x: F.log_softmax(x, dim))


def softmax2d(layer: Any, shape: Shape) -> Rule:
    """Return the rule of Softmax2d, a softmax over channels."""
    if len(shape) != 3:
        raise ValueError(f"it needs inputs of 3 dimensions; got {shape}")
    return Rule(lambda p: 0.5, function=lambda x: F.softmax(x, 1))


def _inside_the_sample(dim: int | None, shape: Shape) -> None:
    if dim is None or dim == 0 or not -len(shape) <= dim <= len(shape):
        raise ValueError(f"dim must be one of the sample's, 1 to {len(shape)} or -1; got {dim}")
