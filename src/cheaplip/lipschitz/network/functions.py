"""What functions and methods inside a model do: each becomes the rule of a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cheaplip.lipschitz.network import activations, convolution, functionals, linear, whole
from cheaplip.lipschitz.network.rules import Rule, Shape
from cheaplip.lipschitz.network.running import SAMPLES
from cheaplip.lipschitz.system import Pieces

# By name, as a function, its in-place form and the method of that name do the same.
_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "relu": lambda inplace=False: nn.ReLU(),
    "relu6": lambda inplace=False: nn.ReLU6(),
    "leaky_relu": lambda negative_slope=0.01, inplace=False: nn.LeakyReLU(negative_slope),
    "hardtanh": lambda min_val=-1.0, max_val=1.0, inplace=False: nn.Hardtanh(min_val, max_val),
    "softshrink": nn.Softshrink,
    "hardsigmoid": lambda inplace=False: nn.Hardsigmoid(),
    "hardswish": lambda inplace=False: nn.Hardswish(),
    "elu": lambda alpha=1.0, inplace=False: nn.ELU(alpha),
    "celu": lambda alpha=1.0, inplace=False: nn.CELU(alpha),
    "selu": lambda inplace=False: nn.SELU(),
    "gelu": lambda approximate="none": nn.GELU(approximate),
    "silu": lambda inplace=False: nn.SiLU(),
    "mish": lambda inplace=False: nn.Mish(),
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softsign": nn.Softsign,
    "logsigmoid": nn.LogSigmoid,
    "log_sigmoid": nn.LogSigmoid,
    "tanhshrink": nn.Tanhshrink,
    **{
        f"max_pool{d}d": lambda kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False,
        return_indices=False, kind=kind: kind(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        for d, kind in ((1, nn.MaxPool1d), (2, nn.MaxPool2d), (3, nn.MaxPool3d))
    },
}  # fmt: skip
_MOVES = {
    "flatten", "reshape", "view", "permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "contiguous",
    "squeeze", "unsqueeze", "expand", "expand_as", "repeat", "repeat_interleave", "tile", "narrow", "select", "getitem",
    "clone", "unflatten", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "flip", "roll", "chunk", "split",
    "unbind", "tensor_split", "broadcast_to", "index_select", "view_as", "reshape_as", "adjoint", "detach",
    "pad",
}  # fmt: skip
_PLAIN = {"mean", "sum", *(f"{kind}avg_pool{d}d" for kind in ("", "adaptive_") for d in (1, 2, 3)), "cumsum"}
PRODUCTS = ("mul", "multiply", "imul", "truediv", "div", "divide", "itruediv")
_SAME = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}


def alone(
    name: str, arguments: list[Any], named: dict[str, Any], call: Callable[[Tensor], Any], shape: Shape
) -> Rule | None:
    """Return the rule of a function of one value of the network and of constants; None if it is not known.

    Args:
        name: of the function, in ``NAMES``.
        arguments: those behind the value.
        named: likewise, by name.
        call: the function of the value alone, the other arguments as they are.
        shape: of one sample of the value.
    """
    if name in _LAYERS:
        named = {key: value for key, value in named.items() if key not in ("input",)}
        return _of_layer(_LAYERS[name](*arguments, **named), shape)
    if name in _MOVES:
        return linear.moved(call, shape)
    if name in _PLAIN:
        return _plain(call, shape)
    if name in _SAME:
        return _dropped(arguments, named)
    special = _SPECIAL.get(name)
    return None if special is None else special(call, arguments, named, shape)


def _of_layer(layer: nn.Module, shape: Shape) -> Rule:
    if isinstance(layer, activations.PIECEWISE):
        return activations.piecewise(layer, shape)
    return whole.max_pool(layer, shape) if type(layer).__name__[:-2] == "MaxPool" else activations.smooth(layer, shape)


def _plain(call: Callable[[Tensor], Any], shape: Shape) -> Rule:
    """Return the rule of a sum or mean, after a look at whether it keeps samples apart."""
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    # One sample at a time is not zero.
    there = [call(drawn * one.view(-1, *[1] * len(shape))) for one in torch.eye(SAMPLES, dtype=torch.float64)]
    if any(isinstance(value, Tensor) and value.dtype != torch.float64 for value in there):
        raise ValueError("it sums up in another dtype, and rounding has no Lipschitz constant: leave out dtype")
    for k, value in enumerate(there):
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != SAMPLES:
            raise ValueError(linear.MIXES)
        others = [value[j] for j in range(SAMPLES) if j != k]
        if any(bool(other.any()) for other in others) or not torch.equal(value[k], there[0][0]):
            raise ValueError(linear.MIXES)
    return linear.plain(call, shape)


def _dropped(arguments: list[Any], named: dict[str, Any]) -> Rule:
    if named.get("training", arguments[1] if len(arguments) > 1 else True):
        raise ValueError("dropout that is always on makes the model random; pass training=self.training")
    return linear.unchanged(None, ())


def _scaled(call: Callable[[Tensor], Any], arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
    """Return the rule of a product with, or a quotient by, a constant."""
    if named.get("rounding_mode") is not None:
        raise ValueError("rounding is not continuous")
    factors = constant_of(call(torch.ones(SAMPLES, *shape, dtype=torch.float64)))
    if factors.shape != shape:
        spread = linear.moved(lambda x: x.expand(len(x), *factors.shape), shape)
        return convolution.chained(spread, _scaled(call, arguments, named, tuple(factors.shape)), shape)
    return linear.diagonal(factors, shape, exact=False)


def constant_of(value: Tensor) -> Tensor:
    """Return one sample of a value that must be the same for all samples."""
    if not bool(torch.isfinite(value).all()):
        raise ValueError("its constants must be finite")
    if value.dim() == 0 or len(value) != SAMPLES or not bool((value == value[0]).all()):
        raise ValueError("it does something else to every sample: keep the first dimension as it is")
    return value[0].detach().cpu().double()


def _clamp(call: Any, arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
    sides = call(torch.stack([torch.full(shape, side, dtype=torch.float64) for side in (-math.inf, math.inf)]))
    low, high = (float(side.flatten()[0]) for side in sides)
    if not bool((sides[0] == low).all() and (sides[1] == high).all()):
        raise ValueError("bounds must be numbers, not tensors")
    breaks = tuple(side for side in (low, high) if math.isfinite(side))
    return _pieces(call, breaks, (*[0.0] * math.isfinite(low), 1.0, *[0.0] * math.isfinite(high)), shape)


def _absolute(call: Any, arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
    return _pieces(call, (0.0,), (-1.0, 1.0), shape)


def _pieces(call: Any, breaks: tuple[float, ...], slopes: tuple[float, ...], shape: Shape) -> Rule:
    rows = (torch.tensor(row, dtype=torch.float64).expand(math.prod(shape), -1) for row in (breaks, slopes))
    return activations.pieces_rule(lambda z: call(z.clone()), Pieces(*rows), shape)  # it may work in place


def _interpolate(call: Any, arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
    mode = named.get("mode", arguments[2] if len(arguments) > 2 else "nearest")
    if mode in ("nearest", "nearest-exact"):
        return linear.moved(call, shape)
    if mode in ("linear", "bilinear", "trilinear", "area"):
        return _plain(call, shape)
    raise ValueError(f"mode {mode!r} may have negative factors and is not understood")


def _negated(call: Any, arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
    return linear.diagonal(-torch.ones(shape, dtype=torch.float64), shape)


_SPECIAL: dict[str, Callable[..., Rule]] = {
    "linear": functionals.linear_of,
    **dict.fromkeys(("matmul", "mm"), functionals.matmul),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), functionals.convolved),
    "batch_norm": functionals.batch_normed,
    "layer_norm": functionals.layer_normed,
    "softmax": functionals.soft(whole.softmax),
    "log_softmax": functionals.soft(whole.log_softmax),
    **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), _clamp),
    **dict.fromkeys(("abs", "absolute"), _absolute),
    "interpolate": _interpolate,
    **dict.fromkeys(("neg", "negative"), _negated),
    **dict.fromkeys(PRODUCTS, _scaled),
}
NAMES = {*_LAYERS, *_MOVES, *_PLAIN, *_SAME, *_SPECIAL}
