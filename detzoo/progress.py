"""Progress of a long loop on stderr: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0
COLUMNS_IF_UNKNOWN = 80


def track(items: Iterable[Item], total: int | None, label: str, unit: str = "images") -> Iterator[Item]:
    """Yields the items unchanged and shows how many have passed."""
    if sys.stderr.isatty():
        import tqdm

        # Some terminals (of containers, of CI) say that they have no columns; tqdm would then show nothing.
        width = {"dynamic_ncols": True} if _columns() else {"ncols": COLUMNS_IF_UNKNOWN}
        yield from tqdm.tqdm(items, total=total, desc=label, unit=f" {unit}", **width)
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


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0
