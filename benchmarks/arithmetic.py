"""What a training step costs at least, counted in multiply-adds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def multiply_adds(model: nn.Module, x: Tensor) -> list[int]:
    """Return the multiply-adds of each layer with parameters in a forward of ``x``, in the order they are used.

    Args:
        model: a network of linear and convolutional layers.
        x: a batch ``(n, *input)``.

    Raises:
        ValueError: if another kind of layer has parameters.

    Example:
        >>> multiply_adds(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.zeros(1, 4))
        [12, 6]
    """
    counted: list[int] = []

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            counted.append(output.numel() * layer.in_features)
        elif isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            counted.append(output.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size))
        else:
            raise ValueError(
                f"the multiply-adds of linear and convolutional layers are known; got {type(layer).__name__}: "
                "measure another network"
            )

    layers = [layer for layer in model.modules() if next(layer.parameters(recurse=False), None) is not None]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def clip_floor(batch: int, pairs: int, share: float, every: int = 1, *, shared: bool = False) -> float:
    """Return the least cost of a step with the penalty, in plain steps, if only multiply-adds took time.

    A plain step makes 3 - φ passes over its batch: forward, gradients of parameters, gradients of inputs but those
    of the first layer. Moving P pairs takes 2P points forward and 2P back to the input; the maximal pair joins the
    minibatch, where it goes forward again unless the pairs shared the minibatch's forward.

    Args:
        batch: B, samples of a minibatch.
        pairs: P.
        share: φ, the share of the first layer in the forward's multiply-adds, from 0 to 1.
        every: the pairs move at every so many steps.
        shared: steps that move pairs make one forward for all, as they do for chains of plain layers.

    Example:
        >>> round(clip_floor(batch=128, pairs=16, share=0.0), 4)
        1.1823
    """
    moving = 4 * pairs - (2 if shared else 0)
    return 1 + 2 / batch + moving / ((3 - share) * batch * every)


def adversarial_floor(steps: int, share: float) -> float:
    """Return the same for adversarial training: a forward and a backward to the input per step of the adversary.

    Example:
        >>> adversarial_floor(steps=1, share=1.0)
        2.0
    """
    return 1 + 2 * steps / (3 - share)


def authors_cost(batch: int, pairs: int, share: float) -> float:
    """Return the same for the paper's own code: three forwards and one full backward over all points.

    Example:
        >>> authors_cost(batch=100, pairs=500, share=0.5)
        21.02
    """
    return 1 + 2 / batch + 10 * pairs / ((3 - share) * batch)
