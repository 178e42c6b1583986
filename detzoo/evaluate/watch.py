"""Waits for the checkpoints that a running training writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from detzoo.errors import CheckpointError

POLL_SECONDS = 2.0

logger = logging.getLogger(__name__)


def new_checkpoints(
    newest: Callable[[], str],
    timeout_seconds: float,
    *,
    poll_seconds: float = POLL_SECONDS,
    is_finished: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """Yields each checkpoint once as it becomes the newest; those that came and went meanwhile are left out.

    Args:
        newest: gives the prefix of the newest checkpoint; raises CheckpointError where there is none yet.
        timeout_seconds: ends after so long without a new one.
        poll_seconds: pause between two looks.
        is_finished: whether no more checkpoints will come.
    """
    last: str | None = None
    waiting_since = time.monotonic()
    told = False
    while True:
        # Asked before the look, so that the last checkpoint of a training that ends in between is not missed.
        finished = is_finished()
        try:
            found: str | None = newest()
        except CheckpointError as problem:
            found = None
            if not told:
                logger.info("%s; waiting", problem)
                told = True
        if found is not None and found != last:
            last = found
            yield found
            waiting_since, told = time.monotonic(), False
            continue
        if finished:
            return
        if time.monotonic() - waiting_since >= timeout_seconds:
            logger.info("no new checkpoint within %.0f s", timeout_seconds)
            return
        if not told:
            logger.info("waiting for a new checkpoint")
            told = True
        time.sleep(poll_seconds)
