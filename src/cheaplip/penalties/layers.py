"""λ C_σ Π ‖W_l‖: the product of the layers' Lipschitz constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from cheaplip.checks import whole_number
from cheaplip.modes import Model, evaluating, unwrap
from cheaplip.pairs.starts import check_points
from cheaplip.penalties.weighing import assign, check_power, check_weight

# Lipschitz constants of elementwise and shape layers. Dropout and BatchNorm are taken as in eval mode.
_CONSTANTS: dict[type[nn.Module], float] = {
    nn.Identity: 1.0, nn.Flatten: 1.0, nn.Unflatten: 1.0, nn.Dropout: 1.0, nn.Dropout1d: 1.0, nn.Dropout2d: 1.0,
    nn.ReLU: 1.0, nn.ReLU6: 1.0, nn.LeakyReLU: 1.0, nn.Softplus: 1.0, nn.Tanh: 1.0, nn.Hardtanh: 1.0,
    nn.Sigmoid: 0.25, nn.Softsign: 1.0, nn.ELU: 1.0, nn.GELU: 1.1290, nn.SiLU: 1.0999, nn.Softmax: 1.0,
    nn.LogSigmoid: 1.0,
}  # fmt: skip
_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MAX_POOL = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE_POOL = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


@final
class LayerProductPenalty(nn.Module):
    """λ times an estimate of C_σ Π ‖W_l‖, for models that are a chain of layers.

    Spectral norms come from power iteration, one step a call, whose vectors are kept between calls: an estimate
    from below of each norm, so the product is no proven bound. The model's layers must follow each other; what
    the product does not understand raises.

    Args:
        model: an ``nn.Sequential`` (nested as you like) of linear, convolution, BatchNorm, pooling (windows that do
            not overlap), elementwise and shape layers.
        x: one input or more, ``(n, *input)``, to learn the shapes from.
        weight: λ, at least 0.
        power: 1 or 2.
        seed: the seed of the first vectors.

    Raises:
        TypeError: naming the layer that is not understood.
        ValueError: for a value out of range.

    Reference: Bungert et al. 2021, equation 4; Miyato et al. 2018 for power iteration carried over.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
        >>> _ = nn.init.eye_(net[0].weight)
        >>> LayerProductPenalty(net, torch.zeros(1, 2), weight=1.0)(net).item()
        0.25
    """

    weight: Tensor
    value: Tensor

    __setattr__ = assign

    def __init__(self, model: nn.Module, x: Tensor, *, weight: float, power: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.power = check_power(power)
        check_points(x, "x")
        whole_number(seed, "seed", 0)
        self.register_buffer("weight", torch.tensor(check_weight(weight), device=x.device))
        self.register_buffer("value", torch.tensor(0.0, device=x.device))
        generator = torch.Generator().manual_seed(seed)
        chain = _chain(model)
        self.shapes = [_shape(layer) for _, layer in chain]
        with torch.no_grad(), evaluating(*(layer for _, layer in chain)):
            for number, (name, layer) in enumerate(chain):
                if _type(layer) in _LINEAR:
                    start = torch.randn((1, *x.shape[1:]), generator=generator).to(x)
                    self.register_buffer(f"vector_{number}", start / torch.linalg.vector_norm(start))
                try:
                    x = layer(x[:1])
                except RuntimeError as error:
                    reason = str(error).splitlines()[0]
                    raise ValueError(
                        f"layer {name!r} does not take inputs of shape {tuple(x.shape)}: {reason}"
                    ) from error

    def forward(self, model: Model) -> Tensor:
        """Return λ · (C_σ Π ‖W_l‖)^power, and keep the product in ``value``; in train mode the vectors move.

        Raises:
            TypeError: naming a layer that is not understood.
            ValueError: if the model has other layers than the one that the penalty was made for.
        """
        chain = _chain(model)
        if [_shape(layer) for _, layer in chain] != self.shapes:
            raise ValueError("the model is not one that the penalty was made for: make a new penalty")
        product = self.weight.new_ones(())
        for number, (_, layer) in enumerate(chain):
            product = product * self._constant(number, layer)
        self.value.copy_(product.detach())
        return self.weight * (product if self.power == 1 else product.square())

    def _constant(self, number: int, layer: nn.Module) -> Tensor | float:
        if isinstance(layer, _BATCH_NORM) and layer.running_var is not None:
            scale = (layer.running_var + layer.eps).rsqrt()
            return (scale if layer.weight is None else scale * layer.weight.abs()).max()
        if _type(layer) not in _LINEAR:
            return _constant_of(layer)
        vector: Tensor = getattr(self, f"vector_{number}")
        if self.training:
            with torch.enable_grad():
                leaf = vector.clone().requires_grad_()
                image = _without_bias(layer)(leaf)
                (back,) = torch.autograd.grad(image, leaf, image.detach())
            size = torch.linalg.vector_norm(back)
            # Zero weights map every vector to zero: keep the old one.
            vector.copy_(torch.where(size > 0, back / size.clamp_min(torch.finfo(size.dtype).tiny), vector))
        norm: Tensor = torch.linalg.vector_norm(_without_bias(layer)(vector.clone()))
        return norm


def _chain(model: Model) -> list[tuple[str, nn.Module]]:
    """List the layers in the order in which they are called, or raise for one that is not understood."""
    inner = unwrap(model)
    inner = getattr(inner, "_orig_mod", inner)  # behind torch.compile
    if not isinstance(inner, nn.Module):
        raise TypeError(
            "the layer product needs a module, a chain of layers; got a function: LipschitzPenalty takes any"
        )
    return list(_layers(inner, ""))


def _layers(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    # Exact types: a subclass may do anything in its forward.
    if _type(module) is nn.Sequential:
        for name, child in module._modules.items():  # named_children() would leave out a layer's second call
            if child is not None:
                yield from _layers(child, f"{prefix}{name}.")
        return
    name = prefix.rstrip(".") or "model"
    if _type(module) in _BATCH_NORM and getattr(module, "running_var", None) is None:
        raise TypeError(f"layer {name!r}: BatchNorm without running statistics has no Lipschitz constant")
    if not (_type(module) in (*_LINEAR, *_BATCH_NORM, *_CONSTANTS) or _is_plain_pool(module)):
        raise TypeError(
            f"the layer product does not understand {name!r} ({_type(module).__name__}): it needs a chain of linear, "
            "convolution, BatchNorm, elementwise and shape layers, and of pools whose windows neither overlap nor "
            "leave the image; LipschitzPenalty takes any model"
        )
    yield name, module


def _type(layer: nn.Module) -> type[nn.Module]:
    """Return the type under a parametrization such as weight_norm, which changes the weight and no more."""
    kind: type[nn.Module] = type_before_parametrizations(layer)
    return kind


def _is_plain_pool(layer: nn.Module) -> bool:
    if _type(layer) in _MAX_POOL:
        return layer.kernel_size == layer.stride and layer.dilation in (1, (1, 1), (1, 1, 1))
    if _type(layer) in _AVERAGE_POOL:
        uncut = layer.padding in (0, (0,), (0, 0), (0, 0, 0)) and not layer.ceil_mode
        return layer.kernel_size == layer.stride and uncut and getattr(layer, "divisor_override", None) is None
    return False


def _shape(layer: nn.Module) -> tuple[str, tuple[int, ...]]:
    weight = getattr(layer, "weight", None)
    return _type(layer).__name__, tuple(weight.shape) if isinstance(weight, Tensor) else ()


def _constant_of(layer: nn.Module) -> float:
    """Return the Lipschitz constant of a layer without weights."""
    if isinstance(layer, _AVERAGE_POOL):
        size, dimensions = layer.kernel_size, 1 + _AVERAGE_POOL.index(_type(layer))
        cells = math.prod(size) if isinstance(size, tuple) else size**dimensions
        return 1.0 / math.sqrt(cells)  # the mean of n numbers is 1/√n-Lipschitz
    if isinstance(layer, nn.LeakyReLU):
        return max(1.0, abs(layer.negative_slope))
    if isinstance(layer, nn.ELU):
        return max(1.0, abs(layer.alpha))
    return _CONSTANTS.get(_type(layer), 1.0)


def _without_bias(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    if isinstance(layer, nn.Linear):
        return lambda x: nn.functional.linear(x, layer.weight)
    if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        raise TypeError(f"{_type(layer).__name__} is no linear layer")
    return lambda x: layer._conv_forward(x, layer.weight, None)
