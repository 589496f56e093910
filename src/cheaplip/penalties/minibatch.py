"""What penalties on the minibatch have in common: points beside its images, and the outputs at both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cheaplip.modes import Model, differs_in_training, frozen, modules_of, runs_in_low_precision, unwrap
from cheaplip.pairs.steepness import apply, pull_back, widen


def look_at(model: Model, modules: Iterable[nn.Module] | None) -> tuple[Model, tuple[nn.Module, ...], bool]:
    """Return the user's own model, the modules in it, and whether points must be seen apart from the data.

    They must where the model computes something else on them than on data: BatchNorm and Dropout in train mode, or
    under autocast.
    """
    inner = unwrap(model)
    used = (inner,) if modules is None and isinstance(inner, nn.Module) else modules_of(inner, modules)
    return inner, used, runs_in_low_precision(model) or differs_in_training(used)


def needs_batch(penalty: Any) -> bool:
    """Tell whether a penalty is called with the minibatch too, as ``penalty(model, x)``."""
    return bool(getattr(penalty, "needs_batch", False))


def check_minibatch(x: Any) -> None:
    """Raise unless ``x`` is a minibatch of images."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"the minibatch must be a floating tensor (batch, *input); got {got}: convert it with .float()")
    if x.dim() < 2 or not x.numel():
        raise ValueError(f"the minibatch must have shape (batch, *input), batch >= 1; got {tuple(x.shape)}")
    if x.is_meta:
        raise ValueError("the minibatch must hold numbers; got a tensor on the device meta, which has none")


def check_fits(x: Any, like: Tensor) -> None:
    """Raise unless ``x`` is a minibatch of samples like the points of pairs."""
    if not isinstance(x, Tensor) or x.dtype is not like.dtype or x.shape[1:] != like.shape[1:] or not x.dim():
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
    elif x.device != like.device:
        got = str(x.device)
    else:
        return
    raise ValueError(
        f"the minibatch must be {like.dtype} of shape (batch, {', '.join(map(str, like.shape[1:]))}) on "
        f"{like.device}, as the pairs are; got {got}"
    )


def gradient_at(model: Model, point: Tensor, cotangent: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the gradient by the input, of what has this gradient by the output: one forward and one backward."""
    with torch.enable_grad():
        leaf = point.detach().requires_grad_()
        output = apply(model, leaf)
    return pull_back(output, leaf, cotangent(output.detach()).to(output.dtype))


def beside(
    model: Model,
    x: Tensor,
    find: Callable[[Model, Tensor, Tensor], Tensor],
    modules: Iterable[nn.Module] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the minibatch's output for the loss, and the outputs at its images and at points beside them.

    Args:
        model: a module, wrapped or not, or any callable of its input.
        x: the minibatch ``(batch, *input)``.
        find: called with model, images and the outputs there, without a graph; returns as many points.
        modules: the modules that a callable uses.
    """
    check_minibatch(x)
    inner, used, apart = look_at(model, modules)
    output = apply(model, x)
    if not apart:
        points = find(inner, x.detach(), output.detach())
        return output, widen(output), widen(apply(inner, points))
    with frozen(used):
        with torch.no_grad():
            before = apply(inner, x)
        points = find(inner, x.detach(), before)
        at_images, at_points = widen(apply(inner, torch.cat([x, points]))).chunk(2)
    return output, at_images, at_points
