"""What other programs use of the processor before and during a measurement."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import psutil

QUIET_SHARE = 0.1  # of the cores: below it, other programs change a median by less than runs differ anyway
SECONDS_BEFORE = 0.5  # counters tick 100 times a second: a share of 0.02 of a core can be told


class Load(NamedTuple):
    """Cores that other programs used."""

    before: float
    during: float
    is_quiet: bool


class LoadMeter:
    """Cores that programs other than this one (and its children that have ended) use, from here to ``read``.

    Counted on those cores that this process may use. What the host of a virtual machine takes away counts as well.
    """

    def __init__(self) -> None:
        self._started, self._busy, self._own = time.perf_counter(), busy_seconds(), own_seconds()

    def read(self) -> float:
        """Cores used by others since the start, on average; 0 or more."""
        elapsed = time.perf_counter() - self._started
        others = busy_seconds() - self._busy - (own_seconds() - self._own)
        return max(0.0, others / max(elapsed, 1e-9))


def load_before(seconds: float = SECONDS_BEFORE) -> float:
    """Cores that others use now, while this process sleeps."""
    meter = LoadMeter()
    time.sleep(seconds)
    return meter.read()


def judge(before: float, during: float, cores: int) -> Load:
    """Whether both loads are small enough for times to count."""
    return Load(round(before, 2), round(during, 2), max(before, during) <= QUIET_SHARE * cores)


def busy_seconds() -> float:
    """Seconds that the cores of this process were busy since the machine started, with whatever."""
    times = psutil.cpu_times(percpu=True)
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(len(times))
    chosen = [times[core] for core in mine if core < len(times)] or times
    # "user" and "nice" contain what guests use.
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(core, name, 0.0) for core in chosen for name in names)


def own_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    times = psutil.Process().cpu_times()
    return times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
