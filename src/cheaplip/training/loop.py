"""The loop: train, measure and save, epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from cheaplip.training.checkpoint import Checkpoint
from cheaplip.training.checks import check_batch
from cheaplip.training.inside import continues, go_on, inside
from cheaplip.training.measures import Measures
from cheaplip.training.progress import Progress
from cheaplip.training.step import Step
from cheaplip.training.stopping import Stopping


def train(
    step: Step, loader: Iterable[Any], epochs: int, kept: Checkpoint, measure: Measures, progress: bool | None
) -> None:
    """Train, measure and save epoch by epoch; an epoch is saved before it is measured, lest an error lose it."""
    history, length = kept.history, _length(loader)
    done = len(history) * length + (kept.inside["steps"] if kept.inside else 0)

    def finish() -> None:
        step.plain.eval()
        measure(kept)
        kept.save()

    with Progress(epochs * length, done, progress) as bar:
        if not kept.measured:
            finish()
        for epoch in range(len(history), epochs):
            said = f"stopped after epoch {epoch + 1}; {_how_to_go_on(kept)}"
            with Stopping(kept.folder is not None, said) as stop:
                history.rows.append(_run_epoch(step, loader, epoch, kept, bar, stop))
                kept.measured = not measure.due(epoch + 1)
                kept.save()
                if max(kept.ranks.numbers(stop.asked)) > 0:  # never set back, as a signal may come just now
                    stop.asked = True
            if not kept.measured:
                finish()
    step.plain.eval()  # where there was no epoch left


def _run_epoch(
    step: Step, loader: Iterable[Any], epoch: int, kept: Checkpoint, bar: Progress, stop: Stopping
) -> dict[str, float]:
    before = int(kept.history.rows[-1]["steps"]) if kept.history.rows else 0
    step.plain.train()
    length, together = _length(loader), kept.ranks.count > 1
    batches, steps, seconds = _begun(step, loader, epoch, kept, stop)
    begun = time.perf_counter() - seconds
    for batch in batches:
        if not steps:
            check_batch(batch)
        x, y = batch
        told = step(x, y, stop.asked)
        steps += 1
        # Several processes stop at the same step, when all were told, lest they wait for each other.
        if (told if together else stop.asked) and steps != length:  # the end of an epoch is saved as such
            if continues(loader):
                kept.inside = inside(step, steps, (x, y), time.perf_counter() - begun)
                kept.save()
            _leave(stop, kept, epoch, steps)
        if bar.due():
            bar.show(before + steps, {"epoch": epoch + 1, **step.figures(), **step.weights()})
    if not steps:
        raise ValueError("the loader gave no minibatch: check the data and drop_last")
    row = {"epoch": epoch + 1, "steps": before + steps, **step.figures(), **step.weights()}
    if not row["loss"] < float("inf"):
        raise ValueError(
            f"the training loss is {row['loss']} in epoch {epoch + 1}: lower the learning rate or λ, or remove NaN and "
            "infinite values from the data"
        )
    row |= {"rate": float(step.optimizer.param_groups[0]["lr"]), "seconds": time.perf_counter() - begun}
    bar.show(before + steps, row)
    step.end_epoch()
    return row


def _begun(step: Step, loader: Any, epoch: int, kept: Checkpoint, stop: Stopping) -> tuple[Iterator[Any], int, float]:
    """Begin an epoch, or go on inside it: return its minibatches, and how many steps and seconds were before them."""
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    step.start_epoch()
    state, kept.inside = kept.inside, None
    if state is None:
        return _heeding(loader, epoch, kept, stop), 0, 0.0
    left = go_on(step, loader, state)
    if left is None:
        raise kept.refusal(
            f"it was stopped inside epoch {epoch + 1} by a loader that goes on there, which this one does not"
        )
    return left, state["steps"], state["seconds"]


def _heeding(loader: Iterable[Any], epoch: int, kept: Checkpoint, stop: Stopping) -> Iterator[Any]:
    """Give the minibatches; a loader whose own processes heard Ctrl-C as well may fail by it."""
    try:
        yield from loader
    except Exception:
        if stop.asked:
            _leave(stop, kept, epoch, 0)
        raise


def _leave(stop: Stopping, kept: Checkpoint, epoch: int, steps: int) -> NoReturn:
    if kept.inside is None and not kept.history.rows:
        stop.leave("stopped in epoch 1, before anything was saved; begin again with a fresh model")
    where = "which begins anew" if kept.inside is None else f"whose first {steps} steps are saved"
    stop.leave(f"stopped in epoch {epoch + 1}, {where}; {_how_to_go_on(kept)}")


def _how_to_go_on(kept: Checkpoint) -> str:
    return f"go on by fit(..., checkpoint={str(kept.folder)!r}, resume=True)"


def _length(loader: Any) -> int:
    try:
        return len(loader)
    except TypeError:
        return 0
