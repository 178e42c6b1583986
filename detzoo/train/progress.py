"""Progress of a training on stderr: a live line on a terminal, a line per interval elsewhere."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
from typing import TextIO

from detzoo.progress import duration, is_quiet, progress_bar
from detzoo.train.trainer import TOTAL, LoopResult

SECONDS_BETWEEN_LINES = 30.0  # for slow steps, if stderr is no terminal
_SMOOTHING = 0.7  # weight of the past in the speed shown
_LARGE = 1e4  # larger losses are shown with an exponent


class Progress:
    """Shows step, loss parts, learning rate, images/s and the time left on a stream, stderr by default.

    Args:
        num_steps: Steps of the whole run.
        batch_size: Images per step.
        log_every_n_steps: Interval of the lines if ``stream`` is no terminal.
        stream: Stream to write to.
        silent: Write nothing (workers other than the chief).
        unit: Name of the items in a batch.
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
        self._silent, self._shows_progress = silent, not (silent or is_quiet())
        self._last_line_time = 0.0
        self._step_seconds = 0.0
        self._terminal = contextlib.ExitStack()
        self._bar = None
        if self._shows_progress and self._stream.isatty():
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._bar = self._terminal.enter_context(progress_bar(num_steps, stream=self._stream, bar_format="{desc}"))
            self._terminal.enter_context(logging_redirect_tqdm([logging.getLogger("detzoo")]))

    @property
    def images_per_second(self) -> float:
        """Recent speed of training alone: without evaluation and checkpoints."""
        return self._batch_size / self._step_seconds if self._step_seconds else 0.0

    def update(self, result: LoopResult, step_seconds: float | None) -> None:
        """Shows the state of the run if it is time.

        Args:
            result: Result of the last loop.
            step_seconds: Seconds per step of this loop; None for the first loop, which traces.
        """
        if step_seconds is not None:
            weight = _SMOOTHING if self._step_seconds else 0.0
            self._step_seconds = weight * self._step_seconds + (1.0 - weight) * step_seconds
        if not self._shows_progress:
            return
        if self._bar is not None:
            width = shutil.get_terminal_size().columns - 1
            with contextlib.suppress(OSError):
                self._bar.set_description_str(self._line(result)[:width])
            return
        now = time.monotonic()
        due = result.step % self._log_every_n_steps == 0 or result.step >= self._num_steps
        if due or now - self._last_line_time >= SECONDS_BETWEEN_LINES:
            self._last_line_time = now
            self._write(self._line(result) + "\n")

    def message(self, text: str) -> None:
        """Writes a separate line about the progress."""
        if self._shows_progress:
            self._write(text + "\n")

    def warning(self, text: str) -> None:
        """Writes a separate line also if progress is hidden."""
        if not self._silent:
            self._write(text + "\n")

    def close(self) -> None:
        """Leaves the cursor on a new line."""
        with contextlib.suppress(OSError):
            self._terminal.close()
        self._bar = None

    def _line(self, result: LoopResult) -> str:
        parts = " ".join(f"{name} {_number(value)}" for name, value in result.losses.items() if name != TOTAL)
        text = (
            f"step {result.step}/{self._num_steps}  loss {_number(result.losses[TOTAL])} ({parts})  "
            f"lr {result.learning_rate:.3g}"
        )
        if not self._step_seconds:
            return text
        text += f"  {self.images_per_second:.1f} {self._unit}/s"
        steps_left = self._num_steps - result.step
        return f"{text}  {duration(steps_left * self._step_seconds)} left" if steps_left > 0 else text

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a reader that has gone or a full disk does not stop the training
            if self._bar is not None:
                self._bar.write(text, file=self._stream, end="")
                return
            self._stream.write(text)
            self._stream.flush()


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < _LARGE else f"{value:.3g}"
