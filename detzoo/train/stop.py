"""Signals that request the end of a run, which saves first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class StopNow(BaseException):
    """Raised within work that can be dropped, such as an evaluation.

    Derives from BaseException so that ``except Exception`` does not catch it.
    """


class StopRequest:
    """Context that records SIGTERM and SIGINT (Ctrl-C) instead of ending the process; a second Ctrl-C ends it.

    Attributes:
        signal: First signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._interruptible = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def listen_again(self) -> None:
        """Installs the handlers again, because TensorFlow's coordination service replaces that of SIGTERM."""
        for number in self._previous:
            signal.signal(number, self._note)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @property
    def requested(self) -> bool:
        """True if a signal came, so that the run must save and end."""
        return self.signal is not None

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Makes a signal raise StopNow immediately in its context."""
        if self.requested:
            raise StopNow
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or signal.Signals(number)
        if self._interruptible:
            self._interruptible = False
            raise StopNow
