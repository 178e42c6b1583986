"""Output of a running sweep: a line per point that ends; on a terminal also a bar with running points and time left."""

from __future__ import annotations

import sys
import time

from detzoo.progress import duration, is_quiet, progress_bar
from detzoo.sweep.columns import Status
from detzoo.sweep.measured import main_accuracy
from detzoo.sweep.results import Row
from detzoo.sweep.run.estimate import Remaining
from detzoo.sweep.run.runner import Work

_LAYOUT = "{desc} {n_fmt}/{total_fmt} |{bar:12}| {elapsed}{postfix}"


class SweepProgress:
    """Watches a Runner that measures this number of points."""

    def __init__(self, num_points: int, remaining: Remaining) -> None:
        self._num_points = num_points
        self._remaining = remaining
        self._running: dict[str, tuple[str, float]] = {}  # key -> name and start
        self.done = self.failed = self.skipped = self._elsewhere = 0
        has_bar = sys.stderr.isatty() and not is_quiet()
        self._bar = progress_bar(num_points, "sweep", bar_format=_LAYOUT) if has_bar else None

    def started(self, work: Work) -> None:
        """Adds running work."""
        self._running[work.key] = (work.name, time.monotonic())
        self.tick()

    def ended(self, work: Work, row: Row | None, seconds: float) -> None:
        """Prints the end of work, and counts it if it is that of a point."""
        self._running.pop(work.key, None)
        self._remaining.ended(work.key, seconds)
        is_point = row is not None or not seconds
        if row is None:
            self._elsewhere += is_point
        elif row["status"] == Status.OK.value:
            self.done += 1
        elif row["status"] == Status.SKIPPED.value:
            self.skipped += 1
        else:
            self.failed += 1
        count = self.done + self.failed + self.skipped + self._elsewhere
        line = f"[{count}/{self._num_points}] {work.name}: {_end_of(work, row, seconds)}"
        if is_quiet() and (row is None or row["status"] != Status.FAILED.value):
            return
        if self._bar is None:
            sys.stderr.write(f"{line}; {self._left()} left\n")
            sys.stderr.flush()
            return
        self._bar.write(line, file=sys.stderr)
        self._bar.update(is_point)
        self.tick()

    def tick(self) -> None:
        """Shows the state of now."""
        if self._bar is not None:
            failed = f", {self.failed} failed" if self.failed else ""
            names = ", ".join(name for name, _ in self._running.values())
            self._bar.set_postfix_str(f"{self._left()} left{failed}{f': {names}' if names else ''}")

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def _left(self) -> str:
        now = time.monotonic()
        seconds = self._remaining.seconds({key: now - started for key, (_, started) in self._running.items()})
        return duration(seconds) if seconds else "nothing"


def _end_of(work: Work, row: Row | None, seconds: float) -> str:
    if row is None:
        return f"{work.done} in {duration(seconds)}" if seconds else "another sweep has it"
    if row["status"] != Status.OK.value:
        return f"{row['status']}: {row['reason']}"
    accuracy = main_accuracy([row])
    columns = (("latency.median_ms", "{:.1f} ms"), ("memory.peak_mib", "{:.0f} MiB"), (accuracy, accuracy + " {:.3f}"))
    parts = [words.format(row[name]) for name, words in columns if row[name] is not None]
    return f"{', '.join(parts) or 'measured'} (in {duration(seconds)})"
