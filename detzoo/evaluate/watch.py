"""Waits for the checkpoints of a running training."""

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
    """Yields each checkpoint once when it is the newest; checkpoints that were replaced meanwhile are skipped.

    ``newest`` returns the prefix of the newest checkpoint and raises CheckpointError without one. The end is reached if
    no more will come (``is_finished``), or none came for ``timeout_seconds``.
    """
    last: str | None = None
    waiting_since = time.monotonic()
    reported = False
    while True:
        # Checked before the search, so that the last checkpoint of a training that ends in between is not missed.
        finished = is_finished()
        try:
            found: str | None = newest()
        except CheckpointError as problem:
            found = None
            if not reported:
                logger.info("%s; waiting", problem)
                reported = True
        if found is not None and found != last:
            last = found
            yield found
            waiting_since, reported = time.monotonic(), False
            continue
        if finished:
            return
        if time.monotonic() - waiting_since >= timeout_seconds:
            logger.info("no new checkpoint within %.0f s", timeout_seconds)
            return
        if not reported:
            logger.info("waiting for a new checkpoint")
            reported = True
        time.sleep(poll_seconds)
