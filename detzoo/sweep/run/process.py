"""One command in its own process group: log file, time limit, clean end, and the reason of a failure.

A point of a sweep is such a process, so that its memory and its crash do not affect other points.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psutil

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_END = 10.0  # between asking a process to end and killing it
_MIB = 1 << 20
_LOG_TAIL = 4096  # bytes
_CGROUP_EVENTS = pathlib.Path("/sys/fs/cgroup/memory.events")
_KILLED = -9  # exit code by SIGKILL, which Windows lacks


class Outcome(NamedTuple):
    """End of a process."""

    exit_code: int  # negative: number of the signal that ended it
    seconds: float
    peak_mib: float  # peak of the process's resident memory
    timed_out: bool = False
    stopped: bool = False  # with the sweep
    out_of_memory: bool = False  # as the system reports

    @property
    def is_good(self) -> bool:
        """True if the process ended by itself, without an error."""
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
        command: Program and arguments.
        log_file: File that is overwritten with the output.
        time_out_seconds: Time limit; 0 for none.
        stop: Ends the process when it is set.
        environment: Variables added to those of this process.
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
        ended_for, kill_at, peak_mib = "", 0.0, 0.0
        try:
            while process.poll() is None:
                now = time.monotonic()
                peak_mib = max(peak_mib, _peak_mib(process.pid))
                if not ended_for and (stop.is_set() or 0 < time_out_seconds < now - started):
                    ended_for = "stop" if stop.is_set() else "time"
                    kill_at = now + SECONDS_TO_END
                    _end(process, "SIGTERM")
                elif ended_for and now > kill_at:
                    _end(process, "SIGKILL")
                time.sleep(SECONDS_BETWEEN_LOOKS) if ended_for else stop.wait(SECONDS_BETWEEN_LOOKS)
        finally:
            _end(process, "SIGKILL")  # its children too, and itself if anything went wrong here
    by_memory = process.returncode == _KILLED and _kills_by_memory() > kills_before
    seconds = time.monotonic() - started
    return Outcome(process.returncode, seconds, peak_mib, ended_for == "time", ended_for == "stop", by_memory)


def failure_reason(outcome: Outcome, log_file: pathlib.Path, time_out_seconds: float, reported: str = "") -> str:
    """Returns the reason of a failure in one line; ``reported`` is the one that the process itself recorded."""
    last = last_line(log_file)
    words = f"; last words: {last}" if last else ""
    memory = f"{outcome.peak_mib:.0f} MiB, this machine has {psutil.virtual_memory().total / _MIB:.0f} MiB"
    if outcome.timed_out:
        return f"took longer than {time_out_seconds:g} s and was ended{words}"
    if outcome.out_of_memory:
        return f"killed by the system, out of memory: it held {memory}"
    if outcome.exit_code == _KILLED:
        return f"killed, probably out of memory: it held {memory}"
    if outcome.exit_code < 0:
        return f"crashed with {signal.Signals(-outcome.exit_code).name}{words}"
    return reported or last or f"ended with exit code {outcome.exit_code} and said nothing"


def last_line(log_file: pathlib.Path) -> str:
    """Returns the last line of a log that is not empty, "" without any."""
    try:
        with log_file.open("rb") as stream:
            stream.seek(max(0, log_file.stat().st_size - _LOG_TAIL))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.split("\r")[-1].strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "")


def _peak_mib(pid: int) -> float:
    """Returns the peak of a running process's resident memory, as far as the system reports it."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = pathlib.Path("/proc", str(pid), "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).memory_info().rss / _MIB
    return 0.0


def _end(process: subprocess.Popen[bytes], signal_name: str) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, getattr(signal, signal_name))
        else:
            process.terminate()


def _kills_by_memory() -> int:
    """Returns how many processes of this control group the system has killed for memory, as far as it reports it."""
    try:
        words = dict(line.split() for line in _CGROUP_EVENTS.read_text().splitlines())
        return int(words.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
