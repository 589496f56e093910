"""Per-sample norms, their gradients, and projections on balls and boxes.

A *norm* is one of ``1``, ``2``, ``inf`` or a callable that maps a batch ``(n, *shape)`` to ``(n,)``.
Everything here works sample by sample: the first dimension counts samples, all others are flattened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Norm: TypeAlias = "float | str | Callable[[Tensor], Tensor]"
Bound: TypeAlias = "float | Sequence[float] | Tensor"
Box: TypeAlias = "tuple[Bound, Bound]"

_REST = [tuple(range(1, dimensions)) for dimensions in range(5)]
_DUAL = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}


def check_norm(p: Norm, name: str = "p") -> float | Callable[[Tensor], Tensor]:
    """Return the norm in its normal form, a float or a callable.

    Args:
        p: ``1``, ``2``, ``inf`` (also as text, ``"inf"``) or a callable ``(n, *shape) -> (n,)``.
        name: what to call the argument in an error.

    Raises:
        ValueError: for any other value.

    Example:
        >>> check_norm("inf")
        inf
    """
    if callable(p):
        return p
    try:
        value = float(p)
    except (TypeError, ValueError):
        value = math.nan
    if value not in _DUAL:
        raise ValueError(f"{name} must be 1, 2, inf or a callable (n, *shape) -> (n,); got {p!r}")
    return value


def _check_samples(x: Tensor) -> None:
    """Raise unless these are samples whose norm there is."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.dim():
        got = f"{x.dtype}, shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"samples must be a floating tensor (n, *shape); got {got}: convert it with .float()")


def dual(p: float) -> float:
    """Return the dual exponent: 1 and inf are each other's dual, 2 is its own.

    Example:
        >>> dual(1.0)
        inf
    """
    if not isinstance(p, (int, float)) or p not in _DUAL:
        raise ValueError(f"p must be 1, 2 or inf; got {p!r}")
    return _DUAL[p]


def vector_norm(x: Tensor, p: Norm = 2) -> Tensor:
    """Return the norm of each sample.

    Args:
        x: a batch ``(n, *shape)``.
        p: the norm, see :func:`check_norm`.

    Returns:
        The norms, shape ``(n,)``.

    Raises:
        ValueError: if ``p`` is no norm, or a callable returned another shape than ``(n,)``.

    Example:
        >>> vector_norm(torch.tensor([[3.0, 4.0]]), p=1)
        tensor([7.])
    """
    if type(p) is float and p in _DUAL and type(x) is Tensor and x.is_floating_point() and 1 < x.dim() < 5:
        return torch.linalg.vector_norm(x, p, _REST[x.dim()])  # type: ignore[no-any-return]
    p = check_norm(p)
    _check_samples(x)
    if not callable(p):
        x = x if x.dim() > 1 else x.unsqueeze(1)
        return torch.linalg.vector_norm(x, p, tuple(range(1, x.dim())))  # type: ignore[no-any-return]
    value = p(x)
    if value.shape != x.shape[:1]:
        raise ValueError(
            f"a callable norm must return one value per sample, shape {tuple(x.shape[:1])}; "
            f"got {tuple(value.shape)}: reduce over all dimensions but the first"
        )
    return value


def span(x: Tensor) -> Tensor:
    """Return the largest difference between two numbers of each sample, ``(n,)``.

    As the norm of outputs it makes a Lipschitz constant one of margins: with ``p_out=span`` it is the largest
    Lip(f_i - f_j) over all pairs of classes, and what all logits do alike does not count.

    Example:
        >>> span(torch.tensor([[1.0, 3.0, -2.0]]))
        tensor([5.])
    """
    _check_samples(x)
    flat = x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
    if not flat.shape[1]:
        raise ValueError(f"samples must hold a number or more; got shape {tuple(x.shape)}")
    return flat.amax(1) - flat.amin(1)


def norm_gradient(x: Tensor, p: Norm = 2, norm: Tensor | None = None) -> Tensor:
    """Return a (sub)gradient of each sample's norm; zero where the sample is zero.

    It is also the direction of unit dual norm along which ``<x, .>`` grows fastest, so
    ``norm_gradient(g, dual(p))`` is the steepest step of unit p-norm along a gradient ``g``.

    Args:
        x: a batch ``(n, *shape)``.
        p: the norm, see :func:`check_norm`; a callable is differentiated by autograd.
        norm: the norms of ``x``, if they are known already, shape ``(n,)``.

    Returns:
        The gradients, the shape of ``x``.

    Example:
        >>> norm_gradient(torch.tensor([[3.0, -4.0]]))
        tensor([[ 0.6000, -0.8000]])
    """
    p = check_norm(p)
    _check_samples(x)
    if norm is not None and (not isinstance(norm, Tensor) or norm.shape != x.shape[:1] or norm.device != x.device):
        raise ValueError(f"norm must be the norms of x, {len(x)} on {x.device}; got {norm!r:.80}".replace("\n", " "))
    if callable(p):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(vector_norm(leaf, p).sum(), leaf)
        # The norm has a kink at zero, where autograd may answer NaN.
        return torch.where(per_sample(vector_norm(x, p), x) > 0, gradient, 0.0)
    if p == 1:
        return x.sign()
    if p == 2:
        norm = vector_norm(x, 2) if norm is None else norm
        # Below the root of the smallest number squares are lost: there the result is shorter than 1, never longer.
        return x / per_sample(norm, x).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
    flat = x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
    if not flat.numel():
        return x
    largest = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign()).view_as(x)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape ``(n,)`` so that it broadcasts against ``(n, *shape)``.

    Example:
        >>> per_sample(torch.ones(3), torch.ones(3, 2, 2)).shape
        torch.Size([3, 1, 1])
    """
    if not (isinstance(values, Tensor) and isinstance(like, Tensor)):
        raise TypeError(f"expected two tensors; got {type(values).__name__} and {type(like).__name__}")
    return values.reshape(-1, *[1] * (like.dim() - 1))


def project_ball(x: Tensor, p: float, radius: float) -> Tensor:
    """Project each sample on the p-norm ball of a radius around zero (nearest point in the 2-norm).

    Args:
        x: a batch ``(n, *shape)``.
        p: 1, 2 or inf.
        radius: the radius, at least 0, in units of ``x``.

    Raises:
        ValueError: for a callable norm or a negative radius.

    Example:
        >>> project_ball(torch.tensor([[3.0, 4.0]]), p=2, radius=1.0)
        tensor([[0.6000, 0.8000]])
    """
    p_checked = check_norm(p)
    if callable(p_checked):
        raise ValueError("projection on a ball needs p = 1, 2 or inf; got a callable norm")
    _check_samples(x)
    if isinstance(radius, bool) or not isinstance(radius, (int, float)) or not radius >= 0:
        raise ValueError(f"the radius of a ball must be at least 0; got {radius!r}")
    if p_checked == math.inf:
        return x.clamp(-radius, radius)
    if p_checked == 2:
        norm = vector_norm(x, 2).clamp_min(torch.finfo(x.dtype).tiny)
        return x * per_sample((radius / norm).clamp_max(1.0), x)
    return _project_l1(x.flatten(1) if x.dim() > 1 else x.unsqueeze(1), radius).view_as(x) if x.numel() else x.clone()


def _project_l1(flat: Tensor, radius: float) -> Tensor:
    """Soft-threshold each row by the one level at which its 1-norm is ``radius``."""
    if radius == 0:
        return torch.zeros_like(flat)
    ordered = flat.abs().sort(dim=1, descending=True).values
    counts = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    levels = (ordered.cumsum(1) - radius) / counts
    # The level belongs to the last coordinate that stays above it.
    last = (ordered > levels).sum(1, keepdim=True).clamp_min(1) - 1
    threshold = levels.gather(1, last).clamp_min(0.0)
    return flat.sign() * (flat.abs() - threshold).clamp_min(0.0)


def box_tensors(box: Box, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bounds of a box as tensors that broadcast against ``(n, *shape)``.

    Args:
        box: ``(low, high)``, each a number, or one number per channel (the first dimension of a sample).
        like: a batch ``(n, *shape)``, for shape, dtype and device.

    Raises:
        ValueError: if the bounds do not fit the channels, are NaN, or low is not below high.

    Example:
        >>> low, high = box_tensors(([0.0, -1.0], 1.0), torch.zeros(5, 2, 8, 8))
        >>> low.shape, high.shape
        (torch.Size([2, 1, 1]), torch.Size([]))
    """
    if not isinstance(like, Tensor) or like.is_complex() or like.is_meta:
        raise TypeError(f"a box is for real tensors that hold numbers; got {getattr(like, 'dtype', like)!r:.80}")
    try:
        low_value, high_value = box
        low, high = (torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (low_value, high_value))
    except (TypeError, ValueError, RuntimeError):
        wanted = "box must be a pair (low, high) of numbers, or of one number per channel"
        raise ValueError(f"{wanted}; got {box!r}") from None
    low, high = _per_channel(low, like), _per_channel(high, like)
    if not bool((low < high).all()):
        raise ValueError(f"box must have low < high in every channel; got {box!r}")
    return low, high


def _per_channel(bound: Tensor, like: Tensor) -> Tensor:
    if bound.dim() == 0:
        return bound
    channels = like.shape[1] if like.dim() > 1 else 1
    if bound.dim() != 1 or bound.shape[0] != channels:
        raise ValueError(
            f"a box bound must be a number or one number per channel ({channels}); got shape {tuple(bound.shape)}"
        )
    return bound.view(-1, *[1] * (like.dim() - 2))
