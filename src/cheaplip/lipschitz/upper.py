"""Upper bounds on Lip(f): the product of the layers' constants, and the interval between a lower and an upper bound."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_torch
from torch.nn.utils.parametrize import type_before_parametrizations

from cheaplip.lipschitz.bound import Bound, Interval
from cheaplip.lipschitz.layers import CONSTANTS, Shape
from cheaplip.lipschitz.lower import lower
from cheaplip.modes import Model, evaluating, unwrap
from cheaplip.norms import Norm, check_norm

# How far a measured quotient may lie above the proven bound by rounding alone.
CROSSED = 1e-6


def upper(model: Model, x: Tensor, *, p: Norm = 2) -> Bound:
    """Bound the Lipschitz constant from above by the product of the layers' constants, each proven.

    The bound holds in all space for the network in eval mode, in exact arithmetic with the weights as they are; it is
    computed in float64 and rounded outward.

    Args:
        model: an ``nn.Sequential``, nested as you like, of ``Linear``, ``Conv2d`` (zero padding), ``BatchNorm``,
            ``MaxPool2d``, elementwise and shape layers, ``Dropout`` and ``Softmax``; or one of these. Parametrized
            weights are read as they are in eval mode.
        x: inputs ``(n, *input)``; only their shape counts.
        p: the norm of inputs and outputs: 1, 2 or inf.

    Returns:
        The bound, proven and for all space.

    Raises:
        TypeError: naming the module that is not understood, such as one with a forward of its own or with hooks.
        ValueError: naming the module that does not take its input, whose weights are not finite, or that is
            understood only with other settings; for another norm.

    Reference: Bungert et al. 2021, equation 4.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
        >>> _ = nn.init.eye_(net[0].weight)
        >>> bound = upper(net, torch.zeros(1, 2))
        >>> round(bound.value, 9), bound.method, bound.proven
        (0.25, 'layer product', True)
    """
    p = check_norm(p)
    if callable(p):
        raise ValueError("p must be 1, 2 or inf for an upper bound; got a callable")
    shape = _shape_of(x)
    inner = _module_of(model)
    value = 1.0
    with torch.no_grad(), evaluating(inner):
        for name, layer in _chain(inner, ""):
            constant, shape = _read(name, layer, shape, p)
            value = _times(value, constant)
    return Bound(value, "layer product", proven=True, domain="all")


def bounds(model: Model, x: Tensor, *, p: Norm = 2, seed: int = 0) -> Interval:
    """Enclose the Lipschitz constant between a witnessed lower and a proven upper bound.

    Args:
        model: as in :func:`upper`.
        x: data to start the search for the lower bound from, ``(n, *input)``, floating, finite.
        p: the norm of inputs and outputs: 1, 2 or inf.
        seed: of the search.

    Raises:
        TypeError: naming the module that is not understood.
        ValueError: as in :func:`upper`, or if ``x`` is not finite, or if rounding inside the model puts the one above
            the other.

    Reference: Bungert et al. 2021, equations 3 to 5.

    Example:
        >>> net = nn.Linear(2, 2, bias=False)
        >>> net.weight.data = 3 * torch.eye(2)
        >>> interval = bounds(net, torch.rand(10, 2))
        >>> round(interval.lower, 3), round(interval.upper, 3)
        (3.0, 3.0)
    """
    above = upper(model, x, p=p)
    below = lower(model, x, p_in=p, p_out=p, seed=seed)
    if below.witness is None:
        raise ValueError("the search for a lower bound found no pair")
    if below.value > above.value * (1 + CROSSED):
        raise ValueError(
            f"the pair that was found has the quotient {below.value:.6g}, above the proven {above.value:.6g}: the "
            "model loses its digits inside, even in float64; scale its weights, or use upper(...) alone"
        )
    value = min(below.value, above.value)  # a linear map attains its bound, up to rounding
    return Interval(value, above.value, below.witness, f"{below.method}; {above.method}")


def _shape_of(x: Tensor) -> Shape:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor (n, *input), for its shape; got {type(x).__name__}")
    if x.dim() < 2 or not math.prod(x.shape[1:]):
        raise ValueError(f"x must hold samples, shape (n, *input); got {tuple(x.shape)}")
    return tuple(x.shape[1:])


def _module_of(model: Model) -> nn.Module:
    inner = unwrap(model)
    inner = getattr(inner, "_orig_mod", inner)  # behind torch.compile
    if not isinstance(inner, nn.Module):
        raise TypeError(
            f"an upper bound needs a torch.nn.Module whose layers can be read; got {type(inner).__name__}: "
            "lower(...) takes any function"
        )
    if of_torch._global_forward_hooks or of_torch._global_forward_pre_hooks:
        raise TypeError("global forward hooks are set, which may change any layer's output: remove them")
    return inner


def _chain(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers, with their dotted names, in the order in which they are called."""
    kind = type_before_parametrizations(module)
    called = _called(name, module)
    if module._forward_hooks or module._forward_pre_hooks:
        raise TypeError(
            f"{called} has forward hooks, which may change its output: remove them; "
            "weight_norm and spectral_norm of torch.nn.utils.parametrizations do without"
        )
    own = [entry for entry in vars(module) if callable(getattr(type(module), entry, None))]
    if own:
        raise TypeError(f"{called} has its own {', '.join(own)}: the bound knows torch's alone")
    if kind is nn.Sequential:
        for key, child in module._modules.items():  # named_children() would leave out a layer's second call
            if child is not None:
                yield from _chain(child, f"{name}.{key}" if name else key)
    elif kind in CONSTANTS:
        yield name, module
    else:
        raise TypeError(
            f"{called} is not understood: an upper bound needs nn.Sequential of "
            f"{', '.join(known.__name__ for known in CONSTANTS)}; lower(...) takes any model"
        )


def _read(name: str, layer: nn.Module, shape: Shape, p: float) -> tuple[float, Shape]:
    """Return the constant of a layer and the shape of its outputs."""
    kind = type_before_parametrizations(layer)
    called = _called(name, layer)
    tensors = [*layer.parameters(), *layer.buffers(), *_weight_of(layer)]
    for tensor in tensors:
        if tensor.is_complex() or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{called} must have finite real weights; got NaN, infinite or complex ones")
    like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.zeros(()))
    try:
        constant = CONSTANTS[kind](layer, shape, p)
        output = layer(torch.zeros(2, *shape, dtype=like.dtype, device=like.device))
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{called}, given inputs of shape {shape}: {reason}") from error
    if len(output) != 2:
        raise ValueError(f"{called}, given inputs of shape {shape}, mixes samples: keep the first dimension")
    if not 0 <= constant < math.inf:
        raise ValueError(f"{called} must have a finite Lipschitz constant; got {constant}: check its settings")
    return constant, tuple(output.shape[1:])


def _weight_of(layer: nn.Module) -> list[Tensor]:
    """Return what a parametrization makes of the weight, which no parameter holds."""
    weight = getattr(layer, "weight", None)
    return [weight] if isinstance(weight, Tensor) else []


def _called(name: str, module: nn.Module) -> str:
    kind = type_before_parametrizations(module).__name__
    return f"module {name!r} ({kind})" if name else f"the model ({kind})"


def _times(value: float, constant: float) -> float:
    """Multiply and round up; a product that leaves the range of floats becomes its end, never zero or NaN."""
    if value == 0 or constant == 0:
        return 0.0
    if constant == 1:
        return value
    return max(math.nextafter(value * constant, math.inf), sys.float_info.min)
