"""Times calls and measures how stable the times are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.benchmark.measures import Latency

_SETTLED = 0.05  # largest relative difference of the medians of two adjacent windows of warm-up calls
_WINDOW = 5  # calls
MAX_WARMUP_SECONDS = 5.0  # after the requested calls
MAX_RUNS = 10_000  # for short calls


def time_call(call: Callable[[], Any], warmup: int, runs: int, min_seconds: float = 0.0) -> Latency:
    """Times a call including the copy of its result to host memory.

    At least ``runs`` calls are timed after the ``warm_up``, for ``min_seconds`` or longer. The speed of a machine
    changes from second to second, and the median of a shorter time would follow it.
    """
    warm_up(call, warmup)
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) < runs or (time.perf_counter() - started < min_seconds and len(seconds) < MAX_RUNS):
        seconds.append(_timed(call))
    return summarize(seconds)


def warm_up(call: Callable[[], Any], calls: int) -> int:
    """Calls at least ``calls`` times and until the times settle; returns the number of calls."""
    seconds = [_timed(call) for _ in range(calls)]
    started = time.perf_counter()
    while not _is_settled(seconds) and time.perf_counter() - started < MAX_WARMUP_SECONDS:
        seconds.append(_timed(call))
    return len(seconds)


def time_alternately(calls: Sequence[Callable[[], Any]], warmup: int, runs: int) -> list[Latency]:
    """Times several calls in turn, so that a busy moment of the machine affects all of them."""
    for call in calls:
        for _ in range(warmup):
            fetch(call())
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(runs):
        for call, found in zip(calls, seconds):
            found.append(_timed(call))
    return [summarize(found) for found in seconds]


def summarize(seconds: Sequence[float]) -> Latency:
    """Returns statistics of durations, given in the order of their measurement."""
    milliseconds = 1000.0 * np.asarray(seconds)
    p10, median, p90 = (float(value) for value in np.percentile(milliseconds, (10, 50, 90)))
    return Latency(median, p10, p90, float(milliseconds.mean()), len(seconds), repeat_difference(milliseconds.tolist()))


def repeat_difference(durations: Sequence[float]) -> float | None:
    """Returns the difference of the medians of the first and the second half, relative to the median of all.

    Halves in time rather than alternate calls: if a machine becomes slower or busier, only the second half is affected.
    """
    if len(durations) < 2:
        return None
    half = len(durations) // 2
    first, second = np.median(durations[:half]), np.median(durations[-half:])
    return float(abs(first - second) / np.median(durations))


def fetch(result: Any) -> None:
    """Copies every value to host memory; on a GPU, a call returns before it has finished."""
    for tensor in tf.nest.flatten(result):
        if isinstance(tensor, tf.Tensor):
            tensor.numpy()


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    fetch(call())
    return time.perf_counter() - started


def _is_settled(seconds: Sequence[float]) -> bool:
    if len(seconds) < 2 * _WINDOW:
        return False
    before, after = np.median(seconds[-2 * _WINDOW : -_WINDOW]), np.median(seconds[-_WINDOW:])
    return bool(abs(before - after) <= _SETTLED * after)
