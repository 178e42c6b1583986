"""Progress of a long loop on stderr: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[Item], total: int | None, label: str, unit: str = "images") -> Iterator[Item]:
    """Yields the items unchanged and shows how many have passed."""
    if sys.stderr.isatty():
        import tqdm

        yield from tqdm.tqdm(items, total=total, desc=label, unit=f" {unit}", dynamic_ncols=True)
        return
    started = last = time.monotonic()
    of_total = f" of {total}" if total is not None else ""
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            sys.stderr.write(f"{label}: {count}{of_total} {unit}, {count / (now - started):.0f}/s\n")
            sys.stderr.flush()
            last = now
