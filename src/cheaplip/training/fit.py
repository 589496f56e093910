"""fit(): the joint loop, with control, adversary, selection and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cheaplip.control import Discrepancy
from cheaplip.training.checkpoint import Checkpoint, random_state, set_random_state
from cheaplip.training.history import History
from cheaplip.training.progress import Progress
from cheaplip.training.step import Step, penalty_figures

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
        loader: minibatches ``(x, y)``; if it has ``set_epoch``, it is told the epoch, counted from 0.
        loss: of outputs and labels, a scalar.
        optimizer: over the model's parameters.
        epochs: how many.
        penalty: one or several; their terms add. One with ``joint`` shares the minibatch's forward.
        control: one or several :class:`Discrepancy`, each fed with training accuracy or loss.
        control_per: ``"batch"`` (the paper) or ``"epoch"``, when the controls are fed.
        scheduler: a learning rate scheduler.
        scheduler_per: ``"epoch"`` or ``"batch"``, when it is stepped.
        adversary: an attack, whose points replace the minibatch (min-max training); statistics stay frozen
            while it searches.
        select: a score of the model, higher is better, taken after each epoch; the best epoch is kept, among those
            whose training accuracy is within a point of the control's target if there is one. None keeps the last.
        lower: a stronger lower bound of Lip, recorded beside the penalty's own value.
        lower_every: after every so many epochs, and the last.
        seed: of torch's global generator while training (Dropout, adversary); restored afterwards.
        checkpoint: a folder for the checkpoint, written after each epoch; None writes nothing.
        resume: go on from the checkpoint in that folder; without one there, begin.
        fabric: a Lightning Fabric of your own (device, precision, processes); by default the model's device alone.
        progress: show a bar; by default if standard error is a terminal.

    Returns:
        The history; ``history.kept`` is the epoch whose weights were kept.

    Raises:
        ValueError: for an argument out of range, an empty loader, a loss that is not finite, or a checkpoint that
            is in the way or does not fit.
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
    _check(model, loader, epochs, control_per, scheduler_per, lower_every)
    penalties, controls = _listed(penalty), _listed(control)
    folder = None if checkpoint is None else Path(checkpoint)
    kept = Checkpoint(folder, _parts(model, optimizer, scheduler, penalties, controls))
    history, best = kept.history, kept.best
    with _seeded(seed):
        kept.begin(resume)
        step = Step(model, optimizer, loss, penalties, controls, adversary, fabric)
        step.plan(scheduler, scheduler_per, control_per)
        with Progress(epochs * _length(loader), len(history) * _length(loader), progress) as bar:
            for epoch in range(len(history), epochs):
                row = _run_epoch(step, loader, epoch, history, bar)
                if lower is not None and ((epoch + 1) % lower_every == 0 or epoch + 1 == epochs):
                    row["lower"] = float(lower(model))
                if select is not None:
                    row["score"] = float(select(model))
                    best.offer(model, row["score"], epoch + 1, _near_target(row, controls))
                history.rows.append(row)
                kept.save()
        best.give_back(model)
    history.kept = best.epoch or len(history)
    return history


def _parts(
    model: nn.Module, optimizer: Any, scheduler: Any, penalties: list[Any], controls: list[Discrepancy]
) -> dict[str, Any]:
    """Return all that has a state, by name."""
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    parts |= {f"penalty_{k}": p for k, p in enumerate(penalties) if hasattr(p, "state_dict")}
    return parts | {f"control_{k}": c for k, c in enumerate(controls)}


def _run_epoch(step: Step, loader: Iterable[Any], epoch: int, history: History, bar: Progress) -> dict[str, float]:
    begun, steps = time.perf_counter(), int(history.rows[-1]["steps"]) if history.rows else 0
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    step.plain.train()
    step.start_epoch()
    done = steps
    for x, y in loader:
        step(x, y)
        done += 1
        if bar.due():
            bar.show(done, {"epoch": epoch + 1, **step.figures(), **penalty_figures(step.penalties)})
    if done == steps:
        raise ValueError("the loader gave no minibatch: check the data and drop_last")
    row = {"epoch": epoch + 1, "steps": done, **step.figures(), **penalty_figures(step.penalties)}
    if not row["loss"] < float("inf"):
        raise ValueError(f"the training loss is {row['loss']} in epoch {epoch + 1}: lower the learning rate or λ")
    row |= {"rate": float(step.optimizer.param_groups[0]["lr"]), "seconds": time.perf_counter() - begun}
    bar.show(done, row)
    step.end_epoch()
    return row


def _near_target(row: dict[str, float], controls: list[Discrepancy]) -> bool:
    targets = [control.target for control in controls if control.measure == "accuracy"]
    return all(abs(row["accuracy"] - target) <= NEAR_TARGET for target in targets)


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


def _check(model: nn.Module, loader: Any, epochs: int, control_per: str, scheduler_per: str, lower_every: int) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("the model has no trainable parameter")
    if not hasattr(loader, "__iter__"):
        raise TypeError(f"loader must give minibatches (x, y) when iterated; got {type(loader).__name__}")
    for name, count in (("epochs", epochs), ("lower_every", lower_every)):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {count!r}")
    for name, when in (("control_per", control_per), ("scheduler_per", scheduler_per)):
        if when not in ("batch", "epoch"):
            raise ValueError(f'{name} must be "batch" or "epoch"; got {when!r}')
