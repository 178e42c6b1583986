"""Runs the points of a sweep, each in its own process, and appends their rows; resumable, several at once.

A unit is the work of one worker: trainings, if any, then the points that use the last of them. Two sweeps may run into
one folder: each point and each training is locked while a sweep works on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import filelock

from detzoo.folders import read_record
from detzoo.sweep.columns import Status
from detzoo.sweep.results import Row, append_row, read_with_problems, retire_rows
from detzoo.sweep.run.point_files import LOG_FILE, RESULT_FILE
from detzoo.sweep.run.process import Outcome, failure_reason, run_process

_LOCK_FILE = ".lock"
_SECONDS_BETWEEN_TRIES = 0.5
_SECONDS_BETWEEN_LOOKS = 0.05


@dataclasses.dataclass(frozen=True)
class Work:
    """One process: that of a point or of a training."""

    name: str  # name for the user
    key: str  # Fingerprint; that of a point is the key of its row
    folder: pathlib.Path  # folder of the work, created if it is missing
    command: tuple[str, ...]  # program and arguments
    time_out_seconds: float  # time limit; 0 for none
    is_done: Callable[[], bool] = lambda: False  # returns True if a training has nothing left to do
    done: str = "trained"  # word for a training that has ended


@dataclasses.dataclass(frozen=True)
class Unit:
    """Trainings, each of which may start from the one before, and the points that follow the last."""

    trainings: tuple[Work, ...]
    points: tuple[Work, ...]


@dataclasses.dataclass
class Runner:
    """Does the units of a sweep."""

    results: pathlib.Path  # path of results.csv
    # (key, result or None, reason or None) -> row of a point; ``result`` is the result file of its process.
    row_of: Callable[[str, dict[str, Any] | None, str | None], Row]
    # Shows the state with ``started(work)``, ``ended(work, row, seconds)`` and, each second, ``tick()``. The calls come
    # from several threads, one at a time. Good trainings and work of another sweep have no row.
    watcher: Any
    jobs: int = 1  # number of processes at a time
    devices: Sequence[str] = ()  # CUDA_VISIBLE_DEVICES per job, () to leave the variable

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._one_report = threading.Lock()
        self._problem: BaseException | None = None

    def run(self, units: Sequence[Unit]) -> None:
        """Does all units; ends every process before it returns or raises."""
        waiting: queue.SimpleQueue[Unit] = queue.SimpleQueue()
        for unit in units:
            waiting.put(unit)
        workers = [
            threading.Thread(target=self._work, args=(waiting, index), name=f"sweep job {index}", daemon=True)
            for index in range(self.jobs)
        ]
        for worker in workers:
            worker.start()
        try:
            last = time.monotonic()
            while any(worker.is_alive() for worker in workers):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                if time.monotonic() - last >= 1.0:
                    last = time.monotonic()
                    with self._one_report:
                        self.watcher.tick()
        except BaseException:
            self._stop.set()
            for worker in workers:
                worker.join()
            raise
        if self._problem:
            raise self._problem

    def _work(self, waiting: queue.SimpleQueue[Unit], index: int) -> None:
        environment = {"CUDA_VISIBLE_DEVICES": self.devices[index]} if self.devices else {}
        while not self._stop.is_set():
            try:
                self._do(waiting.get_nowait(), environment)
            except queue.Empty:
                return
            except BaseException as problem:  # such as a full disk or other columns in results.csv: no point can go on
                self._problem = problem
                self._stop.set()

    def _do(self, unit: Unit, environment: Mapping[str, str]) -> None:
        reason = None
        for training in unit.trainings:
            reason = reason or self._train(training, environment)
        for work in unit.points:
            if self._stop.is_set():
                return
            if reason is not None:
                self._record(work, None, reason, 0.0)
            else:
                self._measure(work, environment)

    def _train(self, work: Work, environment: Mapping[str, str]) -> str | None:
        """Trains, or waits for another sweep that does; returns the reason of a failure."""
        with self._locked(work.folder, wait=True) as is_mine:
            if not is_mine or work.is_done():
                return None
            outcome = self._run(work, environment)
            if outcome.stopped:
                return None
            if outcome.is_good and work.is_done():
                self._report(work, None, outcome.seconds)
                return None
            cause = failure_reason(outcome, work.folder / LOG_FILE, work.time_out_seconds)
            return f"training failed: {cause} (log: {work.folder / LOG_FILE})"

    def _measure(self, work: Work, environment: Mapping[str, str]) -> None:
        with self._locked(work.folder, wait=False) as is_mine:
            if not is_mine or self._is_measured(work.key):
                self._report(work, None, 0.0)
                return
            (work.folder / RESULT_FILE).unlink(missing_ok=True)
            outcome = self._run(work, environment)
            if outcome.stopped:
                return
            result, reason = read_record(work.folder / RESULT_FILE), None
            if not outcome.is_good or not result or result.get("reason"):
                reported = str(result.get("reason") or "")
                cause = failure_reason(outcome, work.folder / LOG_FILE, work.time_out_seconds, reported)
                reason = f"{cause} (log: {work.folder / LOG_FILE})"
            self._record(work, result, reason, outcome.seconds)

    def _run(self, work: Work, environment: Mapping[str, str]) -> Outcome:
        with self._one_report:
            self.watcher.started(work)
        return run_process(work.command, work.folder / LOG_FILE, work.time_out_seconds, self._stop, environment)

    def _record(self, work: Work, result: dict[str, Any] | None, reason: str | None, seconds: float) -> None:
        row = self.row_of(work.key, result, reason)
        if seconds:
            row["seconds"] = round(seconds, 2)
        append_row(self.results, row)
        retire_rows(self.results, row)
        self._report(work, row, seconds)

    def _report(self, work: Work, row: Row | None, seconds: float) -> None:
        with self._one_report:
            self.watcher.ended(work, row, seconds)

    def _is_measured(self, key: str) -> bool:
        """Returns True if another sweep has done the point meanwhile."""
        if not self.results.is_file():
            return False
        rows, _ = read_with_problems(self.results)
        return any(row["key"] == key and row["status"] == Status.OK.value for row in rows)

    @contextlib.contextmanager
    def _locked(self, folder: pathlib.Path, wait: bool) -> Iterator[bool]:
        """Holds a folder; yields False if another sweep has it (with ``wait``: until this sweep was stopped)."""
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / _LOCK_FILE, timeout=0)
        while not lock.is_locked:
            try:
                lock.acquire()
            except filelock.Timeout:
                if not wait or self._stop.wait(_SECONDS_BETWEEN_TRIES):
                    break
        try:
            yield lock.is_locked
        finally:
            lock.release()
