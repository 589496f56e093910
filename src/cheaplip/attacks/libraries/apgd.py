"""AutoAttack and its gradient attack APGD, by pyautoattack."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor

from cheaplip.attacks.libraries.fab import fab_within
from cheaplip.attacks.libraries.frame import NORMS
from cheaplip.attacks.libraries.run import Stage, Task, break_within
from cheaplip.attacks.libraries.shell import SILENT, library
from cheaplip.attacks.libraries.square import square_within
from cheaplip.attacks.protocol import Threat, checked_count, checked_eps, checked_norm, plain_box
from cheaplip.modes import Model
from cheaplip.norms import Box

# By our names of the losses: what the attack is called, the library's name, and the classes that the loss needs.
_LOSSES = {"cross-entropy": ("APGD-CE", "ce", 2), "dlr": ("APGD-DLR", "dlr", 3), "targeted": ("APGD-T", "", 4)}


@final
@dataclass(frozen=True)
class APGD:
    """Auto-PGD: projected gradient descent with momentum, whose steps are halved where progress stops.

    Args:
        eps: radius of the ball, in units of the input, above 0.
        norm: 1, 2 or inf.
        loss: ``"cross-entropy"`` (APGD-CE); ``"dlr"``, the difference of logits ratio, for 3 classes or more;
            ``"targeted"`` (APGD-T), the same ratio to each of the likeliest wrong classes, for 4 classes or more.
        steps: gradient steps of a run, at least 1.
        restarts: runs, per target class if targeted, at least 1.
        targets: wrong classes that the targeted loss tries, at least 1; no more than there are.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay; None for no box.
        generator: where the seed of random starts is drawn; None for torch's global generator.

    Raises:
        ValueError: for a value out of range, images outside the box, a model without a gradient or with too few
            classes.
        ImportError: without ``pip install "cheaplip[attacks]"``.

    Reference: Croce and Hein 2020, "Reliable evaluation of adversarial robustness"; in the 1-norm Croce and Hein 2021.

    Example:
        >>> APGD(2.0, loss="targeted").label
        'APGD-T, 100 steps, ‖δ‖₂ ≤ 2'
    """

    eps: float
    norm: float | str = 2
    _: KW_ONLY
    loss: str = "cross-entropy"
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    box: Box | None = (0.0, 1.0)
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "eps", checked_eps(self.eps))
        put(self, "norm", checked_norm(self.norm))
        put(self, "box", plain_box(self.box))
        for name in ("steps", "restarts", "targets"):
            checked_count(getattr(self, name), name)
        if not isinstance(self.loss, str) or self.loss not in _LOSSES:
            known = ", ".join(f'"{loss}"' for loss in _LOSSES)
            raise ValueError(f"loss must be one of {known}; got {self.loss!r}")

    @property
    def threat(self) -> Threat:
        """The ball and the box."""
        return Threat(float(self.norm), self.eps, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        restarts = "" if self.restarts == 1 else f", {self.restarts} restarts"
        return f"{_LOSSES[self.loss][0]}, {self.steps} steps{restarts}, {self.threat}"

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the changed images, the shape of ``x``; the model is used as it stands and left alone."""
        return break_within(self.threat, self.generator, model, x, y, self._stages)

    def _stages(self, classes: int) -> Sequence[Stage]:
        name, _, least = _LOSSES[self.loss]
        if classes < least:
            raise ValueError(
                f"{name} needs {least} classes or more, for its loss compares as many logits; the model has {classes}: "
                f'take loss="cross-entropy" (apgd-ce), or autoattack-fast, which runs what it can'
            )
        return [partial(apgd_within, loss=self.loss, steps=self.steps, restarts=self.restarts, targets=self.targets)]


def apgd_within(task: Task, *, loss: str, steps: int = 100, restarts: int = 1, targets: int = 9) -> Tensor:
    """Run APGD on a task; in the 1-norm from larger balls inwards, as its authors do."""
    apgd = library("pyautoattack.autopgd_base")
    norm = NORMS[task.frame.norm]
    settings = {
        "n_iter": steps,
        "norm": norm,
        "n_restarts": restarts,
        "eps": task.frame.eps,
        "seed": task.seed,
        "device": task.unit.device,
        "use_largereps": norm == "L1" and steps >= 10,
        "logger": SILENT,
    }
    if loss == "targeted":
        attack = apgd.APGDAttack_targeted(task.logits, n_target_classes=min(targets, task.classes - 1), **settings)
    else:
        attack = apgd.APGDAttack(task.logits, loss=_LOSSES[loss][1], **settings)
    found: Tensor = attack.perturb(task.unit, task.y)
    return found


@final
@dataclass(frozen=True)
class AutoAttack:
    """AutoAttack, the ensemble that robustness is compared by: APGD-CE, APGD-T, FAB-T and Square, one after the other.

    Each runs on the images that those before it did not break. With fewer than 4 classes APGD-T cannot run: APGD with
    the DLR loss stands in with 3, nothing with 2, and a warning says so.

    Args:
        eps: radius of the ball, in units of the input, above 0.
        norm: 1, 2 or inf.
        version: ``"standard"``, all four; ``"fast"``, APGD-CE and APGD-T alone.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay; None for no box.
        generator: where the seed is drawn; None for torch's global generator.

    Raises:
        ValueError: for a value out of range, images outside the box, or a model without a gradient.
        ImportError: without ``pip install "cheaplip[attacks]"``.

    Reference: Croce and Hein 2020, "Reliable evaluation of adversarial robustness".

    Example:
        >>> AutoAttack(0.1, "inf", version="fast").label
        'AutoAttack, fast (APGD-CE, APGD-T), ‖δ‖∞ ≤ 0.1'
    """

    eps: float
    norm: float | str = 2
    _: KW_ONLY
    version: str = "standard"
    box: Box | None = (0.0, 1.0)
    generator: torch.Generator | None = None

    steps: ClassVar[int] = 100
    restarts: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", checked_eps(self.eps))
        object.__setattr__(self, "norm", checked_norm(self.norm))
        object.__setattr__(self, "box", plain_box(self.box))
        if self.version not in ("standard", "fast"):
            raise ValueError(f'version must be "standard" or "fast"; got {self.version!r}')

    @property
    def threat(self) -> Threat:
        """The ball and the box."""
        return Threat(float(self.norm), self.eps, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        what = "standard" if self.version == "standard" else "fast (APGD-CE, APGD-T)"
        return f"AutoAttack, {what}, {self.threat}"

    def lacks(self, classes: int) -> str:
        """Return in a sentence what cannot run on a model with so many classes; empty where all can.

        Example:
            >>> AutoAttack(0.1).lacks(2), AutoAttack(0.1).lacks(10)
            ('APGD-T needs 4 classes, the model has 2: it is left out', '')
        """
        if classes >= 4:
            return ""
        instead = "APGD with the DLR loss stands in" if classes == 3 else "it is left out"
        return f"APGD-T needs 4 classes, the model has {classes}: {instead}"

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the changed images, the shape of ``x``; the model is used as it stands and left alone."""
        return break_within(self.threat, self.generator, model, x, y, self._stages)

    def _stages(self, classes: int) -> Sequence[Stage]:
        one = self.norm == 1  # the authors' settings differ there
        stages: list[Stage] = [partial(apgd_within, loss="cross-entropy", restarts=5 if one else 1)]
        if classes >= 4:
            stages.append(partial(apgd_within, loss="targeted", targets=5 if one else 9))
        else:
            warnings.warn(self.lacks(classes), stacklevel=4)
        if classes == 3:
            stages.append(partial(apgd_within, loss="dlr"))
        if self.version == "standard":
            stages += [fab_within, partial(square_within, queries=5000)]
        return stages
