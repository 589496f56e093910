"""What a gradient attack climbs.

Only the direction of a sample's gradient matters to an attack, so a loss is known here by its gradient with
respect to the model's output, up to a positive factor per sample. Written so, nothing saturates: the gradient
of cross-entropy is (1 - p_y) times that of ``logsumexp of the others - z_y``, and the factor, which rounds to
zero for a confident model, is left out.

Index legend: z (n, classes) logits, y (n,) labels, t (n,) target classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Direction: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def others(z: Tensor, y: Tensor) -> Tensor:
    """Return the logits with the label's own at minus infinity.

    Example:
        >>> others(torch.tensor([[3.0, 1.0]]), torch.tensor([0]))
        tensor([[-inf, 1.]])
    """
    return z.scatter(1, y[:, None], -math.inf)


def margin(z: Tensor, y: Tensor) -> Tensor:
    """Return by how much the likeliest wrong class beats the label, ``max_{j != y} z_j - z_y``; above 0 is an error.

    Args:
        z: logits ``(n, classes)``.
        y: labels ``(n,)``, int64.

    Example:
        >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
        tensor([-1.])
    """
    return others(z, y).amax(1) - z.gather(1, y[:, None]).squeeze(1)


def squared_error(z: Tensor, y: Tensor) -> Tensor:
    """Return the squared distance of each output to its value, ``(n,)``.

    Example:
        >>> squared_error(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([4.])
    """
    return (z - y).square().flatten(1).sum(1)


def _cross_entropy(z: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return others(z, y).softmax(1).scatter_(1, y[:, None], -1.0)


def _margin(z: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return _difference(z, y, others(z, y).argmax(1))


def _targeted(z: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return _difference(z, y, t)


def _difference(z: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return torch.zeros_like(z).scatter_(1, t[:, None], 1.0).scatter_(1, y[:, None], -1.0)


def _squared_error(z: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return z - y


REGRESSION = "squared-error"
LOSSES: dict[str, Direction] = {
    "cross-entropy": _cross_entropy,
    "margin": _margin,
    "targeted": _targeted,
    REGRESSION: _squared_error,
}


def target_class(z: Tensor, y: Tensor, rank: int) -> Tensor:
    """Return for each sample the wrong class of a rank by likelihood: 0 is the likeliest; ranks wrap around.

    Example:
        >>> target_class(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]), rank=1)
        tensor([1])
    """
    rank %= z.shape[1] - 1
    return others(z, y).topk(rank + 1, dim=1).indices[:, rank]


def check_call(model: Any, x: Any, y: Any, regression: bool = False) -> Tensor:
    """Return the labels as int64, or the values of a regression; raise where an attack cannot be called with these."""
    if not callable(model) or isinstance(model, type):
        raise TypeError(f"the model must be a module or a function of images; got {type(model).__name__}")
    return check_targets(x, y, regression)


def check_images(x: Any) -> None:
    """Raise unless these are images."""
    if not isinstance(x, Tensor):
        raise TypeError(f"images must be a tensor (n, *shape); got {type(x).__name__}: convert them by torch.as_tensor")
    if not x.is_floating_point():
        raise TypeError(f"images must be floating; got {x.dtype}: convert them with .float()")
    if x.dim() < 2 or 0 in x.shape[1:]:
        raise ValueError(f"images must have shape (n, *shape), two dimensions or more; got {tuple(x.shape)}")
    if x.is_meta or x.layout != torch.strided:
        raise ValueError(f"images must hold numbers, all of them; got a tensor on {x.device} of layout {x.layout}")


def check_targets(x: Any, y: Any, regression: bool) -> Tensor:
    """Return the labels as int64, or the values of a regression; raise where they do not fit."""
    check_images(x)
    if not isinstance(y, Tensor):
        raise TypeError(f"labels must be a tensor; got {type(y).__name__}: convert them by torch.as_tensor")
    if y.device != x.device or y.layout != torch.strided:
        raise ValueError(
            f"images and labels must lie on one device, unsparse; got {x.device} and {y.device} ({y.layout})"
        )
    if y.dim() < 1 or len(x) != len(y):
        raise ValueError(f"images and labels must be equally many; got shapes {tuple(x.shape)} and {tuple(y.shape)}")
    if regression:
        if not y.is_floating_point():
            raise TypeError(f'loss="{REGRESSION}" needs floating values y; got {y.dtype}')
        return y
    if y.is_floating_point() or y.is_complex() or y.dim() != 1:
        raise TypeError(
            f"labels must be whole numbers, shape (n,); got {y.dtype}, shape {tuple(y.shape)}: "
            f'attack a regression with PGD(..., loss="{REGRESSION}")'
        )
    return y.long()


def check_output(z: Tensor, y: Tensor, regression: bool) -> None:
    """Raise unless the model's output fits the labels or values."""
    if not isinstance(z, Tensor):
        raise TypeError(f"the model must return one tensor; got {type(z).__name__}")
    if regression:
        if z.shape != y.shape:
            raise ValueError(
                f"the model's output and y must have the same shape; got {tuple(z.shape)} and {tuple(y.shape)}"
            )
    elif z.dim() != 2 or len(z) != len(y) or z.shape[1] < 2:
        raise ValueError(f"the model must return logits ({len(y)}, classes), classes >= 2; got {tuple(z.shape)}")


def check_classes(z: Tensor, y: Tensor) -> None:
    """Raise unless every label is one of the classes; costs a look at the device, so not done at every step."""
    if y.numel() and not (int(y.min()) >= 0 and int(y.max()) < z.shape[1]):
        raise ValueError(
            f"labels must lie in 0..{z.shape[1] - 1}, for the model has {z.shape[1]} outputs; "
            f"got {int(y.min())} to {int(y.max())}"
        )
