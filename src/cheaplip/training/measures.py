"""What is measured after an epoch, and decides which epoch is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import nn

from cheaplip.control import Discrepancy
from cheaplip.training.checkpoint import Checkpoint
from cheaplip.training.checks import checked_score

# An epoch competes for the best weights if its training accuracy is this close to the target.
NEAR_TARGET = 0.01


@final
@dataclass(frozen=True)
class Measures:
    """What is measured after an epoch, and decides which epoch is kept."""

    model: nn.Module
    select: Callable[[nn.Module], float] | None
    accuracy: Callable[[nn.Module], float] | None
    lower: Callable[[nn.Module], float] | None
    lower_every: int
    epochs: int
    controls: list[Discrepancy]

    def due(self, epoch: int) -> bool:
        """Tell whether anything is measured after an epoch, counted from 1."""
        return self.select is not None or self._lower_due(epoch)

    def _lower_due(self, epoch: int) -> bool:
        return self.lower is not None and (epoch % self.lower_every == 0 or epoch == self.epochs)

    def __call__(self, kept: Checkpoint) -> None:
        """Measure the model of the last row."""
        row = kept.history.rows[-1]
        epoch = len(kept.history)
        found: dict[str, float] = {}
        if self.lower is not None and self._lower_due(epoch):
            found["lower"] = kept.ranks.first(float(self.lower(self.model)))
        if self.select is not None:
            found["score"] = kept.ranks.first(checked_score(self.select(self.model), epoch))
            if self.accuracy is not None:
                reached = checked_score(self.accuracy(self.model), epoch, "accuracy")
                found["train_accuracy"] = kept.ranks.first(reached)
            near = _near_target(found.get("train_accuracy", row.get("accuracy", 0.0)), self.controls)
            kept.best.offer(kept.parts["model"], found["score"], epoch, near)
        row.update(found)
        kept.measured = True


def _near_target(accuracy: float, controls: list[Discrepancy]) -> bool:
    targets = [control.target for control in controls if control.measure == "accuracy"]
    return all(abs(accuracy - target) <= NEAR_TARGET for target in targets)
