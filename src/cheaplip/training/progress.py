"""The progress bar of a training run."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, final

# Writing to the terminal costs more than a step of a small network.
INTERVAL = 0.2
# What the columns of the history are called in prose.
SHOWN = {"value": "Lip", "weight": "λ"}


@final
class Progress:
    """A bar with loss, accuracy, Lip and λ; silent where ``shown`` is False.

    Args:
        total: how many steps there are.
        done: how many of them were made before.
        shown: True, False, or None for: if standard error is a terminal.
    """

    def __init__(self, total: int, done: int = 0, shown: bool | None = None) -> None:
        self._bar: Any = None
        self._last = 0.0
        if sys.stderr.isatty() if shown is None else shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=total, completed=done)

    def __enter__(self) -> Progress:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()

    def due(self) -> bool:
        """Tell whether it is time to show figures again: they cost a look at the device."""
        return self._bar is not None and time.perf_counter() - self._last > INTERVAL

    def show(self, done: int, figures: dict[str, float]) -> None:
        """Show how many steps are done, and figures such as the loss."""
        if self._bar is not None:
            self._last = time.perf_counter()
            text = "  ".join(f"{SHOWN.get(name, name)} {value:.4g}" for name, value in figures.items())
            self._bar.update(self._task, completed=done, description=text)
