"""The progress of a run on stderr: a line that lives on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
from typing import TextIO

from detzoo.train.trainer import TOTAL, LoopResult

SECONDS_BETWEEN_LINES = 30.0  # where stderr is no terminal and log_every_n_steps takes longer
_SMOOTHING = 0.7  # weight of the past in the speed shown
_LARGE = 1e4  # from here on a loss is shown with an exponent
_ERASE_LINE = "\r\x1b[K"


class Progress:
    """Shows step, loss parts, learning rate, images/s and the time left.

    Args:
        num_steps: Of the whole run.
        batch_size: Images of a step.
        log_every_n_steps: Interval of the lines where ``stream`` is no terminal.
        stream: Where to write, stderr by default.
        silent: Write nothing (workers that are not the chief).
        unit: What a batch is made of.
    """

    def __init__(
        self,
        num_steps: int,
        batch_size: int,
        log_every_n_steps: int,
        stream: TextIO | None = None,
        silent: bool = False,
        unit: str = "images",
    ) -> None:
        self._unit = unit
        self._num_steps, self._batch_size, self._log_every_n_steps = num_steps, batch_size, log_every_n_steps
        self._stream = stream if stream is not None else sys.stderr
        self._silent = silent
        self._live = not silent and self._stream.isatty()
        self._last_line_time = 0.0
        self._step_seconds = 0.0
        if self._live:
            for handler in logging.getLogger("detzoo").handlers:
                handler.addFilter(self._make_room)

    @property
    def images_per_second(self) -> float:
        """Recent speed of training alone: without evaluation and checkpoints."""
        return self._batch_size / self._step_seconds if self._step_seconds else 0.0

    def update(self, result: LoopResult, step_seconds: float | None) -> None:
        """Shows the state of the run if it is time.

        Args:
            result: Of the last loop.
            step_seconds: Its time for a step; None for the first one, which traces and says nothing about the speed.
        """
        if step_seconds is not None:
            weight = _SMOOTHING if self._step_seconds else 0.0
            self._step_seconds = weight * self._step_seconds + (1.0 - weight) * step_seconds
        if self._silent:
            return
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._write(_ERASE_LINE + self._line(result)[:width])
            return
        now = time.monotonic()
        due = result.step % self._log_every_n_steps == 0 or result.step >= self._num_steps
        if due or now - self._last_line_time >= SECONDS_BETWEEN_LINES:
            self._last_line_time = now
            self._write(self._line(result) + "\n")

    def message(self, text: str) -> None:
        """A line of its own."""
        if not self._silent:
            self._write((_ERASE_LINE if self._live else "") + text + "\n")

    def close(self) -> None:
        """Leaves the cursor on a new line."""
        if self._live:
            self._write("\n")
            for handler in logging.getLogger("detzoo").handlers:
                handler.removeFilter(self._make_room)
            self._live = False

    def _line(self, result: LoopResult) -> str:
        parts = " ".join(f"{name} {_number(value)}" for name, value in result.losses.items() if name != TOTAL)
        text = (
            f"step {result.step}/{self._num_steps}  loss {_number(result.losses[TOTAL])} ({parts})  "
            f"lr {result.learning_rate:.3g}"
        )
        if not self._step_seconds:
            return text
        left = duration((self._num_steps - result.step) * self._step_seconds)
        return f"{text}  {self.images_per_second:.1f} {self._unit}/s  {left} left"

    def _make_room(self, record: logging.LogRecord) -> bool:
        del record
        self._write(_ERASE_LINE)
        return True

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # its reader has gone, or the disk of its file is full: training continues
            self._stream.write(text)
            self._stream.flush()


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < _LARGE else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Minutes and seconds as 4:05, from an hour on as 1:04:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
