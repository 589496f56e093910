"""Attacks along the gradient for the smallest change, by foolbox: DDN, C&W, DeepFool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from cheaplip.attacks.libraries.frame import SIGNS, needed_box
from cheaplip.attacks.libraries.run import Task, smallest_change
from cheaplip.attacks.libraries.shell import library
from cheaplip.attacks.losses import margin
from cheaplip.attacks.protocol import Threat, checked_count, checked_eps, checked_norm
from cheaplip.modes import Model
from cheaplip.norms import Box, per_sample


def as_foolbox(ask: Callable[[Tensor], Tensor], device: torch.device) -> Any:
    """Return a function of points of the unit box as foolbox wants its models: a module in eval mode, with bounds."""

    # It holds a function, not the model, so that foolbox moves and switches nothing.
    @final
    class Shell(nn.Module):
        def forward(self, unit: Tensor) -> Tensor:
            return ask(unit)

    return library("foolbox").PyTorchModel(Shell().eval(), bounds=(0, 1), device=device)


@final
@dataclass(frozen=True)
class DDN:
    """Decoupled direction and norm: PGD in a 2-norm ball that shrinks at each success and grows at each failure.

    It climbs the cross-entropy, which points to no class in particular where logits are small, as in networks with a
    small Lipschitz constant. So logits are scaled for it, by one factor for the batch.

    Args:
        steps: gradient steps, at least 1.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay.
        generator: where the seed is drawn of the random steps that replace zero gradients; None for torch's global
            generator.

    Raises:
        ValueError: for a value out of range, no box, images outside it, or a model without a gradient.
        ImportError: without ``pip install "cheaplip[attacks]"``.

    Reference: Rony et al. 2019.

    Example:
        >>> DDN().label
        'DDN, 100 steps, smallest ‖δ‖₂'
    """

    _: KW_ONLY
    steps: int = 100
    box: Box = (0.0, 1.0)
    generator: torch.Generator | None = None

    minimal: ClassVar[bool] = True
    restarts: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", needed_box(self.box, "DDN"))
        checked_count(self.steps, "steps")

    @property
    def threat(self) -> Threat:
        """The 2-norm and the box; no radius."""
        return Threat(2.0, None, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"DDN, {self.steps} steps, smallest ‖δ‖₂"

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the nearest misclassified images found, the shape of ``x``; the image itself where there is none."""

        def stage(task: Task) -> Tensor:
            return _minimised(library("foolbox").attacks.DDNAttack(steps=self.steps), _sharpened(task))

        return smallest_change(self.threat, self.generator, model, x, y, stage)


@final
@dataclass(frozen=True)
class CarliniWagner:
    """C&W in the 2-norm: Adam on the squared length plus a multiple of the margin, whose factor is found by bisection.

    Args:
        steps: Adam's steps per factor, at least 1.
        searches: factors that are tried, at least 1.
        step: Adam's step size, in the variable whose hyperbolic tangent is the image, above 0.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay.

    Raises:
        ValueError: for a value out of range, no box, images outside it, or a model without a gradient.
        ImportError: without ``pip install "cheaplip[attacks]"``.

    Reference: Carlini and Wagner 2017.

    Example:
        >>> CarliniWagner(steps=50).label
        'C&W, 9 × 50 steps, smallest ‖δ‖₂'
    """

    _: KW_ONLY
    steps: int = 200
    searches: int = 9
    step: float = 0.05
    box: Box = (0.0, 1.0)

    minimal: ClassVar[bool] = True
    restarts: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", needed_box(self.box, "C&W"))
        checked_count(self.steps, "steps")
        checked_count(self.searches, "searches")
        checked_eps(self.step, "step")

    @property
    def threat(self) -> Threat:
        """The 2-norm and the box; no radius."""
        return Threat(2.0, None, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"C&W, {self.searches} × {self.steps} steps, smallest ‖δ‖₂"

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the nearest misclassified images found, the shape of ``x``; the image itself where there is none."""

        def stage(task: Task) -> Tensor:
            attack = library("foolbox").attacks.L2CarliniWagnerAttack(
                binary_search_steps=self.searches, steps=self.steps, stepsize=self.step, initial_const=_FIRST_FACTOR
            )
            found = _minimised(attack, task)
            black = (found == 0).flatten(1).all(1)  # what foolbox returns where it found nothing
            return torch.where(per_sample(black, found), task.unit, found)

        return smallest_change(self.threat, None, model, x, y, stage)


@final
@dataclass(frozen=True)
class DeepFool:
    """DeepFool: step to the nearest boundary of the linearised model until it errs.

    Args:
        norm: 2 or inf.
        steps: gradient steps, at least 1.
        classes: how many of the likeliest classes are looked at in a step, at least 2; a gradient each.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay.

    Raises:
        ValueError: for a value out of range, no box, images outside it, or a model without a gradient.
        ImportError: without ``pip install "cheaplip[attacks]"``.

    Reference: Moosavi-Dezfooli et al. 2016.

    Example:
        >>> DeepFool("inf").label
        'DeepFool, 50 steps, smallest ‖δ‖∞'
    """

    norm: float | str = 2
    _: KW_ONLY
    steps: int = 50
    classes: int = 10
    box: Box = (0.0, 1.0)

    minimal: ClassVar[bool] = True
    restarts: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", two_or_inf(self.norm, "DeepFool"))
        object.__setattr__(self, "box", needed_box(self.box, "DeepFool"))
        checked_count(self.steps, "steps")
        if checked_count(self.classes, "classes") < 2:
            raise ValueError("classes must be a whole number of at least 2; got 1")

    @property
    def threat(self) -> Threat:
        """The norm and the box; no radius."""
        return Threat(float(self.norm), None, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"DeepFool, {self.steps} steps, smallest {SIGNS[float(self.norm)]}"

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the nearest misclassified images found, the shape of ``x``; the image itself where there is none."""

        def stage(task: Task) -> Tensor:
            attacks = library("foolbox").attacks
            kind = attacks.L2DeepFoolAttack if self.norm == 2 else attacks.LinfDeepFoolAttack
            return _minimised(kind(steps=self.steps, candidates=self.classes), task)

        return smallest_change(self.threat, None, model, x, y, stage)


# The median lead of the right class over the next when DDN starts. From 4 to 16 its results hardly change; with the
# logits of a CLIP-trained MLP as they are, it found changes 10 % longer.
_LEAD = 8.0
# The first factor of the margin; searching upwards from foolbox's 0.001 takes three of the factors.
_FIRST_FACTOR = 0.1


def _sharpened(task: Task) -> Task:
    """Return a task whose logits are scaled to a median lead of the right class over the next of ``_LEAD``."""
    with torch.no_grad():
        lead = float(-margin(task.logits(task.unit), task.y).median())
    scale = _LEAD / lead if lead > 0 else 1.0

    def logits(unit: Tensor) -> Tensor:
        return task.logits(unit) * scale

    return replace(task, logits=logits)


def _minimised(attack: Any, task: Task) -> Tensor:
    torch.manual_seed(task.seed)
    found, _, _ = attack(as_foolbox(task.logits, task.unit.device), task.unit, task.y, epsilons=None)
    result: Tensor = found.detach()
    return result


def two_or_inf(norm: float | str, name: str) -> float:
    """Return the norm of an attack that knows the 2-norm and the maximum norm.

    Example:
        >>> two_or_inf("inf", "DeepFool")
        inf
    """
    value = checked_norm(norm)
    if value == 1:
        raise ValueError(f"{name} looks for the smallest change in the 2-norm or the maximum norm; got norm={norm!r}")
    return value
