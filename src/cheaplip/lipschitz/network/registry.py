"""Which layers are understood: a table from the type of a module to its rule, open to users."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import nn

from cheaplip.lipschitz.network import activations, convolution, linear, whole
from cheaplip.lipschitz.network.rules import Rule, Shape

RuleOf: TypeAlias = "Callable[[Any, Shape], Rule]"
# Of a layer in eval mode, the shape of one of its inputs, and p = 1, 2 or inf.
Constant: TypeAlias = "Callable[[Any, Shape, float], float]"

# Exact types: a subclass may do anything in its forward.
RULES: dict[type[nn.Module], RuleOf] = {
    nn.Linear: linear.dense,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution.convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), convolution.transposed),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), linear.batch_norm),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), linear.plain),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), linear.plain),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), whole.max_pool),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), whole.adaptive_max_pool),
    **dict.fromkeys(activations.PIECEWISE, activations.piecewise),
    **dict.fromkeys(activations.SMOOTH, activations.smooth),
    nn.PReLU: activations.prelu,
    nn.LayerNorm: whole.layer_norm,
    nn.GroupNorm: whole.group_norm,
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), whole.instance_norm),
    nn.Softmax: whole.softmax,
    nn.Softmax2d: whole.softmax2d,
    nn.LogSoftmax: whole.log_softmax,
    nn.Identity: linear.unchanged,
    **dict.fromkeys(
        (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
        linear.unchanged,
    ),
    **dict.fromkeys((nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle), linear.moving),
    **dict.fromkeys((nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d), linear.moving),
    **dict.fromkeys((nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d), linear.moving),
    **dict.fromkeys((nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d), linear.moving),
    **dict.fromkeys((nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d), linear.moving),
    **dict.fromkeys((nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d), linear.moving),
    nn.UpsamplingNearest2d: linear.moving,
}
if hasattr(nn, "RMSNorm"):  # since torch 2.4
    RULES[nn.RMSNorm] = whole.rms_norm
# Whose rules are ours, and hold for torch's own forward.
OURS = set(RULES)


def register(kind: type[nn.Module]) -> Callable[[Constant], Constant]:
    """Tell upper bounds the Lipschitz constant of a layer of your own.

    The function below it is called with a layer in eval mode, the shape of one of its inputs, without the first
    dimension, and p = 1, 2 or inf. It returns a number that the layer's Lipschitz constant from the p-norm to the
    p-norm does not pass; the bound is as true as this number. A type that is known already is replaced.

    Args:
        kind: the type of the module; subclasses of it need a registration of their own.

    Raises:
        TypeError: if ``kind`` is no type of module.

    Example:
        >>> import torch
        >>> class Halved(nn.Module):
        ...     def forward(self, x):
        ...         return torch.sin(x) / 2
        >>> @register(Halved)
        ... def halved(layer, shape, p):
        ...     return 0.5
        >>> from cheaplip.lipschitz import upper
        >>> round(upper(nn.Sequential(Halved(), Halved()), torch.zeros(1, 3)).value, 9)
        0.25
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise TypeError(f"register takes a type of torch.nn.Module, such as MyLayer; got {kind!r}")

    def remember(constant: Constant) -> Constant:
        def rule(layer: Any, shape: Shape) -> Rule:
            return Rule(lambda p: _checked(constant(layer, shape, p)), function=None)

        RULES[kind] = rule
        OURS.discard(kind)
        return constant

    return remember


def _checked(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"the registered constant must be a finite number of at least 0; got {value!r}")
    return number
