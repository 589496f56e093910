"""Chains of plain layers with the way back written out: what autograd does beside it is felt in a small network."""

from __future__ import annotations

from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cheaplip.modes import Model
from cheaplip.pairs.layers import FORWARD, PLAIN, Plain, Tensors

# A layer: its kind, itself, and its parameters: None for a bias that it has not.
Layer: TypeAlias = "tuple[Plain, Any, tuple[Any, ...]]"

_CHANGES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "forward")


def through(layers: tuple[Layer, ...], x: Tensor, kept: list[Tensors]) -> Tensor:
    """Return the outputs of layers at ``x``, and put what the ways back need of each into ``kept``; for no graph."""
    fresh = False
    for kind, layer, parameters in layers:
        if fresh and kind.over is not None:
            x = kind.over(x)
            kept.append((x,))
        else:
            x, needed = kind.forward(layer, parameters, x)
            kept.append(needed)
        fresh = kind.fresh
    return x


@final
class Chain:
    """Plain layers one after the other: called without a graph, it keeps what the way back needs.

    Args:
        model: what it is a chain of.
        layers: those of the model, as :func:`chain_of` lets them through.
        ahead: samples that go forward ahead of the points of each call, in one batch with them; None for none.

    Attributes:
        kept: of each layer at the last call, what the ways back through it need.
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

    outputs: Tensor
    cotangent: Tensor

    def __init__(self, model: nn.Module, layers: tuple[Layer, ...], ahead: Tensor | None = None) -> None:
        self.model, self.layers, self.ahead = model, layers, ahead
        self.first = 0 if ahead is None else ahead.shape[0]
        self.kept: list[Tensors] = []

    def behind(self, x: Tensor) -> Chain:
        """Return the chain at points that stand behind the samples ``x``."""
        return Chain(self.model, self.layers, x)

    def __call__(self, points: Tensor) -> Tensor:
        """Return the outputs at ``points``."""
        self.kept.clear()
        self.outputs = through(
            self.layers, points if self.ahead is None else torch.cat((self.ahead, points)), self.kept
        )
        return self.outputs[self.first :] if self.first else self.outputs

    def pull_back(self, cotangent: Tensor) -> Tensor:
        """Return the gradient by the points of what has the gradient ``cotangent`` by the outputs."""
        self.cotangent = gradient = cotangent
        fresh = False
        for (kind, layer, parameters), kept in zip(reversed(self.layers), reversed(self.kept), strict=True):
            if fresh and kind.back_over is not None:
                gradient = kind.back_over(kept, self.first, gradient)
            else:
                gradient = kind.back(layer, parameters, kept, self.first, gradient)
            fresh = kind.fresh
        return gradient


def chain_of(function: Model) -> Chain | None:
    """Return the chain that a model is as it stands, or None if it is anything else.

    It is one if it is a ``Sequential`` of ``Linear``, ``Conv2d``, ``MaxPool2d``, ``Flatten``, ``ReLU``, ``Sigmoid`` and
    ``Tanh``, themselves and not classes derived of them, without hooks and with plain parameters.

    Example:
        >>> chain_of(nn.Sequential(nn.Linear(3, 2), nn.Dropout())) is None
        True
    """
    if type(function) is not nn.Sequential or _is_changed(function) or _has_any_global_hook():  # type: ignore[no-untyped-call]
        return None
    layers: list[Layer] = []
    for layer in function._modules.values():
        kind = PLAIN.get(type(layer))
        if kind is None or _is_changed(layer) or not (kind.fits is None or kind.fits(layer)):
            return None
        # Past nn.Module.__getattr__, which takes as long as a small kernel.
        named: dict[str, Any] = layer.__dict__["_parameters"]
        parameters = tuple(named.values())
        if tuple(named) != kind.names or not all(map(_is_plain, parameters)):
            return None
        layers.append((kind, layer, parameters))
    return Chain(function, tuple(layers))


def _is_plain(parameter: Any) -> bool:
    """Tell whether this is a parameter like any other, or the bias of a layer without one."""
    return parameter is None or type(parameter) is nn.Parameter


def _is_changed(layer: Any) -> bool:
    """Tell whether a module does not what its class does: by hooks, or another forward of its own or of its class."""
    kind, own = type(layer), layer.__dict__
    return kind.forward is not FORWARD[kind] or any(map(own.get, _CHANGES))
