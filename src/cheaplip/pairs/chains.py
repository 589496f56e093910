"""Chains of plain layers with the way back written out: what autograd does beside it is felt in a small network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cheaplip.modes import Model

# A unit, and the way back through it: from the gradient by its output, and that output, the gradient by its input.
Unit: TypeAlias = "tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]"


def _relu_back(gradient: Tensor, output: Tensor) -> Tensor:
    back: Tensor = torch.ops.aten.threshold_backward.default(gradient, output, 0)
    return back


# The derivatives by autograd's own kernels, so that the numbers are the same.
UNITS: dict[type[nn.Module], Unit] = {
    nn.ReLU: (torch.relu, _relu_back),
    nn.Sigmoid: (torch.sigmoid, torch.ops.aten.sigmoid_backward.default),
    nn.Tanh: (torch.tanh, torch.ops.aten.tanh_backward.default),
}


_CHANGES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "forward")


@final
class Chain:
    """Linear layers and units one after the other: called without a graph, it keeps what the way back needs.

    Args:
        model: what it is a chain of.
        layers: those of the model, as :func:`chain_of` lets them through.
        ahead: samples that go forward ahead of the points of each call, in one batch with them; None for none.

    Attributes:
        kept: of each layer at the last call, what the way back through it needs: a unit's output, else the input.
        outputs: of the last call, those of ``ahead`` first.
        cotangent: what was pulled back last.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
        >>> chain = chain_of(net)
        >>> with torch.no_grad():
        ...     output = chain(torch.zeros(4, 3))
        ...     chain.pull_back(output).shape
        torch.Size([4, 3])
    """

    def __init__(self, model: nn.Module, layers: tuple[Any, ...], ahead: Tensor | None = None) -> None:
        self.model, self.layers, self.ahead = model, layers, ahead
        self.first = 0 if ahead is None else ahead.shape[0]
        self.kept: list[Tensor] = []
        self.outputs = self.cotangent = torch.empty(0)

    def behind(self, x: Tensor) -> Chain:
        """Return the chain at points that stand behind the samples ``x``."""
        return Chain(self.model, self.layers, x)

    def __call__(self, points: Tensor) -> Tensor:
        """Return the outputs at ``points``."""
        kept, x = self.kept, points if self.ahead is None else torch.cat((self.ahead, points))
        kept.clear()
        for layer in self.layers:
            unit = UNITS.get(type(layer))
            if unit is not None:
                x = unit[0](x)
                kept.append(x)
                continue
            kept.append(x)
            if type(layer) is nn.Linear:
                # Past nn.Module.__getattr__, which takes as long as a small kernel.
                parameters: dict[str, Any] = layer._parameters
                x = F.linear(x, parameters["weight"], parameters["bias"])
            else:
                x = x.flatten(1)
        self.outputs = x
        return x[self.first :] if self.first else x

    def pull_back(self, cotangent: Tensor) -> Tensor:
        """Return the gradient by the points of what has the gradient ``cotangent`` by the outputs."""
        first, gradient = self.first, cotangent
        self.cotangent = cotangent
        for layer, kept in zip(reversed(self.layers), reversed(self.kept), strict=True):
            unit = UNITS.get(type(layer))
            if unit is not None:
                gradient = unit[1](gradient, kept[first:] if first else kept)
            elif type(layer) is nn.Linear:
                weight: Any = layer._parameters["weight"]
                gradient = torch.mm(gradient, weight) if gradient.dim() == 2 else torch.matmul(gradient, weight)
            else:
                gradient = gradient.view(-1, *kept.shape[1:])
        return gradient


def chain_of(function: Model) -> Chain | None:
    """Return the chain that a model is as it stands, or None if it is anything else.

    It is one if it is a ``Sequential`` of ``Flatten``, ``Linear``, ``ReLU``, ``Sigmoid`` and ``Tanh``, themselves and
    not classes derived of them, without hooks and with plain parameters.

    Example:
        >>> chain_of(nn.Sequential(nn.Linear(3, 2), nn.Dropout())) is None
        True
    """
    if type(function) is not nn.Sequential or _is_changed(function) or _has_any_global_hook():  # type: ignore[no-untyped-call]
        return None
    layers: tuple[Any, ...] = tuple(function._modules.values())
    for layer in layers:
        kind = type(layer)
        if kind is nn.Linear:
            plain = type(layer._parameters.get("weight")) is nn.Parameter
        elif kind is nn.Flatten:
            plain = layer.start_dim == 1 and layer.end_dim == -1
        else:
            plain = kind in UNITS
        if not plain or _is_changed(layer):
            return None
    return Chain(function, layers)


def _is_changed(layer: Any) -> bool:
    """Tell whether a module does more than its class says: by hooks, or a forward of its own."""
    own: dict[str, Any] = layer.__dict__
    return any(map(own.get, _CHANGES))
