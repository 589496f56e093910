"""Ctrl-C and SIGTERM as a flag, so that a step is finished and saved before training stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, final


@final
class Stopping:
    """Turns Ctrl-C and SIGTERM into a flag for the length of a block; in the main thread alone, as Python has it.

    At the end of the block, or by :meth:`leave` within it, whoever heard the signal before hears it after all: Ctrl-C
    raises KeyboardInterrupt. A second Ctrl-C does so at once; a second SIGTERM changes nothing, as some send it twice.
    A signal that was ignored stays so.

    Args:
        active: False leaves the signals as they are.
        said: the message of the KeyboardInterrupt at the end of the block.

    Example:
        >>> try:
        ...     with Stopping() as stop:
        ...         signal.raise_signal(signal.SIGINT)
        ...         print("finished", stop.asked)
        ... except KeyboardInterrupt:
        ...     print("stopped")
        finished True
        stopped
    """

    def __init__(self, active: bool = True, said: str = "") -> None:
        self.asked, self.said = False, said
        self._number, self._active = signal.SIGINT, active
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        """Listen."""
        if self._active and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (None, signal.SIG_IGN):
                    self._before[number] = before
                    signal.signal(number, self._heed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the signals go where they went before; one that came meanwhile too, unless there is an error."""
        self._restore()
        if self.asked and kind is None:
            self.leave(self.said)

    def leave(self, said: str) -> NoReturn:
        """Stop now.

        Args:
            said: the message of the KeyboardInterrupt.

        Raises:
            KeyboardInterrupt: for Ctrl-C.
            SystemExit: for SIGTERM, where nobody else heard it before.
        """
        before = self._before.get(self._number)
        self._restore()
        if before is signal.SIG_DFL:
            signal.raise_signal(self._number)  # ends the process, as it would have
        elif callable(before) and before is not signal.default_int_handler:
            before(self._number, None)
        if self._number == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(said)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again and number == signal.SIGINT:
            self._number = signal.SIGINT
            self.leave("stopped at once")
        if not again:
            self._number = signal.Signals(number)

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
