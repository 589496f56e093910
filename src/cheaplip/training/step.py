"""One training step, and what it adds up over an epoch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cheaplip.control import Discrepancy
from cheaplip.modes import frozen, modules_of
from cheaplip.penalties.minibatch import needs_batch
from cheaplip.penalties.ranks import Figures
from cheaplip.training.checks import check_loss
from cheaplip.training.ranks import Ranks
from cheaplip.training.sharded import is_sharded


@final
class Step:
    """One training step, and what it adds up over an epoch without making a GPU wait."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        penalties: list[Any],
        controls: list[Discrepancy],
        adversary: Callable[[nn.Module, Tensor, Tensor], Tensor] | None,
        ranks: Ranks,
        accumulate: int = 1,
    ) -> None:
        self.accumulate = accumulate
        self.ranks, self.fabric = ranks, ranks.fabric
        self.sharded = is_sharded(model)
        # A sharded model exchanges its gradients by itself.
        self.model: Any = model
        self.optimizer: Any = optimizer
        if not self.sharded:
            # A model compiled before Fabric was loaded is unknown to it, and stays as it is.
            known = not hasattr(model, "_orig_mod") or hasattr(model, "_compile_kwargs")
            setup = self.fabric.setup if known else partial(self.fabric.setup, _reapply_compile=False)
            self.model, self.optimizer = setup(model, optimizer)
        self.plain, self.loss, self.penalties, self.controls = model, loss, penalties, controls
        self.adversary = adversary
        self.by_accuracy = any(control.measure == "accuracy" for control in controls)
        self.plan(None, "batch", "batch")
        # A penalty that looks at the minibatch saves a forward by sharing that one; pairs have points of their own.
        sharing = [p for p in penalties if hasattr(p, "joint")]
        self.joint = next(filter(needs_batch, sharing), next(iter(sharing), None))
        # An attack takes any model, and so one that carries the pairs; a plain function expects the user's own.
        joint: Any = getattr(self.joint, "joint", None)
        attack = hasattr(adversary, "threat") and joint is not None
        self.riding = attack and "adversary" in inspect.signature(joint).parameters
        self.others = [p for p in penalties if p is not self.joint]
        self.start_epoch()

    def plan(self, scheduler: Any, scheduler_per: str, control_per: str) -> None:
        """Say whether scheduler and controls are called per "batch" or per "epoch"."""
        self.scheduler, self.scheduler_per, self.control_per = scheduler, scheduler_per, control_per

    def end_epoch(self) -> None:
        """Do what is done once an epoch, and leave the model in eval mode."""
        figures = self.figures()
        if self.control_per == "epoch":
            self.feed_controls(figures.get("accuracy", 0.0), figures["loss"])
        if self.scheduler is not None and self.scheduler_per == "epoch":
            self.scheduler.step(*([figures["loss"]] if isinstance(self.scheduler, ReduceLROnPlateau) else []))
        self.plain.eval()

    def start_epoch(self) -> None:
        """Set the sums to zero."""
        self.total: Tensor | float = 0.0
        self.correct: Tensor | float = 0.0
        self.seen: Tensor | float = 0
        self.begun, self.classifies = False, True

    def __call__(self, x: Tensor, y: Tensor, stop: bool = False) -> bool:
        """Make one step on a minibatch; tell whether this process, or any other, was asked to stop."""
        x, y = self.fabric.to_device((x, y))
        whole, early = len(y), Figures(0.0, 0, 0.0)
        if self.accumulate > 1:
            early, x, y = self._early(x, y)
        output, terms = self._forward(x if self.riding else self._attacked(x, y), y)
        data_loss, figures = self._judge(output, y)
        mean: Tensor | float = data_loss.detach()
        if len(y) < whole:
            figures = Figures(*(sum(pair) for pair in zip(early, figures, strict=True)))
            data_loss, mean = data_loss * (len(y) / whole), figures.loss / whole
        else:
            self.optimizer.zero_grad()
        if self.ranks.count > 1:
            figures = figures._replace(stop=float(stop))
            penalties = [*self._first(), *self.others]
            terms, figures = self.ranks.agree(penalties, terms, figures)
            stop = float(figures.stop) > 0
            # Gradients are averaged over processes, whose minibatches may differ in size.
            share = self.ranks.count * whole / figures.samples
            terms = [share * term if needs_batch(p) else term for p, term in zip(penalties, terms, strict=True)]
            data_loss, mean = data_loss * share, figures.loss / figures.samples
        objective = data_loss
        for term in terms:
            objective = objective + term
        self.fabric.backward(objective)
        self.optimizer.step()
        self._count(figures, mean)
        return stop

    def _early(self, x: Tensor, y: Tensor) -> tuple[Figures, Tensor, Tensor]:
        """Add up the gradients of all parts of a minibatch but the last; return their figures, and the last part."""
        # The same number of parts in every process, the largest last; in place of an empty one a sample counts for 0.
        split = zip(x.tensor_split(self.accumulate), y.tensor_split(self.accumulate), strict=True)
        last, *parts = split
        figures, fair = Figures(0.0, 0, 0.0), sum(self.ranks.numbers(len(y))) / self.ranks.count
        for number, (own_x, own_y) in enumerate(parts):
            size = len(own_y)
            own_x, own_y = (own_x, own_y) if size else (x[:1], y[:1])
            own_x = self._attacked(own_x, own_y)
            with nullcontext() if self.sharded else self.fabric.no_backward_sync(self.model):
                data_loss, found = self._judge(self.model(own_x), own_y)
                if number == 0:
                    self.optimizer.zero_grad()
                self.fabric.backward(data_loss * (size / fair))
            if size:
                figures = Figures(*(sum(pair) for pair in zip(figures, found, strict=True)))
        return figures, *last

    def _attacked(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the adversary's points, which no statistics learn from."""
        if self.adversary is None:
            return x
        with frozen(modules_of(self.plain)):
            return self.adversary(self.plain, x, y)

    def _judge(self, output: Tensor, y: Tensor) -> tuple[Tensor, Figures]:
        """Return the loss of outputs, and their figures."""
        data_loss = self.loss(output, y)
        if not self.begun:
            self.begun = True
            check_loss(data_loss)
            self._check_labels(output, y)
        right = (output.detach().argmax(1) == y).sum() if self.classifies else 0.0
        return data_loss, Figures(right, len(y), data_loss.detach() * len(y))

    def _first(self) -> list[Any]:
        return [] if self.joint is None else [self.joint]

    def _forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs on the minibatch, and the terms of all penalties: that of ``joint`` first."""
        if self.joint is None:
            output, terms = self.model(x), []
        else:
            attack = {"y": y, "adversary": self.adversary} if self.riding else {}
            output, term = self.joint.joint(self.model, x, **attack)
            terms = [term]
        terms += [p(self.model, x) if needs_batch(p) else p(self.model) for p in self.others]
        return output, terms

    def _count(self, figures: Figures, mean: Tensor | float) -> None:
        self.seen = self.seen + figures.samples
        self.total = self.total + figures.loss
        accuracy: Tensor | float = 0.0
        if self.classifies:
            self.correct = self.correct + figures.correct
            accuracy = figures.correct / figures.samples
        if self.control_per == "batch":
            self.feed_controls(accuracy, mean)
        if self.scheduler is not None and self.scheduler_per == "batch":
            self.scheduler.step()

    def _check_labels(self, output: Tensor, y: Tensor) -> None:
        """Tell once an epoch whether there is an accuracy, and raise where a control needs one in vain."""
        # Of a single output the largest is always the first: that of two classes is right or wrong by its sign.
        classes = isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 1 and y.dim() == 1
        self.classifies = classes and not y.is_floating_point()
        if self.by_accuracy and not self.classifies:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                "a control of accuracy needs class labels (batch,), integers, and outputs (batch, classes), 2 or more; "
                f'got labels {tuple(y.shape)}, {y.dtype}, and outputs {shape}: for all else use measure="loss"'
            )

    def feed_controls(self, accuracy: Tensor | float, loss: Tensor | float) -> None:
        """Give each control the figure that it asked for."""
        for control in self.controls:
            if control.measure == "value":
                control.step(control.penalty.value)  # type: ignore[attr-defined] # checked by fit
            else:
                control.step(loss if control.measure == "loss" else accuracy)

    def weights(self) -> dict[str, float]:
        """Return value and weight of each penalty, and of a loss that a control drives."""
        driven = id(self.loss) in {id(control.penalty) for control in self.controls}
        return penalty_figures([*self.penalties, self.loss] if driven else self.penalties)

    def figures(self) -> dict[str, float]:
        """Return the mean loss and, for class labels, the accuracy of the epoch so far."""
        seen = max(1.0, float(self.seen))
        found = {"loss": float(self.total) / seen}
        return found | ({"accuracy": float(self.correct) / seen} if self.classifies else {})


def penalty_figures(penalties: list[Any]) -> dict[str, float]:
    """Return value and weight of each penalty."""
    figures = {}
    for number, penalty in enumerate(penalties, start=1):
        suffix = "" if number == 1 else f"_{number}"
        if hasattr(penalty, "value"):
            figures[f"value{suffix}"] = float(penalty.value)
        if hasattr(penalty, "weight"):
            figures[f"weight{suffix}"] = float(penalty.weight)
    return figures
