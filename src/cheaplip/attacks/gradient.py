"""Attacks along the gradient: projected gradient descent, strong by default, and the paper's own."""

from __future__ import annotations

import itertools
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from cheaplip.attacks.losses import LOSSES, REGRESSION, check_call, check_classes, check_output, target_class
from cheaplip.attacks.protocol import Threat, checked_count, checked_eps, checked_norm, plain_box
from cheaplip.attacks.region import Region
from cheaplip.attacks.search import Found, climb, cosine, last_point, output_of
from cheaplip.checks import several
from cheaplip.modes import Model
from cheaplip.norms import Box, box_tensors, project_ball

# The first step in units of eps, chosen by measurement: from 0.5 to 4 nothing changes by half a point.
FIRST_STEP = 2.0


@final
@dataclass(frozen=True)
class PGD:
    """Projected gradient descent: steepest steps in the attack's norm, which fall to zero along a cosine.

    Every loss is run from every start, and the worst found for a sample is kept. A sample that is misclassified is
    done and leaves the batch; of the others the point of highest margin is returned.
    For training, ``PGD(eps, steps=7, loss="cross-entropy", early_stop=False)`` is usual. The fast gradient
    sign method is ``PGD(eps, "inf", steps=1, step=eps, loss="cross-entropy", random_start=False, early_stop=False)``.

    Args:
        eps: radius of the ball, in units of the input, above 0.
        norm: 1, 2 or inf.
        steps: gradient steps of a run, at least 1.
        restarts: runs per loss, at least 1.
        loss: a name or several: ``"cross-entropy"``; ``"margin"``, the logit difference to the likeliest wrong class;
            ``"targeted"``, to one wrong class, at restart k to the k-th likeliest of the image; ``"squared-error"``,
            for a regression, whose ``y`` are values: nothing stops early there.
        step: length of the first step, in units of the input; None for twice ``eps``.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay; None for no box.
        random_start: start at a uniformly random point of the ball, not at the image.
        early_stop: False returns the last point of one run: the least work, for training.
        generator: where random starts are drawn; None for torch's global generator.

    Raises:
        ValueError: for a value out of range, images outside the box, or a model whose output is NaN or no logits.
        TypeError: for labels that do not fit the loss.

    Reference: Madry et al. 2018 (PGD); Croce and Hein 2020 (why the step has to fall).

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> x, y = torch.rand(5, 2), torch.zeros(5, dtype=torch.int64)
        >>> x_adv = PGD(eps=0.1, norm=2, steps=10)(model, x, y)
        >>> bool(torch.linalg.vector_norm(x_adv - x, dim=1).max() <= 0.1001)
        True
    """

    eps: float
    norm: float | str = 2
    _: KW_ONLY
    steps: int = 100
    restarts: int = 1
    loss: str | tuple[str, ...] = ("cross-entropy", "margin")
    step: float | None = None
    box: Box | None = (0.0, 1.0)
    random_start: bool = True
    early_stop: bool = True
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "eps", checked_eps(self.eps))
        put(self, "norm", checked_norm(self.norm))
        checked_count(self.steps, "steps")
        checked_count(self.restarts, "restarts")
        put(self, "step", None if self.step is None else checked_eps(self.step, "step"))
        put(self, "box", plain_box(self.box))
        put(self, "loss", _checked_losses(self.loss))
        if not self.early_stop and (len(self.loss) > 1 or self.restarts > 1 or "targeted" in self.loss):
            raise ValueError(
                f"early_stop=False returns the last point of one run, so it needs restarts=1 and one loss that needs "
                f"no clean output; got restarts={self.restarts} and loss={self.loss!r}"
            )
        if self.restarts > 1 and not self.random_start and "targeted" not in self.loss:
            raise ValueError(f'restarts={self.restarts} would repeat one run: set random_start=True or loss="targeted"')

    @property
    def threat(self) -> Threat:
        """The ball and the box."""
        return Threat(float(self.norm), self.eps, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        restarts = "" if self.restarts == 1 else f", {self.restarts} restarts"
        return f"PGD, {self.steps} steps{restarts}, {self.threat}"

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the changed images, the shape of ``x``; the model is used as it stands and left alone."""
        regression = REGRESSION in self.loss
        y = check_call(model, x, y, regression)
        x = x.detach()
        if not len(x):
            return x.clone()
        sizes = cosine(FIRST_STEP if self.step is None else self.step / self.eps, self.steps)
        region = Region(x, float(self.norm), self.eps, plain_box(self.box))
        with torch.enable_grad():
            if not self.early_stop:
                return last_point(model, region, y, self.loss[0], sizes, self._start(region)).detach()
            z = output_of(model, x, y, regression)
            found = Found.at(x, z, y, regression)
            for rank, loss in itertools.product(range(self.restarts), self.loss):
                rows = (~found.broken()).nonzero().squeeze(1)
                if not len(rows):
                    break
                part, there, labels = found.keep(rows), region.keep(rows), y[rows]
                target = target_class(z[rows], labels, rank) if loss == "targeted" else labels
                climb(model, there, labels, loss, target, sizes, self._start(there), part)
                found.put(rows, part)
        return region.cut_(found.point).detach()

    def _start(self, region: Region) -> Tensor:
        return region.start(self.generator) if self.random_start else region.center


def one_step(eps: float, norm: float | str = 2, box: Box | None = (0.0, 1.0)) -> PGD:
    """Return the one-step adversary of fast adversarial training: a random start and one step of 1.25 ``eps``.

    Args:
        eps: radius of the ball, in units of the input.
        norm: 1, 2 or inf.
        box: ``(low, high)`` or None.

    Reference: Wong, Rice and Kolter 2020.

    Example:
        >>> one_step(2.0).steps
        1
    """
    step = 1.25 * checked_eps(eps)
    return PGD(eps, norm, steps=1, step=step, box=box, loss="cross-entropy", early_stop=False)


@final
@dataclass(frozen=True)
class PaperPGD:
    """The attack of the CLIP paper: sign steps of constant length in an L2 ball, cross-entropy on the model's output.

    It is kept to compare with the paper's figures. As a measure of robustness it is weak: a sign step is not the
    steepest in an L2 ball, and its length never falls. The point of the last step is returned, found or not.

    Args:
        eps: radius of the L2 ball, in units of the input, above 0.
        step: the change of each coordinate in a step, above 0.
        steps: how many, at least 1.
        box: None as in the paper, or ``(low, high)`` to cut the images to after each step.

    Raises:
        ValueError: for a value out of range or a model that returns no logits.

    Reference: Bungert et al. 2021, equation 13.

    Example:
        >>> x, y = torch.rand(5, 2), torch.zeros(5, dtype=torch.int64)
        >>> PaperPGD(steps=3)(torch.nn.Linear(2, 2), x, y).shape
        torch.Size([5, 2])
    """

    eps: float = 2.0
    step: float = 0.25
    steps: int = 100
    box: Box | None = None

    weak: ClassVar[bool] = True
    restarts: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", checked_eps(self.eps))
        object.__setattr__(self, "step", checked_eps(self.step, "step"))
        checked_count(self.steps, "steps")
        object.__setattr__(self, "box", plain_box(self.box))

    @property
    def threat(self) -> Threat:
        """The L2 ball, and the box if there is one."""
        return Threat(2.0, self.eps, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"PGD as in the paper (13), weak, {self.steps} steps, {self.threat}"

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the changed images, the shape of ``x``; the model is used as it stands and left alone."""
        y = check_call(model, x, y)
        x = x.detach()
        point = x.clone()
        bounds = None if self.box is None else box_tensors(self.box, x)
        for step in range(self.steps if len(x) else 0):
            with torch.enable_grad():
                leaf = point.detach().requires_grad_()
                z = model(leaf)
                check_output(z, y, regression=False)
                if step == 0:
                    check_classes(z, y)
                (gradient,) = torch.autograd.grad(F.cross_entropy(z, y, reduction="sum"), leaf)
            point = x + project_ball(point.add(gradient.sign(), alpha=self.step) - x, 2, self.eps)
            if bounds is not None:
                point = torch.clamp(point, *bounds)
        return point.detach()


def _checked_losses(loss: str | tuple[str, ...]) -> tuple[str, ...]:
    losses = (loss,) if isinstance(loss, str) else tuple(several(loss, "loss", "names"))
    known = ", ".join(f'"{name}"' for name in LOSSES)
    each = all(isinstance(name, str) and name in LOSSES for name in losses)
    if not losses or not each or len(set(losses)) < len(losses):
        raise ValueError(f"loss must be one or several different ones of {known}; got {loss!r}")
    if REGRESSION in losses and len(losses) > 1:
        raise ValueError(f'loss="{REGRESSION}" is for regressions and stands alone; got {loss!r}')
    return losses
