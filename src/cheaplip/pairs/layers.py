"""Plain layers: the ways forward and back through them, written out by the kernels that autograd itself calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tensors: TypeAlias = "tuple[Any, ...]"
aten = torch.ops.aten


@final
class Plain(NamedTuple):
    """A kind of layer.

    Attributes:
        forward: ``(layer, parameters, x) -> (output, kept)``, kept being what the ways back need, sample by sample.
        back: ``(layer, parameters, kept, first, gradient) -> gradient``, from that by the outputs of the samples from
            the ``first`` on to that by their inputs.
        slopes: ``(layer, parameters, kept, gradient, wanted) -> gradients`` by the parameters, or None.
        fits: whether this holds for a layer as it is set.
        over: ``x -> output``, the way forward where ``x`` may be overwritten, if that is known; the output is kept.
        back_over: ``(kept, first, gradient) -> gradient``, likewise, where the gradient may be overwritten.
        fresh: whether outputs, and gradients on the way back, are new tensors that nothing else needs.
        names: of the parameters, in their order.
    """

    forward: Callable[[Any, Tensors, Tensor], tuple[Tensor, Tensors]]
    back: Callable[[Any, Tensors, Tensors, int, Tensor], Tensor]
    slopes: Callable[[Any, Tensors, Tensors, Tensor, tuple[bool, ...]], Tensors] | None = None
    fits: Callable[[Any], bool] | None = None
    over: Callable[[Tensor], Tensor] | None = None
    back_over: Callable[[Tensors, int, Tensor], Tensor] | None = None
    fresh: bool = False
    names: tuple[str, ...] = ()


def _unit(function: Callable[[Tensor], Tensor], over: Callable[[Tensor], Tensor], derivative: Any, *more: Any) -> Plain:
    """Return a kind of unit by its function, also in place, and its derivative, ``(gradient, output, *more)``."""

    def forward(layer: nn.Module, parameters: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
        output = function(x)
        return output, (output,)

    def back(layer: nn.Module, parameters: Tensors, kept: Tensors, first: int, gradient: Tensor) -> Tensor:
        found: Tensor = derivative.default(gradient, kept[0][first:] if first else kept[0], *more)
        return found

    def back_over(kept: Tensors, first: int, gradient: Tensor) -> Tensor:
        found: Tensor = derivative.grad_input(
            gradient, kept[0][first:] if first else kept[0], *more, grad_input=gradient
        )
        return found

    return Plain(forward, back, over=over, back_over=back_over)


def _linear(layer: nn.Linear, parameters: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
    return F.linear(x, *parameters), (x,)


def _linear_back(layer: nn.Linear, parameters: Tensors, kept: Tensors, first: int, gradient: Tensor) -> Tensor:
    return torch.mm(gradient, parameters[0]) if gradient.dim() == 2 else torch.matmul(gradient, parameters[0])


def _linear_slopes(
    layer: nn.Linear, parameters: Tensors, kept: Tensors, gradient: Tensor, wanted: tuple[bool, ...]
) -> Tensors:
    x = kept[0]
    if x.dim() != 2:
        x, gradient = x.flatten(0, -2), gradient.flatten(0, -2)
    by_weight = torch.mm(gradient.t(), x) if wanted[0] else None
    if len(wanted) == 1:
        return (by_weight,)
    return by_weight, gradient.sum(0) if wanted[1] else None


def _flat(layer: nn.Flatten, parameters: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
    return x.flatten(1), (x,)


def _flat_back(layer: nn.Flatten, parameters: Tensors, kept: Tensors, first: int, gradient: Tensor) -> Tensor:
    return gradient.view(-1, *kept[0].shape[1:])


def _convolved(layer: nn.Conv2d, parameters: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
    settings: Any = layer.stride, layer.padding, layer.dilation, layer.groups
    return F.conv2d(x, *parameters, *settings), (x,)


def _convolution(
    layer: nn.Conv2d, parameters: Tensors, x: Tensor, gradient: Tensor, wanted: tuple[bool, ...]
) -> Tensors:
    weight = parameters[0]
    settings = layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups
    found: Tensors = aten.convolution_backward.default(gradient, x, weight, (weight.shape[0],), *settings, wanted)
    return found


def _convolved_back(layer: nn.Conv2d, parameters: Tensors, kept: Tensors, first: int, gradient: Tensor) -> Tensor:
    by_input: Tensor = _convolution(layer, parameters, kept[0][first:], gradient, (True, False, False))[0]
    return by_input


def _convolved_slopes(
    layer: nn.Conv2d, parameters: Tensors, kept: Tensors, gradient: Tensor, wanted: tuple[bool, ...]
) -> Tensors:
    asked = (False, wanted[0], wanted[-1] and len(wanted) == 2)
    return _convolution(layer, parameters, kept[0], gradient, asked)[1 : 1 + len(wanted)]


def _pooled(layer: nn.MaxPool2d, parameters: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
    output, indices = aten.max_pool2d_with_indices.default(x, *_window(layer))
    return output, (x, indices)


def _pooled_back(layer: nn.MaxPool2d, parameters: Tensors, kept: Tensors, first: int, gradient: Tensor) -> Tensor:
    x, indices = (tensor[first:] for tensor in kept)
    back: Tensor = aten.max_pool2d_with_indices_backward.default(gradient, x, *_window(layer), indices)
    return back


def _window(layer: nn.MaxPool2d) -> tuple[Any, ...]:
    sizes = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    return (*((size, size) if isinstance(size, int) else size for size in sizes), layer.ceil_mode)


PLAIN: dict[type[nn.Module], Plain] = {
    nn.Linear: Plain(_linear, _linear_back, _linear_slopes, fresh=True, names=("weight", "bias")),
    nn.Flatten: Plain(_flat, _flat_back, fits=lambda layer: layer.start_dim == 1 and layer.end_dim == -1),
    nn.ReLU: _unit(torch.relu, torch.relu_, aten.threshold_backward, 0),
    nn.Sigmoid: _unit(torch.sigmoid, torch.sigmoid_, aten.sigmoid_backward),
    nn.Tanh: _unit(torch.tanh, torch.tanh_, aten.tanh_backward),
    nn.Conv2d: Plain(
        _convolved,
        _convolved_back,
        _convolved_slopes,
        fits=lambda layer: layer.padding_mode == "zeros" and not isinstance(layer.padding, str),
        fresh=True,
        names=("weight", "bias"),
    ),
    nn.MaxPool2d: Plain(_pooled, _pooled_back, fits=lambda layer: not layer.return_indices, fresh=True),
}
# A class of torch may be patched as a whole; what is written out here is its own way forward.
FORWARD: dict[type[nn.Module], Any] = {kind: vars(kind)["forward"] for kind in (*PLAIN, nn.Sequential)}
