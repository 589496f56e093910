"""The paper's networks, the usual small CNN, and a user's own by ``pkg.mod:factory``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cheaplip.factories import called, imported

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}
_SPECS = "mlp:784-64-64-10, mlp:784-64-64-10:relu, mlp:784-64-64-10:sigmoid:sigmoid, cnn, cnn:relu or pkg.mod:factory"


def mlp(widths: Sequence[int], activation: str = "sigmoid", output: str | None = None) -> nn.Sequential:
    """Make a fully connected network of flattened inputs, with logits at the end.

    Args:
        widths: numbers of units from input to output, two or more, each at least 1.
        activation: after every layer but the last: sigmoid, relu, tanh, gelu, silu, leaky_relu, elu, softplus
            or identity.
        output: an activation after the last layer (the paper's code has a sigmoid there); None for logits.

    Raises:
        ValueError: for widths that make no network, or an unknown activation.

    Reference: Bungert et al. 2021, section 4, with 784-64-64-10 on MNIST.

    Example:
        >>> mlp([784, 64, 64, 10])(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    if len(widths) < 2 or any(isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in widths):
        raise ValueError(f"widths must be two or more whole numbers of at least 1; got {list(widths)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), _activation(activation)]
    layers.pop()
    if output is not None:
        layers.append(_activation(output))
    return nn.Sequential(*layers)


def cnn(channels: int = 1, size: int = 28, classes: int = 10, activation: str = "relu") -> nn.Sequential:
    """Make the small convolutional network of Madry et al., with logits at the end.

    Args:
        channels: of the images, at least 1.
        size: height and width of the images, at least 4.
        classes: number of outputs, at least 1.
        activation: see :func:`mlp`.

    Raises:
        ValueError: for a number out of range, or an unknown activation.

    Reference: Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks", section 5.

    Example:
        >>> cnn(channels=3, size=32)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    for name, value, least in (("channels", channels, 1), ("size", size, 4), ("classes", classes, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")
    pooled = size // 2 // 2
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        _activation(activation),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        _activation(activation),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * pooled * pooled, 1024),
        _activation(activation),
        nn.Linear(1024, classes),
    )


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ValueError(f"the activation must be one of {', '.join(ACTIVATIONS)}; got {name!r}")
    return ACTIVATIONS[name]()


def build(spec: str, *, shape: Sequence[int], classes: int | None, seed: int = 0, free: bool = False) -> nn.Module:
    """Build a network from a line of text, with seeded weights, and check that it fits the data.

    Args:
        spec: ``mlp:784-64-64-10``, then ``:activation`` (sigmoid by default), then ``:output activation`` (none by
            default); ``cnn`` or ``cnn:activation``; or ``pkg.mod:factory``, a function of your own, which is called
            with those of ``shape`` and ``classes`` that its signature takes. The names mlp and cnn are reserved.
        shape: of one input, such as ``(1, 28, 28)``.
        classes: number of outputs; None for regression, with any number of outputs.
        seed: of the weights, 0 or more; torch's generator is left as it was.
        free: whether the outputs of your own network may have any shape, such as that of images; they are still one
            for each sample.

    Raises:
        ValueError: if the text is none of these, a factory raises, or the network does not fit ``shape`` and
            ``classes``.
        TypeError: if a factory needs other arguments or returns no torch.nn.Module.

    Example:
        >>> net = build("mlp:64-32-10:relu", shape=(1, 8, 8), classes=10, seed=1)
        >>> [type(layer).__name__ for layer in net]
        ['Flatten', 'Linear', 'ReLU', 'Linear']
    """
    if not isinstance(spec, str):
        raise TypeError(f"the model must be text such as {_SPECS}; got {type(spec).__name__}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1; got {seed!r}")
    shape = tuple(shape)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would seed all other devices too, and for good.
        torch.default_generator.manual_seed(seed)
        kind, *parts = spec.split(":")
        if kind == "mlp":
            model: nn.Module = _build_mlp(spec, parts, shape, classes)
        elif kind == "cnn":
            model = _build_cnn(spec, parts, shape, classes)
        else:
            model = _build_own(spec, shape, classes, seed)
        check_fits(
            model, shape, classes, free=free
        )  # still seeded: lazy layers draw their weights in the first forward
    return model


def _build_mlp(spec: str, parts: list[str], shape: tuple[int, ...], classes: int | None) -> nn.Module:
    widths = parts[0].split("-") if parts else []
    if not 1 <= len(parts) <= 3 or len(widths) < 2 or not all(w.isdecimal() and int(w) for w in widths):
        raise ValueError(
            "expected mlp:widths[:activation[:output activation]], two or more widths of at least 1 joined by -, "
            f"such as mlp:784-64-64-10:relu; got {spec!r}"
        )
    model = mlp([int(width) for width in widths], *parts[1:])
    size = math.prod(shape)
    if int(widths[0]) != size:
        raise ValueError(f"{spec} takes {widths[0]} inputs, but shape {shape} has {size}: begin it mlp:{size}-")
    if classes is not None and int(widths[-1]) != classes:
        raise ValueError(f"{spec} gives {widths[-1]} outputs for {classes} classes: let its last width be {classes}")
    return model


def _build_cnn(spec: str, parts: list[str], shape: tuple[int, ...], classes: int | None) -> nn.Module:
    if len(parts) > 1 or parts == [""]:
        raise ValueError(f"expected cnn or cnn:activation, such as cnn:relu; got {spec!r}")
    if len(shape) != 3 or shape[1] != shape[2] or classes is None:
        raise ValueError(
            f"{spec} takes square images in classes, shape (channels, size, size); "
            f"got shape {shape} and {'no' if classes is None else classes} classes: use an mlp or your own"
        )
    return cnn(shape[0], shape[1], classes, *parts)


def _build_own(spec: str, shape: tuple[int, ...], classes: int | None, seed: int) -> nn.Module:
    expected = f"the model must be {_SPECS}; got {spec!r}"
    factory = imported(spec, expected, "a function or class that makes the model")
    torch.default_generator.manual_seed(seed)  # again: the import happens once and may have drawn
    model = called(factory, spec, {"shape": shape, "classes": classes})
    if not isinstance(model, nn.Module):
        raise TypeError(f"{spec} must return a torch.nn.Module; got {type(model).__name__}")
    return model


def check_fits(model: nn.Module, shape: Sequence[int], classes: int | None, *, free: bool = False) -> None:
    """Check by one forward of zeros that a network takes inputs of a shape and gives one output per class.

    Train modes, statistics and torch's generator are left as they were.

    Args:
        model: the network.
        shape: of one input.
        classes: number of outputs; None for regression, with any number of outputs.
        free: whether outputs may have any shape ``(n, *output)``, however many classes there are.

    Raises:
        ValueError: if it does not.

    Example:
        >>> check_fits(nn.Linear(4, 3), (5,), 3)
        Traceback (most recent call last):
        ValueError: the model must take inputs of shape (5,); on zeros of shape (2, 5) it raised ...
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    zeros = torch.zeros(2, *shape, dtype=parameter.dtype, device=parameter.device)
    layers = [layer for layer in model.modules() if layer.training]
    try:
        for layer in layers:
            layer.training = False
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = model(zeros)
    except Exception as error:  # whatever a user's forward raises on a shape that it was not made for
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the model must take inputs of shape {tuple(shape)}; on zeros of shape {tuple(zeros.shape)} it raised "
            f"{type(error).__name__}: {reason}"
        ) from error
    finally:
        for layer in layers:
            layer.training = True
    got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    fits = isinstance(output, Tensor) and output.dim() >= 2 and len(output) == 2
    wanted = "(2, ...)" if free else "(2, k)" if classes is None else f"(2, {classes})"
    if not fits or (not free and (output.dim() != 2 or classes not in (None, output.shape[1]))):
        raise ValueError(
            f"the model must give outputs of shape {wanted} for inputs of shape {tuple(zeros.shape)}; got {got}: "
            "change its last layer"
        )
