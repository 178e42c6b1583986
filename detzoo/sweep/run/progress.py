"""What a running sweep shows: a line for each point that ends, and on a terminal a bar with what runs and is left."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from detzoo.sweep.columns import Status
from detzoo.sweep.results import Row
from detzoo.sweep.run.estimate import Remaining, in_words
from detzoo.sweep.run.runner import Work

_WIDTH_IF_UNKNOWN = 80


class SweepProgress:
    """Watches a Runner.

    Args:
        num_points: of the whole sweep that are to be measured.
        remaining: the time left.
    """

    def __init__(self, num_points: int, remaining: Remaining) -> None:
        self._num_points = num_points
        self._remaining = remaining
        self._running: dict[str, tuple[str, float]] = {}  # key -> name and start
        self.done = self.failed = self.elsewhere = 0
        self._bar = _bar(num_points) if sys.stderr.isatty() else None

    def started(self, work: Work) -> None:
        """Shows what runs."""
        self._running[work.key] = (work.name, time.monotonic())
        self._show()

    def ended(self, work: Work, row: Row | None, seconds: float) -> None:
        """Counts and tells a point, or the end of a training."""
        self._running.pop(work.key, None)
        self._remaining.ended(work.key, seconds)
        is_point = row is not None or not seconds
        if row is not None and row["status"] == Status.OK.value:
            self.done += 1
        elif row is not None:
            self.failed += 1
        elif is_point:
            self.elsewhere += 1
        count = self.done + self.failed + self.elsewhere
        self._say(f"[{count}/{self._num_points}] {work.name}: {_told(work, row, seconds)}")
        if self._bar is not None and is_point:
            self._bar.update(1)
        self._show()

    def tick(self) -> None:
        """Shows the time that passes."""
        self._show()

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
            return
        sys.stderr.write(f"{line}; {self._left()} left\n")
        sys.stderr.flush()

    def _show(self) -> None:
        if self._bar is None:
            return
        failed = f", {self.failed} failed" if self.failed else ""
        names = ", ".join(name for name, _ in self._running.values())
        self._bar.set_postfix_str(f"{self._left()} left{failed}{f': {names}' if names else ''}")

    def _left(self) -> str:
        now = time.monotonic()
        seconds = self._remaining.seconds({key: now - started for key, (_, started) in self._running.items()})
        return in_words(seconds) if seconds else "nothing"


def _told(work: Work, row: Row | None, seconds: float) -> str:
    """The end of a piece of work in a few words."""
    if row is None:
        return f"{work.done} in {in_words(seconds)}" if seconds else "another sweep has it"
    if row["status"] == Status.FAILED.value:
        return f"failed: {row['reason']}"
    parts = []
    if isinstance(row["latency.median_ms"], (int, float)):
        parts.append(f"{row['latency.median_ms']:.1f} ms")
    if isinstance(row["memory.peak_mib"], (int, float)):
        parts.append(f"{row['memory.peak_mib']:.0f} MiB")
    summary = next((name for name in ("mAP", "AR@1000", "mask AR@1000") if isinstance(row[name], (int, float))), None)
    if summary:
        parts.append(f"{summary} {row[summary]:.3f}")
    return f"{', '.join(parts) or 'measured'} (in {in_words(seconds)})"


def _bar(num_points: int) -> Any:
    import tqdm

    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    width: dict[str, Any] = {"dynamic_ncols": True} if columns else {"ncols": _WIDTH_IF_UNKNOWN}
    layout = "{desc} {n_fmt}/{total_fmt} |{bar:12}| {elapsed}{postfix}"
    return tqdm.tqdm(total=num_points, desc="sweep", bar_format=layout, **width)
