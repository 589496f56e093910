"""λ C_σ Π ‖W_l‖: the product of the layers' Lipschitz constants."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cheaplip.modes import Model, evaluating, modules_of
from cheaplip.penalties.weighing import check_power, check_weight

# Lipschitz constants of elementwise and shape layers. Dropout and BatchNorm are taken as in eval mode.
_CONSTANTS: dict[type[nn.Module], float] = {
    nn.Identity: 1.0, nn.Flatten: 1.0, nn.Unflatten: 1.0, nn.Dropout: 1.0, nn.Dropout1d: 1.0, nn.Dropout2d: 1.0,
    nn.ReLU: 1.0, nn.ReLU6: 1.0, nn.LeakyReLU: 1.0, nn.Softplus: 1.0, nn.Tanh: 1.0, nn.Hardtanh: 1.0,
    nn.Sigmoid: 0.25, nn.Softsign: 1.0, nn.ELU: 1.0, nn.GELU: 1.1290, nn.SiLU: 1.0999, nn.Softmax: 1.0,
    nn.LogSigmoid: 1.0,
}  # fmt: skip
_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)


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

    def __init__(self, model: nn.Module, x: Tensor, *, weight: float, power: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.power = check_power(power)
        self.register_buffer("weight", torch.tensor(check_weight(weight), device=x.device))
        self.register_buffer("value", torch.tensor(0.0, device=x.device))
        generator = torch.Generator().manual_seed(seed)
        (inner,) = modules_of(model)
        with torch.no_grad(), evaluating(inner):
            for name, layer in _chain(inner):
                if isinstance(layer, _LINEAR):
                    start = torch.randn((1, *x.shape[1:]), generator=generator).to(x)
                    self.register_buffer(_key(name), start / torch.linalg.vector_norm(start))
                x = layer(x[:1])

    def forward(self, model: Model) -> Tensor:
        """Return λ · (C_σ Π ‖W_l‖)^power, and keep the product in ``value``; in train mode the vectors move.

        Raises:
            TypeError: naming a layer that is not understood.
            ValueError: if the model has other linear layers than the one that the penalty was made for.
        """
        (inner,) = modules_of(model)
        product = self.weight.new_ones(())
        for name, layer in _chain(inner):
            product = product * self._constant(name, layer)
        self.value.copy_(product.detach())
        return self.weight * (product if self.power == 1 else product.square())

    def _constant(self, name: str, layer: nn.Module) -> Tensor | float:
        if isinstance(layer, _BATCH_NORM):
            if layer.running_var is None:
                raise TypeError(f"layer {name!r}: BatchNorm without running statistics has no Lipschitz constant")
            scale = (layer.running_var + layer.eps).rsqrt()
            return (scale if layer.weight is None else scale * layer.weight.abs()).max()
        if not isinstance(layer, _LINEAR):
            return _elementwise(layer)
        if not hasattr(self, _key(name)):
            raise ValueError(f"layer {name!r} is not one that the penalty was made for: make a new penalty")
        vector: Tensor = getattr(self, _key(name))
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


def _key(name: str) -> str:
    return "vector_" + name.replace(".", "_")


def _chain(model: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """List the layers in the order in which they are called, or raise for one that is not understood."""
    if isinstance(model, nn.Sequential):
        return [pair for name, child in model.named_children() for pair in _chain(child, f"{prefix}{name}.")]
    name = prefix.rstrip(".") or "model"
    if isinstance(model, (*_LINEAR, *_BATCH_NORM)) or type(model) in _CONSTANTS:
        return [(name, model)]
    if isinstance(model, _POOLS) and model.kernel_size == model.stride:
        return [(name, model)]
    raise TypeError(
        f"the layer product does not understand {name!r} ({type(model).__name__}): it needs a chain of linear, "
        "convolution, BatchNorm, pooling without overlap and elementwise layers; LipschitzPenalty takes any model"
    )


def _elementwise(layer: nn.Module) -> float:
    if isinstance(layer, (nn.AvgPool1d, nn.AvgPool2d)):
        size = layer.kernel_size
        cells = size[0] * size[1] if isinstance(size, tuple) and len(size) == 2 else _square(size, layer)
        return 1.0 / math.sqrt(cells)  # the mean of n numbers is 1/√n-Lipschitz
    if isinstance(layer, nn.LeakyReLU):
        return max(1.0, abs(layer.negative_slope))
    if isinstance(layer, nn.ELU):
        return max(1.0, abs(layer.alpha))
    return _CONSTANTS.get(type(layer), 1.0)


def _square(size: int | tuple[int, ...], layer: nn.Module) -> int:
    side = size if isinstance(size, int) else size[0]
    return side**2 if isinstance(layer, nn.AvgPool2d) else side


def _without_bias(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    if isinstance(layer, nn.Linear):
        return lambda x: nn.functional.linear(x, layer.weight)
    if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        raise TypeError(f"{type(layer).__name__} is no linear layer")
    return lambda x: layer._conv_forward(x, layer.weight, None)
