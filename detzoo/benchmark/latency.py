"""Times calls, and says how far the result can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.benchmark.measures import Latency

_SETTLED = 0.05  # medians of two neighbouring windows of warm-up calls differ by less, as a share
_WINDOW = 5  # calls
MAX_WARMUP_SECONDS = 5.0  # on top of the calls that were asked for
MAX_RUNS = 10_000  # however short the calls are


def time_call(call: Callable[[], Any], warmup: int, runs: int, min_seconds: float = 0.0) -> Latency:
    """Times a call that ends when its result is in memory.

    Args:
        call: what is timed.
        warmup: calls before the clock starts; more, for some seconds at most, until they have settled.
        runs: calls that are timed, or more, until ``min_seconds`` have passed.
        min_seconds: a machine changes its speed from second to second; a median over less follows that.
    """
    warm_up(call, warmup)
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) < runs or (time.perf_counter() - started < min_seconds and len(seconds) < MAX_RUNS):
        seconds.append(_timed(call))
    return summarize(seconds)


def warm_up(call: Callable[[], Any], calls: int) -> int:
    """Calls until two neighbouring windows of calls take the same time, at least ``calls`` times.

    Returns:
        How many calls it took.
    """
    seconds = [_timed(call) for _ in range(calls)]
    started = time.perf_counter()
    while not _is_settled(seconds) and time.perf_counter() - started < MAX_WARMUP_SECONDS:
        seconds.append(_timed(call))
    return len(seconds)


def time_alternately(calls: Sequence[Callable[[], Any]], warmup: int, runs: int) -> list[Latency]:
    """Times several calls in turn, so that a busy moment of the machine meets them all."""
    for call in calls:
        for _ in range(warmup):
            fetch(call())
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(runs):
        for call, found in zip(calls, seconds):
            found.append(_timed(call))
    return [summarize(found) for found in seconds]


def summarize(seconds: Sequence[float]) -> Latency:
    """The statistics of a list of durations, in the order in which they were measured."""
    milliseconds = 1000.0 * np.asarray(seconds)
    p10, median, p90 = (float(value) for value in np.percentile(milliseconds, (10, 50, 90)))
    return Latency(median, p10, p90, float(milliseconds.mean()), len(seconds), repeat_difference(milliseconds.tolist()))


def repeat_difference(durations: Sequence[float]) -> float | None:
    """How far the medians of the first and the second half differ, as a share of the whole median.

    Halves in time, not every other call: a machine that becomes slower or busier meets the second half alone.
    """
    if len(durations) < 2:
        return None
    half = len(durations) // 2
    first, second = np.median(durations[:half]), np.median(durations[-half:])
    return float(abs(first - second) / np.median(durations))


def fetch(result: Any) -> None:
    """Every value in host memory: on a GPU, a call returns before it has finished."""
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
