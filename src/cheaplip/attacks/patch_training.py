"""How a patch is made: a picture that raises the target's probability wherever it lies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cheaplip.attacks.losses import check_call, check_classes, check_images, check_output
from cheaplip.attacks.patch import Patch, boxed, success
from cheaplip.attacks.placing import AreaRange, area_range, lay
from cheaplip.checks import number, whole_number
from cheaplip.modes import Model, evaluating, modules_of
from cheaplip.norms import Box, box_tensors

CANDIDATES, TRIAL = 10, 30


def train_patch(
    model: Model,
    x: Tensor,
    target: int,
    *,
    shape: str = "round",
    area: float | AreaRange = (0.02, 0.25),
    rotation: float = 45.0,
    side: int | None = None,
    steps: int = 500,
    batch_size: int = 64,
    rate: float = 0.1,
    box: Box = (0.0, 1.0),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Patch:
    """Train one patch that turns images of all other classes to a target class, at random places, sizes and angles.

    Adam descends the cross-entropy to the target; the picture is cut to the box after each step. The model runs in eval
    mode with frozen parameters, and is left as it was.

    Args:
        model: a classifier of images, ``(n, channels, height, width) -> (n, classes)`` logits.
        x: training images, 1 or 3 channels; not those of the target class, and none that is tested on.
        target: the class that images shall be taken for.
        shape: ``"round"`` or ``"square"``.
        area: how much of an image it covers, see :class:`Patch`.
        rotation: the largest angle to either side, in degrees.
        side: of the picture, in pixels; None for as many as the largest patch covers.
        steps: of Adam, at least 1.
        batch_size: images of a step, drawn anew each time.
        rate: the first step size, in units of the box's width; it falls to 0 along half a cosine.
        box: ``(low, high)``, numbers or one number per channel, in which images lie.
        seed: of all draws; the same seed gives the same patch.
        progress: called with the number of steps done.

    Raises:
        ValueError: for a value out of range, images or a model that do not fit, or a model without gradient.

    Reference: Brown et al. 2017, equation 1.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> train_patch(model, torch.rand(20, 1, 8, 8), target=2, steps=5).picture.shape
        torch.Size([1, 5, 5])
    """
    _check(x, steps, batch_size, rate)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function, or None; got {type(progress).__name__}")
    low, top = box_tensors(boxed(box), x)
    picture = _grey(x, low, top, _side(x, area, shape) if side is None else side)
    # Checked before anything is trained.
    untrained = Patch(picture, target, shape=shape, area=area, rotation=rotation, box=box, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    picture.requires_grad_()
    width = float((top - low).mean())
    adam = torch.optim.Adam([picture], lr=rate * width)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    aim = torch.full((batch_size,), target, device=x.device)
    with evaluating(*modules_of(model)), torch.enable_grad():
        for step in range(steps):
            rows = torch.randint(len(x), (batch_size,), generator=generator).to(x.device)
            z = model(lay(picture, x[rows], shape, area, rotation, generator))
            _check_logits(z, aim, step)
            (picture.grad,) = torch.autograd.grad(F.cross_entropy(z, aim), picture)
            adam.step()
            schedule.step()
            with torch.no_grad():
                picture.copy_(torch.clamp(picture[None], low, top)[0])
            if progress is not None:
                progress(1)
    return replace(untrained, picture=picture.detach())


def _side(x: Tensor, area: float | AreaRange, shape: str) -> int:
    """Return how many pixels wide the largest patch lies on an image."""
    pixels = area_range(area)[1] * x.shape[2] * x.shape[3]
    return max(2, math.ceil(2 * math.sqrt(pixels / math.pi) if shape == "round" else math.sqrt(pixels)))


def _grey(x: Tensor, low: Tensor, top: Tensor, side: int) -> Tensor:
    """Return a picture in the middle of the box."""
    whole_number(side, "side", 2)
    middle = ((low + top) / 2).broadcast_to(1, *x.shape[1:])[0, :, :1, :1]
    return middle.expand(-1, side, side).clone()


def easiest_target(model: Model, x: Tensor, y: Tensor, *, steps: int = TRIAL, seed: int = 0, **arguments: Any) -> int:
    """Return the class that a patch turns images to most easily: the usual target.

    Of the classes that the model finds likeliest on images of other classes, ten at most, each gets a patch of a few
    steps; the one that turns most of these images wins.

    Args:
        model: a classifier, in eval mode.
        x: training images ``(n, channels, height, width)``.
        y: their labels, ``(n,)``, of two classes or more.
        steps: of each trial.
        seed: of all draws.
        arguments: further ones of :func:`train_patch`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> easiest_target(model, torch.rand(20, 1, 8, 8), torch.arange(20) % 2, steps=2) in (0, 1, 2)
        True
    """
    y = check_call(model, x, y)
    whole_number(steps, "steps")
    whole_number(seed, "seed", 0)
    with torch.no_grad():
        z = model(x)
    check_output(z, y, regression=False)
    check_classes(z, y)
    right = z.argmax(1) == y
    if bool(right.any()):  # what is wrong without a patch says nothing about patches
        x, y, z = x[right], y[right], z[right]
    wrong = torch.ones_like(z).scatter_(1, y[:, None], 0.0)
    likely = (z.softmax(1) * wrong).sum(0) / wrong.sum(0).clamp_min(1)
    rates = {}
    for target in likely.topk(min(CANDIDATES, len(likely))).indices.tolist():
        others = y != target
        if bool(others.any()):
            patch = train_patch(model, x[others], target, steps=steps, seed=seed, **arguments)
            rates[target] = success(model, patch, x, y, seed=seed).rate
    best: int = max(rates, key=lambda target: rates[target])
    return best


def _check(x: Tensor, steps: int, batch_size: int, rate: float) -> None:
    check_images(x)
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point() or not len(x):
        raise ValueError(
            f"a patch is trained on floating images (n, channels, height, width), 1 or 3 channels; got {x.dtype}, "
            f"shape {tuple(x.shape)}"
        )
    whole_number(steps, "steps")
    whole_number(batch_size, "batch_size")
    number(rate, "rate", above=0)


def _check_logits(z: Tensor, aim: Tensor, step: int) -> None:
    check_output(z, aim, regression=False)
    if step == 0:
        check_classes(z, aim)
        if not z.requires_grad:
            raise ValueError("a patch follows the model's gradient, but its output has none: it cannot be trained here")
    if bool(z.isnan().any()):
        raise ValueError("the model's output is NaN under the patch: check its weights and the data")
