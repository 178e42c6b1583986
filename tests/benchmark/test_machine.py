"""Load of other programs: what this process uses does not count, what others use does."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from detzoo.benchmark import machine


def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_cores_of_others(monkeypatch):
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    busy, own = iter([100.0, 103.0]), iter([7.0, 8.0])
    monkeypatch.setattr(machine, "busy_seconds", lambda: next(busy))
    monkeypatch.setattr(machine, "own_seconds", lambda: next(own))
    # In 2 seconds the cores were busy for 3, one of which was ours.
    assert machine.LoadMeter().read() == pytest.approx(1.0)


def test_own_work_is_known(monkeypatch):
    before = machine.own_seconds()
    spin(0.2)
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: pass"], check=True)
    assert machine.own_seconds() - before >= 0.38  # counted in ticks of 0.01 s
    assert machine.busy_seconds() > 0


def test_a_share_of_the_cores_is_quiet():
    assert machine.judge(0.2, 0.1, cores=2) == machine.Load(0.2, 0.1, True)
    assert machine.judge(0.21, 0.0, cores=2).is_quiet is False
    assert machine.judge(0.0, 1.7, cores=16).is_quiet is False
    assert machine.judge(0.0, 1.6, cores=16).is_quiet is True
