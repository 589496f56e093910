"""Chains of plain layers with the way back written out: what autograd does beside it is felt in a small network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cheaplip.modes import Model

# The way back through a layer: from the gradient by its output, and what was kept on the way, that by its input.
Back: TypeAlias = "Callable[[Tensor, Any], Tensor]"


def _relu_back(gradient: Tensor, output: Tensor) -> Tensor:
    back: Tensor = torch.ops.aten.threshold_backward.default(gradient, output, 0)
    return back


# Units, and their derivatives by their own outputs: autograd's own kernels, so that the numbers are the same.
_UNITS: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Back]] = {
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

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
        >>> chain = chain_of(net)
        >>> with torch.no_grad():
        ...     output = chain(torch.zeros(4, 3))
        ...     chain.pull_back(output).shape
        torch.Size([4, 3])
    """

    def __init__(self, model: nn.Module, layers: tuple[Any, ...]) -> None:
        self.model, self._layers = model, layers
        self._back: list[tuple[Back, Any]] = []

    def __call__(self, points: Tensor) -> Tensor:
        """Return the outputs at ``points``."""
        back, x = self._back, points
        for layer in self._layers:
            kind = type(layer)
            if kind is nn.Linear:
                # Past nn.Module.__getattr__, which takes as long as a small kernel.
                weight: Any = layer._parameters["weight"]
                x = F.linear(x, weight, layer._parameters["bias"])
                back.append((torch.mm if x.dim() == 2 else torch.matmul, weight))
            elif kind is nn.Flatten:
                back.append((Tensor.view, x.shape))
                x = x.flatten(1)
            else:
                unit, derivative = _UNITS[kind]
                x = unit(x)
                back.append((derivative, x))
        return x

    def pull_back(self, cotangent: Tensor) -> Tensor:
        """Return the gradient by the points of what has the gradient ``cotangent`` by the outputs."""
        for back, kept in reversed(self._back):
            cotangent = back(cotangent, kept)
        return cotangent


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
            plain = kind in _UNITS
        if not plain or _is_changed(layer):
            return None
    return Chain(function, layers)


def _is_changed(layer: Any) -> bool:
    """Tell whether a module does more than its class says: by hooks, or a forward of its own."""
    own: dict[str, Any] = layer.__dict__
    return any(map(own.get, _CHANGES))
