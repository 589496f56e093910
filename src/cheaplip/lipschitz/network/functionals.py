"""Functions with weights among their arguments, such as ``F.linear``: each becomes the rule of its layer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from cheaplip.lipschitz.network import convolution, linear, whole
from cheaplip.lipschitz.network.rules import Rule, Shape


def linear_of(call: Any, arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
    """Return the rule of ``F.linear``."""
    weight = named.get("weight", arguments[0] if arguments else None)
    bias = named.get("bias", arguments[1] if len(arguments) > 1 else None)
    return linear.matrix_rule(_tensor(weight), linear.wide(bias), shape)


def matmul(call: Any, arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
    """Return the rule of ``x @ matrix``."""
    matrix = _tensor(arguments[0] if arguments else named.get("other", named.get("mat2")))
    if matrix.dim() != 2:
        raise ValueError(f"it needs a matrix; got a constant of shape {tuple(matrix.shape)}")
    return linear.matrix_rule(matrix.T, None, shape)


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.is_complex():
        raise ValueError(f"it needs a real tensor; got {type(value).__name__}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError("it must have finite real weights; got NaN or infinite ones")
    return value.detach().cpu().double()


def convolved(call: Any, arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
    """Return the rule of ``F.conv1d``, ``F.conv2d`` or ``F.conv3d``."""
    names = ("weight", "bias", "stride", "padding", "dilation", "groups")
    given = {**dict(zip(names, arguments, strict=False)), **named}
    weight = _tensor(given["weight"])
    dimensions = weight.dim() - 2

    def several(value: Any) -> Any:
        if isinstance(value, str):
            return value
        values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        return values if len(values) == dimensions else values * dimensions

    layer = SimpleNamespace(
        weight=weight, bias=given.get("bias"), padding_mode="zeros", groups=given.get("groups", 1),
        in_channels=shape[0] if shape else 0, stride=several(given.get("stride", 1)),
        padding=several(given.get("padding", 0)), dilation=several(given.get("dilation", 1)),
    )  # fmt: skip
    return convolution.convolution(layer, shape)


def batch_normed(call: Any, arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
    """Return the rule of ``F.batch_norm``."""
    names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = {"weight": None, "bias": None, "training": False, "eps": 1e-5}
    given |= {**dict(zip(names, arguments, strict=False)), **named}
    layer = SimpleNamespace(**given)
    return linear.batch_norm(layer, shape)


def layer_normed(call: Any, arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
    """Return the rule of ``F.layer_norm``."""
    names = ("normalized_shape", "weight", "bias", "eps")
    given = {"weight": None, "bias": None, "eps": 1e-5, **dict(zip(names, arguments, strict=False)), **named}
    layer = nn.LayerNorm(given["normalized_shape"], given["eps"], elementwise_affine=given["weight"] is not None)
    if given["weight"] is not None:
        layer.weight = nn.Parameter(_tensor(given["weight"]))
        if given["bias"] is not None:
            layer.bias = nn.Parameter(_tensor(given["bias"]))
    elif given["bias"] is not None:
        raise ValueError("a bias without a weight is not understood")
    return whole.layer_norm(layer, shape)


def soft(kind: Any) -> Any:
    """Return what makes the rule of ``F.softmax`` or ``F.log_softmax``."""

    def rule(call: Any, arguments: list[Any], named: dict[str, Any], shape: Shape) -> Rule:
        layer = SimpleNamespace(dim=named.get("dim", arguments[0] if arguments else None))
        made: Rule = kind(layer, shape)
        return made

    return rule
