"""Runs the points of a sweep, each in a process of its own, and appends a row for each; resumable, several at once.

A unit is what one worker does in a row: trainings, if there are any, then the points that use the last. Two sweeps may
run into one folder: each point, and each training, is locked while one of them works on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from detzoo.sweep.columns import Status
from detzoo.sweep.results import Row, append_row, read_with_problems
from detzoo.sweep.run.process import Outcome, failure_reason, run_process

RESULT_FILE = "result.json"  # what a point's process leaves in its folder
LOG_FILE = "log.txt"
_LOCK_FILE = ".lock"
_SECONDS_BETWEEN_TRIES = 0.5
_SECONDS_BETWEEN_LOOKS = 0.05


@dataclasses.dataclass(frozen=True)
class Work:
    """One process: a point's or a training's.

    Attributes:
        name: shown to the user.
        key: fingerprint; of a point, its row's.
        folder: of its own; made where it is missing.
        command: that does it, run anew in a new process.
        time_out_seconds: 0 for none.
        expected_seconds: a guess.
        is_done: of a training, whether nothing is left to do.
        done: what it is then, in a word.
    """

    name: str
    key: str
    folder: pathlib.Path
    command: tuple[str, ...]
    time_out_seconds: float
    expected_seconds: float
    is_done: Callable[[], bool] = lambda: False
    done: str = "trained"


@dataclasses.dataclass(frozen=True)
class Unit:
    """Trainings, each of which may start from the one before, and the points that follow the last."""

    trainings: tuple[Work, ...]
    points: tuple[Work, ...]


class Watcher(Protocol):
    """Shows what happens; called from several threads, one at a time."""

    def started(self, work: Work) -> None:
        """A process starts."""

    def ended(self, work: Work, row: Row | None, seconds: float) -> None:
        """A process has ended; ``row`` is None for a training that went well and for what another sweep did."""

    def tick(self) -> None:
        """A second has passed."""


class Runner:
    """Does the units of a sweep.

    Args:
        results: path of results.csv.
        row_of: (key, result or None, reason or None) -> the row of a point; ``result`` is what its process left.
        watcher: shows progress.
        jobs: processes at a time.
        devices: of each job the value of CUDA_VISIBLE_DEVICES, () to leave it.
        retire: called with each row after it was appended, to drop those that it replaces.
    """

    def __init__(
        self,
        results: pathlib.Path,
        row_of: Callable[[str, dict[str, Any] | None, str | None], Row],
        watcher: Watcher,
        jobs: int = 1,
        devices: Sequence[str] = (),
        retire: Callable[[Row], None] | None = None,
    ) -> None:
        self._results = results
        self._row_of = row_of
        self._watcher = watcher
        self._jobs = jobs
        self._devices = devices
        self._retire = retire
        self._stop = threading.Event()
        self._told = threading.Lock()
        self._problem: BaseException | None = None

    def run(self, units: Sequence[Unit]) -> None:
        """Does all units; ends every process before it leaves, also by KeyboardInterrupt."""
        waiting: queue.SimpleQueue[Unit] = queue.SimpleQueue()
        for unit in units:
            waiting.put(unit)
        workers = [
            threading.Thread(target=self._work, args=(waiting, index), name=f"sweep job {index}", daemon=True)
            for index in range(self._jobs)
        ]
        for worker in workers:
            worker.start()
        try:
            last = time.monotonic()
            while any(worker.is_alive() for worker in workers):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                if time.monotonic() - last >= 1.0:
                    last = time.monotonic()
                    with self._told:
                        self._watcher.tick()
        except BaseException:
            self._stop.set()
            for worker in workers:
                worker.join()
            raise
        if self._problem:
            raise self._problem

    def _work(self, waiting: queue.SimpleQueue[Unit], index: int) -> None:
        environment = {"CUDA_VISIBLE_DEVICES": self._devices[index]} if self._devices else {}
        while not self._stop.is_set():
            try:
                unit = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self._do(unit, environment)
            except BaseException as problem:  # a full disk, a results.csv of other columns: nothing can go on
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
        """Trains, or waits for the other sweep that does; gives the reason of a failure."""
        work.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(work.folder, wait=True) as is_mine:
            if not is_mine or work.is_done():
                return None
            outcome = self._run(work, environment)
            if outcome.stopped:
                return None
            if outcome.is_good and work.is_done():
                self._show(work, None, outcome.seconds)
                return None
            cause = failure_reason(outcome, work.folder / LOG_FILE, work.time_out_seconds)
            return f"training failed: {cause} (log: {work.folder / LOG_FILE})"

    def _measure(self, work: Work, environment: Mapping[str, str]) -> None:
        work.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(work.folder, wait=False) as is_mine:
            if not is_mine or self._is_measured(work.key):
                self._show(work, None, 0.0)
                return
            (work.folder / RESULT_FILE).unlink(missing_ok=True)
            outcome = self._run(work, environment)
            if outcome.stopped:
                return
            result = _read_result(work.folder / RESULT_FILE)
            reason = None
            if not outcome.is_good or result is None or result.get("reason"):
                told = str((result or {}).get("reason") or "")
                cause = failure_reason(outcome, work.folder / LOG_FILE, work.time_out_seconds, told)
                reason = f"{cause} (log: {work.folder / LOG_FILE})"
            self._record(work, result, reason, outcome.seconds)

    def _run(self, work: Work, environment: Mapping[str, str]) -> Outcome:
        with self._told:
            self._watcher.started(work)
        return run_process(work.command, work.folder / LOG_FILE, work.time_out_seconds, self._stop, environment)

    def _record(self, work: Work, result: dict[str, Any] | None, reason: str | None, seconds: float) -> None:
        row = self._row_of(work.key, result, reason)
        if seconds:
            row["seconds"] = round(seconds, 2)
        append_row(self._results, row)
        if self._retire:
            self._retire(row)
        self._show(work, row, seconds)

    def _show(self, work: Work, row: Row | None, seconds: float) -> None:
        with self._told:
            self._watcher.ended(work, row, seconds)

    def _is_measured(self, key: str) -> bool:
        """Whether another sweep has done the point meanwhile."""
        if not self._results.is_file():
            return False
        return any(
            row["key"] == key and row["status"] == Status.OK.value for row in read_with_problems(self._results)[0]
        )

    @contextlib.contextmanager
    def _locked(self, folder: pathlib.Path, wait: bool) -> Iterator[bool]:
        """Holds a folder against other sweeps; False where one has it (and, with ``wait``, the sweep is stopped)."""
        descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            is_mine = _try_lock(descriptor)
            while wait and not is_mine and not self._stop.wait(_SECONDS_BETWEEN_TRIES):
                is_mine = _try_lock(descriptor)
            yield is_mine
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_result(file: pathlib.Path) -> dict[str, Any] | None:
    """What a point's process left, None where it left nothing that can be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
