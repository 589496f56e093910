"""FAB-T, the fast adaptive boundary attack to each of the likeliest wrong classes, by pyautoattack."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from cheaplip.attacks.libraries.frame import NORMS, SIGNS, needed_box
from cheaplip.attacks.libraries.run import Task, smallest_change
from cheaplip.attacks.libraries.shell import library
from cheaplip.attacks.protocol import Threat, checked_count, checked_norm
from cheaplip.modes import Model
from cheaplip.norms import Box, per_sample, vector_norm


@final
@dataclass(frozen=True)
class FAB:
    """FAB-T: step to the linearised boundary of each likely wrong class, near the image; the smallest change counts.

    Args:
        norm: 1, 2 or inf, whose smallest change is looked for.
        steps: gradient steps per target class, at least 1.
        targets: wrong classes that are tried, the likeliest first, at least 1; no more than there are.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay.

    Raises:
        ValueError: for a value out of range, no box, images outside it, or a model without a gradient.
        ImportError: without ``pip install "cheaplip[attacks]"``.

    Reference: Croce and Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack".

    Example:
        >>> FAB("inf").label
        'FAB-T, 100 steps, smallest ‖δ‖∞'
    """

    norm: float | str = 2
    _: KW_ONLY
    steps: int = 100
    targets: int = 9
    box: Box = (0.0, 1.0)

    minimal: ClassVar[bool] = True
    restarts: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", checked_norm(self.norm))
        object.__setattr__(self, "box", needed_box(self.box, "FAB-T"))
        checked_count(self.steps, "steps")
        checked_count(self.targets, "targets")

    @property
    def threat(self) -> Threat:
        """The norm and the box; no radius."""
        return Threat(float(self.norm), None, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"FAB-T, {self.steps} steps, smallest {SIGNS[float(self.norm)]}"

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the nearest misclassified images found, the shape of ``x``; the image itself where there is none."""
        return smallest_change(self.threat, None, model, x, y, self._nearest)

    def _nearest(self, task: Task) -> Tensor:
        attack = _fab(task, self.steps, self.targets)
        best, least = task.unit, torch.full((len(task.y),), math.inf, device=task.unit.device)
        with torch.no_grad():
            for target in range(2, attack.n_target_classes + 2):
                attack.target_class = target
                found = attack.attack_single_run(task.unit, task.y, is_targeted=True)
                length = vector_norm(task.frame.image(found) - task.frame.image(task.unit), task.frame.norm).float()
                nearer = (length > 0) & (length < least)  # what was not broken comes back as it was
                best = torch.where(per_sample(nearer, best), found, best)
                least = torch.where(nearer, length, least)
        return best


def fab_within(task: Task) -> Tensor:
    """Run FAB-T on a task with a radius, as AutoAttack does."""
    found: Tensor = _fab(task, 100, 9).perturb(task.unit, task.y)
    return found


def _fab(task: Task, steps: int, targets: int) -> Any:
    return library("pyautoattack.fab_pt").FABAttack_PT(
        task.logits,
        norm=NORMS[task.frame.norm],
        n_iter=steps,
        eps=task.frame.eps,
        seed=task.seed,
        targeted=True,
        device=task.unit.device,
        n_target_classes=min(targets, task.classes - 1),
    )
