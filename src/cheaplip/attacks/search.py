"""The loops of the gradient attacks: along the gradient, back into the region, and again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from cheaplip.attacks.losses import LOSSES, REGRESSION, check_classes, check_output, margin, squared_error
from cheaplip.attacks.region import Region
from cheaplip.modes import Model
from cheaplip.norms import per_sample, vector_norm

NAN = "{} is NaN under attack: check the weights, the data, and roots, logarithms and divisions in the model"


def cosine(first: float, steps: int) -> list[float]:
    """Return step sizes that fall from ``first`` towards 0 along half a cosine.

    Example:
        >>> cosine(2.0, 2)
        [2.0, 1.0]
    """
    return [0.5 * first * (1 + math.cos(math.pi * k / steps)) for k in range(steps)]


def steepest(point: Tensor, gradient: Tensor, norm: float, size: float | Tensor) -> Tensor:
    """Return new points, each moved by ``size``, a number or one per sample, along its gradient.

    The move has length ``size`` in the norm: along the sign (inf) or the gradient itself (1, 2; in the 1-norm the
    projection that follows makes it sparse). A zero gradient moves nothing.
    """
    if norm == math.inf:
        if isinstance(size, Tensor):
            return torch.addcmul(point, gradient.sign(), per_sample(size, point))
        return torch.add(point, gradient.sign(), alpha=size)
    length = vector_norm(gradient, norm)
    least, most = length.aminmax()
    if not (float(least) > 1e-15 and float(most) < 1e15):  # near where squares leave float32
        largest = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
        gradient = gradient / per_sample(largest, gradient)
        length = vector_norm(gradient, norm).clamp_min(1e-3)
    return torch.addcmul(point, gradient, per_sample(size / length, gradient))


def gradient_of(model: Model, point: Tensor, y: Tensor, loss: str, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output, and the loss's gradient with respect to the input, up to a factor per sample.

    Args:
        model: the model.
        point: where, ``(n, *shape)``.
        y: labels or values.
        loss: the name of a loss.
        target: the target classes ``(n,)``, looked at by ``"targeted"`` alone.
    """
    leaf = point.detach().requires_grad_()
    output = model(leaf)
    check_output(output, y, loss == REGRESSION)
    if not output.requires_grad:
        raise ValueError(
            "the model's output does not depend on its input in a differentiable way, so there is no gradient to "
            "follow: take a model without detach, argmax or no_grad inside, or an attack without gradients"
        )
    z = output.detach()
    try:
        slope = LOSSES[loss](z, y, target)
    except RuntimeError:
        check_classes(z, y)  # not done at every step, as a look at a GPU's labels makes it wait
        raise
    (gradient,) = torch.autograd.grad(output, leaf, slope)
    return z, gradient


def last_point(model: Model, region: Region, y: Tensor, loss: str, sizes: Sequence[float], point: Tensor) -> Tensor:
    """Return where the steps end: one forward and one backward to the input each, nothing more.

    The sizes are in units of the radius.
    """
    for size in sizes:
        _, gradient = gradient_of(model, point, y, loss, y)
        point = region.project_(steepest(point, gradient, region.norm, size * region.eps))
    return region.cut_(point)


def output_of(model: Model, x: Tensor, y: Tensor, regression: bool) -> Tensor:
    """Return the model's output without a graph; raise where it is NaN or does not fit the labels or values."""
    with torch.no_grad():
        z: Tensor = model(x)
    check_output(z, y, regression)
    if not regression:
        check_classes(z, y)
    if bool(z.isnan().any()):
        raise ValueError(NAN.format("the model's output"))
    return z


@final
@dataclass
class Found:
    """The best point so far of each sample of a batch, and how good it is."""

    point: Tensor  # (n, *shape)
    score: Tensor  # (n,): the margin, or the squared error of a regression
    regression: bool

    @classmethod
    def at(cls, x: Tensor, z: Tensor, y: Tensor, regression: bool) -> Found:
        """Begin with the images themselves, whose output is ``z``."""
        return cls(x.clone(), score(z, y, regression), regression)

    def broken(self) -> Tensor:
        """Which samples are broken, booleans ``(n,)``; those of a regression never are."""
        return torch.zeros_like(self.score, dtype=torch.bool) if self.regression else self.score > 0

    def improve(self, point: Tensor, score: Tensor) -> None:
        """Take over the points that are better."""
        better = per_sample((score > self.score).to(point.dtype), point)
        self.point.lerp_(point, better)  # exact at weights 0 and 1, and six times faster than torch.where
        self.score = torch.maximum(self.score, score)

    def keep(self, rows: Tensor) -> Found:
        """Return some of the samples."""
        return Found(self.point.index_select(0, rows), self.score.index_select(0, rows), self.regression)

    def put(self, rows: Tensor, part: Found) -> None:
        """Take over what was found for some of the samples; nothing to do where that is this very batch."""
        if part is self:
            return
        self.point.index_copy_(0, rows, part.point)
        self.score.index_copy_(0, rows, part.score)


def score(z: Tensor, y: Tensor, regression: bool) -> Tensor:
    """Return what says how good a point is: the margin, or the squared error of a regression."""
    return squared_error(z, y) if regression else margin(z, y)


def climb(
    model: Model,
    region: Region,
    y: Tensor,
    loss: str,
    target: Tensor,
    sizes: Sequence[float],
    point: Tensor,
    found: Found,
) -> None:
    """Run one attack on all samples of a batch and note the best points; broken samples leave the batch on the way.

    The sizes are in units of the radius.
    """
    total, rows = found, torch.arange(len(y), device=y.device)
    for size in sizes:
        z, gradient = gradient_of(model, point, y, loss, target)
        if bool(gradient.sum().isnan()):  # a sign step would take it for a zero, and call the model robust
            raise ValueError(NAN.format("the model's gradient by its input"))
        found.improve(point, score(z, y, found.regression))
        broken = found.broken()
        # Leaving costs a copy of what stays, so samples leave in company.
        if int(broken.sum()) > len(y) // 32:
            gone, stay = broken.nonzero().squeeze(1), (~broken).nonzero().squeeze(1)
            total.put(rows[gone], found.keep(gone))
            region, found, rows = region.keep(stay), found.keep(stay), rows[stay]
            point, gradient, y, target = (t.index_select(0, stay) for t in (point, gradient, y, target))
            if not len(stay):
                return
        point = region.project_(steepest(point, gradient, region.norm, size * region.eps))
    found.improve(point, score(output_of(model, point, y, found.regression), y, found.regression))
    total.put(rows, found)
