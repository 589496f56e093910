"""The loop: train, measure and save, epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from cheaplip.training.checkpoint import Checkpoint
from cheaplip.training.checks import check_batch
from cheaplip.training.history import History
from cheaplip.training.measures import Measures
from cheaplip.training.progress import Progress
from cheaplip.training.step import Step


def train(
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
    step.plain.eval()  # where there was no epoch left


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


def _length(loader: Any) -> int:
    try:
        return len(loader)
    except TypeError:
        return 0
