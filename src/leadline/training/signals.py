"""SIGINT and SIGTERM, heard at the next step: save first, then stop.

The first signal asks the training to save and stop; a second SIGINT quits at once, and the last
checkpoint stays what it was. A process stopped by SIGTERM exits with 143, by SIGINT with 130.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any


class Stopped(BaseException):
    """The training was asked to stop, and has saved; carries the signal's number and the run."""

    def __init__(self, number: int, *, folder: Path) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.folder = folder

    @property
    def exit_code(self) -> int:
        """The shell's convention: 128 plus the signal's number."""
        return 128 + self.number


class StopRequests:
    """A context in which the two signals set `number` instead of ending the process."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.number == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.number = number
