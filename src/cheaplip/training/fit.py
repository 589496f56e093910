"""fit(): the joint loop, with control, adversary, selection and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from cheaplip.control import Discrepancy
from cheaplip.training.checkpoint import Checkpoint, random_state, set_random_state
from cheaplip.training.checks import (
    check_batch,
    check_calls,
    check_model,
    check_optimizer,
    check_penalties,
    check_plan,
    check_surroundings,
    checked_score,
)
from cheaplip.training.history import History
from cheaplip.training.progress import Progress
from cheaplip.training.state import states_of_loader, states_of_penalties
from cheaplip.training.step import Step

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# An epoch competes for the best weights if its training accuracy is this close to the target.
NEAR_TARGET = 0.01


def fit(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    epochs: int,
    penalty: Any | Sequence[Any] | None = None,
    control: Discrepancy | Sequence[Discrepancy] | None = None,
    control_per: str = "batch",
    scheduler: Any | None = None,
    scheduler_per: str = "epoch",
    adversary: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    select: Callable[[nn.Module], float] | None = None,
    accuracy: Callable[[nn.Module], float] | None = None,
    lower: Callable[[nn.Module], float] | None = None,
    lower_every: int = 1,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    fabric: Fabric | None = None,
    progress: bool | None = None,
) -> History:
    """Train a model; the same as the loop with ``penalty.joint`` written out by hand, bit for bit.

    Args:
        model: the network, trained in place; in the end it holds the weights of the kept epoch, in eval mode.
        loader: minibatches ``(x, y)``; if it has ``set_epoch``, it is told the epoch, counted from 0. For a resumed
            run to be exact, the order must depend on the epoch, on torch's global generator or on the torch.Generator
            of the loader or its sampler.
        loss: of outputs and labels, a scalar; a :class:`MarginLoss` may be driven by a control, as penalties are.
        optimizer: over the model's parameters.
        epochs: how many.
        penalty: one or several; their terms add. One with ``joint`` shares the minibatch's forward, one with
            ``needs_batch`` is called as ``penalty(model, x)``.
        control: one or several :class:`Discrepancy`, each fed with training accuracy or loss.
        control_per: ``"batch"`` (the paper) or ``"epoch"``, when the controls are fed.
        scheduler: a learning rate scheduler; ReduceLROnPlateau is given the epoch's training loss.
        scheduler_per: ``"epoch"`` or ``"batch"``, when it is stepped.
        adversary: an attack, whose points replace the minibatch (min-max training); statistics stay frozen
            while it searches. One with a ``threat`` shares its first forward and backward with a penalty's pairs.
        select: a score of the model, higher is better, taken after each epoch; the best epoch is kept, among those
            whose training accuracy is within a point of the control's target if there is one. None keeps the last.
        accuracy: the training accuracy of the model as it stands, which tells ``select`` the epochs within a point of
            the target; None takes the mean over the epoch's minibatches, which lags behind the weights.
        lower: a stronger lower bound of Lip, recorded beside the penalty's own value.
        lower_every: after every so many epochs, and the last.
        seed: of torch's global generator while training (Dropout, adversary); restored afterwards.
        checkpoint: a folder for the checkpoint and the history (``metrics.csv``), written after each epoch; None writes
            nothing.
        resume: go on from the checkpoint in that folder; without one there, begin.
        fabric: a Lightning Fabric of your own (device, precision), in one process; by default the model's device alone.
        progress: show a bar; by default if standard error is a terminal.

    Returns:
        The history; ``history.kept`` is the epoch whose weights were kept.

    Raises:
        ValueError: for an argument out of range, an empty loader, a loss or score that is not finite, or a
            checkpoint that is in the way or does not fit.
        TypeError: for an argument of another type.
        ImportError: without Lightning Fabric (``pip install "cheaplip[cli]"``).

    Reference: Bungert et al. 2021, Algorithm 2; Madry et al. 2018 for ``adversary``.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> data = [(torch.randn(8, 2), torch.randint(2, (8,)))]
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> history = fit(net, data, loss=nn.functional.cross_entropy, optimizer=sgd, epochs=2)
        >>> len(history), history.kept
        (2, 2)
    """
    penalties, controls = _listed(penalty), _listed(control)
    check_model(model, loader)
    check_plan(epochs, lower_every, control_per, scheduler_per, scheduler)
    check_optimizer(optimizer, model)
    check_penalties(penalties, controls, loss)
    check_calls(loss, adversary=adversary, select=select, accuracy=accuracy, lower=lower)
    check_surroundings(seed, checkpoint, resume, fabric, progress)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, **states_of_loader(loader)}
    driving = {f"control_{k}": c for k, c in enumerate(controls)}
    stateful = isinstance(loss, nn.Module) and bool(loss.state_dict())  # such as MarginLoss
    parts |= states_of_penalties([*penalties, loss] if stateful else penalties) | driving
    configured = {f"penalty_{k}": p for k, p in enumerate(penalties)} | driving
    kept = Checkpoint(None if checkpoint is None else Path(checkpoint), parts, configured)
    measure = Measures(model, select, accuracy, lower, lower_every, epochs, controls)
    with _seeded(seed):
        kept.begin(resume)
        step = Step(model, optimizer, loss, penalties, controls, adversary, fabric)
        step.plan(scheduler, scheduler_per, control_per)
        _train(step, loader, epochs, kept, measure, progress)
        kept.best.give_back(model)
    kept.history.kept = kept.best.epoch or len(kept.history)
    return kept.history


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
            found["lower"] = float(self.lower(self.model))
        if self.select is not None:
            found["score"] = checked_score(self.select(self.model), epoch)
            if self.accuracy is not None:
                found["train_accuracy"] = checked_score(self.accuracy(self.model), epoch, "accuracy")
            near = _near_target(found.get("train_accuracy", row.get("accuracy", 0.0)), self.controls)
            kept.best.offer(self.model, found["score"], epoch, near)
        row.update(found)
        kept.measured = True


def _train(
    step: Step, loader: Iterable[Any], epochs: int, kept: Checkpoint, measure: Measures, progress: bool | None
) -> None:
    """Train, measure and save epoch by epoch; an epoch is saved before it is measured, lest an error lose it."""
    history, length = kept.history, _length(loader)

    def finish() -> None:
        step.plain.eval()
        measure(kept)
        kept.save()

    with Progress(epochs * length, len(history) * length, progress) as bar:
        if not kept.measured:
            finish()
        for epoch in range(len(history), epochs):
            history.rows.append(_run_epoch(step, loader, epoch, history, bar))
            kept.measured = not measure.due(epoch + 1)
            kept.save()
            if not kept.measured:
                finish()


def _run_epoch(step: Step, loader: Iterable[Any], epoch: int, history: History, bar: Progress) -> dict[str, float]:
    begun, steps = time.perf_counter(), int(history.rows[-1]["steps"]) if history.rows else 0
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    step.plain.train()
    step.start_epoch()
    done = steps
    for batch in loader:
        if done == steps:
            check_batch(batch)
        x, y = batch
        step(x, y)
        done += 1
        if bar.due():
            bar.show(done, {"epoch": epoch + 1, **step.figures(), **step.weights()})
    if done == steps:
        raise ValueError("the loader gave no minibatch: check the data and drop_last")
    row = {"epoch": epoch + 1, "steps": done, **step.figures(), **step.weights()}
    if not row["loss"] < float("inf"):
        raise ValueError(f"the training loss is {row['loss']} in epoch {epoch + 1}: lower the learning rate or λ")
    row |= {"rate": float(step.optimizer.param_groups[0]["lr"]), "seconds": time.perf_counter() - begun}
    bar.show(done, row)
    step.end_epoch()
    return row


def _near_target(accuracy: float, controls: list[Discrepancy]) -> bool:
    targets = [control.target for control in controls if control.measure == "accuracy"]
    return all(abs(accuracy - target) <= NEAR_TARGET for target in targets)


def _listed(one_or_more: Any) -> list[Any]:
    if one_or_more is None:
        return []
    return list(one_or_more) if isinstance(one_or_more, (list, tuple)) else [one_or_more]


def _length(loader: Any) -> int:
    try:
        return len(loader)
    except TypeError:
        return 0


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    before = random_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(before)
