"""One command in a process group of its own: a log file, a limit of time, a clean end, and why it ended.

A point of a sweep is such a process, so that its memory and its crash are its own.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_END = 10.0  # between asking a process to end and killing it
_MIB = 1 << 20
_LOG_TAIL = 4096  # bytes
_CGROUP_EVENTS = pathlib.Path("/sys/fs/cgroup/memory.events")


class Outcome(NamedTuple):
    """How a process ended."""

    exit_code: int  # negative: the number of the signal that ended it
    seconds: float
    peak_mib: float  # most memory that the process itself held
    timed_out: bool = False
    stopped: bool = False  # because the sweep was
    out_of_memory: bool = False  # the system says so

    @property
    def is_good(self) -> bool:
        """Whether it ended by itself, without an error."""
        return self.exit_code == 0 and not (self.timed_out or self.stopped)


def run_process(
    command: Sequence[str],
    log_file: pathlib.Path,
    time_out_seconds: float,
    stop: threading.Event,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Runs a command to its end.

    Args:
        command: program and arguments.
        log_file: written anew with what it prints.
        time_out_seconds: it is ended after so long; 0 for never.
        stop: when set, it is ended.
        environment: variables besides those of this process.
    """
    kills_before = _kills_by_memory()
    started = time.monotonic()
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            return _wait(process, started, time_out_seconds, stop, kills_before)
        finally:
            _kill_group(process.pid, signal.SIGKILL)  # what it has started, and itself if anything went wrong here


def _wait(
    process: subprocess.Popen[bytes], started: float, time_out_seconds: float, stop: threading.Event, kills_before: int
) -> Outcome:
    ended_for = ""
    kill_at = seen_kib = 0.0
    # Linux counts what the parent held at the start of a process as the process's own peak: below that, the peak is
    # what was seen of it.
    parent_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        now = time.monotonic()
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return Outcome(
                process.returncode,
                now - started,
                (usage.ru_maxrss if usage.ru_maxrss > parent_kib else seen_kib) * 1024 / _MIB,
                ended_for == "time",
                ended_for == "stop",
                process.returncode == -signal.SIGKILL and _kills_by_memory() > kills_before,
            )
        seen_kib = max(seen_kib, _peak_kib(process.pid))
        if not ended_for and (stop.is_set() or 0 < time_out_seconds < now - started):
            ended_for = "stop" if stop.is_set() else "time"
            kill_at = now + SECONDS_TO_END
            _kill_group(process.pid, signal.SIGTERM)
        elif ended_for and now > kill_at:
            _kill_group(process.pid, signal.SIGKILL)
            kill_at = now + SECONDS_TO_END
        stop.wait(SECONDS_BETWEEN_LOOKS) if not ended_for else time.sleep(SECONDS_BETWEEN_LOOKS)


def failure_reason(outcome: Outcome, log_file: pathlib.Path, time_out_seconds: float, told: str = "") -> str:
    """Why a process failed, in one line.

    Args:
        outcome: of the process, not a good one.
        log_file: with what it printed.
        time_out_seconds: its limit.
        told: what the process itself left as the reason; "" where it left nothing.
    """
    memory = f"{outcome.peak_mib:.0f} MiB, this machine has {_machine_mib():.0f} MiB"
    if outcome.timed_out:
        last = last_line(log_file)
        return f"took longer than {time_out_seconds:g} s and was ended" + (f"; last words: {last}" if last else "")
    if outcome.out_of_memory:
        return f"killed by the system, out of memory: it held {memory}"
    if outcome.exit_code == -signal.SIGKILL:
        return f"killed, probably out of memory: it held {memory}"
    if outcome.exit_code < 0:
        name = signal.Signals(-outcome.exit_code).name
        last = last_line(log_file)
        return f"crashed with {name}" + (f"; last words: {last}" if last else "")
    return told or last_line(log_file) or f"ended with exit code {outcome.exit_code} and said nothing"


def last_line(log_file: pathlib.Path) -> str:
    """The last line of a log that is not empty; "" without any."""
    try:
        with log_file.open("rb") as stream:
            stream.seek(max(0, log_file.stat().st_size - _LOG_TAIL))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.split("\r")[-1].strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "")


def _peak_kib(pid: int) -> int:
    """The most memory that a running process held so far, in KiB; 0 where the system does not tell."""
    try:
        lines = pathlib.Path("/proc", str(pid), "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError, StopIteration):
        return 0


def _kill_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _kills_by_memory() -> int:
    """How often the system has killed a process of this control group for memory; 0 where it does not tell."""
    try:
        words = dict(line.split() for line in _CGROUP_EVENTS.read_text().splitlines())
        return int(words.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0


def _machine_mib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _MIB
