"""Progress of long work on stderr: one bar on a terminal, a line per interval elsewhere, one text for durations."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0
COLUMNS_IF_UNKNOWN, ROWS_IF_UNKNOWN = 80, 24

_is_quiet = False


def set_quiet(quiet: bool) -> None:
    """Hides the progress of all work in this process, or shows it again."""
    global _is_quiet
    _is_quiet = quiet


def is_quiet() -> bool:
    """Returns whether progress is hidden."""
    return _is_quiet


def duration(seconds: float) -> str:
    """Returns a duration in words: "40 s", "7 min", "3 h 20 min", "2 days 4 h"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(round(minutes, -1), 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} days {hours % 24} h" if hours % 24 else f"{hours // 24} days"


def progress_bar(
    total: int | None,
    label: str = "",
    unit: str = "images",
    shown: bool = True,
    stream: TextIO | None = None,
    **options: Any,
) -> Any:
    """Returns a tqdm bar that fits its terminal, also one that reports no width.

    Args:
        total: Number of items, None if unknown.
        label: Text in front of the bar.
        unit: Name of the items.
        shown: False for a bar that shows nothing.
        stream: Terminal, stderr by default.
        **options: Further arguments of ``tqdm.tqdm``.
    """
    import tqdm

    stream = stream or sys.stderr
    size = {"dynamic_ncols": True} if _columns(stream) else {"ncols": COLUMNS_IF_UNKNOWN, "nrows": ROWS_IF_UNKNOWN}
    hidden = _is_quiet or not shown
    return tqdm.tqdm(total=total, desc=label, unit=f" {unit}", disable=hidden, file=stream, **size, **options)


def track(items: Iterable[Item], total: int | None, label: str, unit: str = "images") -> Iterator[Item]:
    """Yields the items unchanged and shows how many have passed."""
    if _is_quiet:
        yield from items
        return
    if sys.stderr.isatty():
        with progress_bar(total, label, unit) as bar:
            for item in items:
                yield item
                bar.update()
        return
    started = last = time.monotonic()
    of_total = f" of {total}" if total is not None else ""
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            speed = count / (now - started)
            sys.stderr.write(f"{label}: {count}{of_total} {unit}, {speed:.{0 if speed >= 10 else 2}f}/s\n")
            sys.stderr.flush()
            last = now


def _columns(stream: TextIO) -> int:
    """Returns the width of a terminal; 0 if it reports none, as terminals of containers and CI do."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def is_live(stream: TextIO) -> bool:
    """Returns True if a bar can move on a stream: on a terminal, and in a notebook."""
    return stream.isatty() or type(stream).__module__.startswith("ipykernel")
