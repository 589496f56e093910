"""A progress bar for those who wait longer than two seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, final

PATIENCE = 2.0  # seconds


@final
class Waiting:
    """A bar that appears once two seconds have passed, if there is anyone to see it.

    Args:
        total: how many times :meth:`advance` will be called, about.
        shown: True, False, or None for: if standard error is a terminal.

    Example:
        >>> with Waiting(1, shown=False) as waiting:
        ...     waiting.advance("drawing")
    """

    def __init__(self, total: int, shown: bool | None = None) -> None:
        self._total, self._done, self._begun = total, 0, time.perf_counter()
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._bar: Any = None

    def __enter__(self) -> Waiting:
        """Begin to count the seconds."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it stands, full if all went well."""
        if self._bar is not None:
            if kind is None:
                self._bar.update(self._task, completed=self._total)
            self._bar.stop()

    def advance(self, text: str) -> None:
        """Say that one more piece is done, and what follows."""
        self._done = min(self._done + 1, self._total)
        if self._shown and self._bar is None and time.perf_counter() - self._begun > PATIENCE:
            self._start()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=text)

    def _start(self) -> None:
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
        )
        self._bar = progress.Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=self._total)
        self._bar.start()
