"""Points as processes: what a crash, a kill and a time-out cost, resuming, and two sweeps in one folder.

The points here are a few lines of Python that write result.json, sleep or die.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from detzoo.sweep.columns import NAMES
from detzoo.sweep.results import Row, append_row, read_results
from detzoo.sweep.run.process import failure_reason, run_process
from detzoo.sweep.run.runner import Runner, Unit, Work

GOOD = "import json, pathlib, sys; pathlib.Path(sys.argv[1], 'result.json').write_text(json.dumps({'mAP': 0.5}))"
CRASH = "import os, signal; print('before', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
SLEEP = "import time; print('half way', flush=True); time.sleep(3600)"
RAISE = "raise ValueError('no such thing')"
PARTLY = """
import json, pathlib, sys
result = {'mAP': 0.25, 'reason': 'no records'}
pathlib.Path(sys.argv[1], 'result.json').write_text(json.dumps(result))
sys.exit(1)
"""


class Watched:
    """Keeps the messages of a Runner."""

    def __init__(self) -> None:
        self.started_names: list[str] = []
        self.rows: dict[str, Row | None] = {}

    def started(self, work: Work) -> None:
        self.started_names.append(work.name)

    def ended(self, work: Work, row: Row | None, seconds: float) -> None:
        self.rows[work.name] = row

    def tick(self) -> None:
        pass


def work(folder: pathlib.Path, name: str, program: str, limit: float = 0.0, **options: object) -> Work:
    command = (sys.executable, "-S", "-c", program, str(folder / name))
    return Work(name, f"key-{name}", folder / name, command, limit, **options)  # type: ignore[arg-type]


def runner(folder: pathlib.Path, watched: Watched, jobs: int = 1, **options: object) -> Runner:
    def row_of(key: str, result: dict | None, reason: str | None) -> Row:
        row = dict.fromkeys(NAMES) | {"key": key, "name": key, "status": "failed" if reason else "ok", "reason": reason}
        return row | {"mAP": (result or {}).get("mAP")}

    return Runner(folder / "results.csv", row_of, watched, jobs, **options)  # type: ignore[arg-type]


def points(*works: Work) -> list[Unit]:
    return [Unit((), (each,)) for each in works]


def test_a_failure_costs_its_point_alone_and_says_why(tmp_path: pathlib.Path) -> None:
    watched = Watched()
    runner(tmp_path, watched).run(
        points(
            work(tmp_path, "first", GOOD),
            work(tmp_path, "crash", CRASH),
            work(tmp_path, "killed", KILLED),
            work(tmp_path, "slow", SLEEP, limit=0.5),
            work(tmp_path, "error", RAISE),
            work(tmp_path, "partly", PARTLY),
            work(tmp_path, "silent", "pass"),
            work(tmp_path, "last", GOOD),
        )
    )
    rows = {str(row["key"]).removeprefix("key-"): row for row in read_results(tmp_path / "results.csv")}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"first", "last"}
    reasons = {name: str(row["reason"]) for name, row in rows.items()}
    assert reasons["crash"].startswith("crashed with SIGSEGV; last words: before (log: ")
    assert reasons["killed"].startswith("killed, probably out of memory: it held ")
    assert "MiB, this machine has" in reasons["killed"]
    assert reasons["slow"].startswith("took longer than 0.5 s and was ended; last words: half way")
    assert reasons["error"].startswith("ValueError: no such thing")
    assert reasons["partly"].startswith("no records")
    assert rows["partly"]["mAP"] == 0.25  # what was measured before it failed is kept
    assert reasons["silent"].startswith("ended with exit code 0 and said nothing")
    assert (tmp_path / "crash" / "log.txt").read_text() == "before\n"
    assert all(rows[name]["seconds"] for name in ("first", "slow"))


def test_a_point_that_ignores_the_request_to_end_is_killed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detzoo.sweep.run.process.SECONDS_TO_END", 0.3)
    deaf = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('x', flush=True)
time.sleep(3600)
"""
    outcome = run_process([sys.executable, "-S", "-c", deaf], tmp_path / "log", 3.0, threading.Event())
    assert outcome.timed_out
    assert outcome.exit_code == -signal.SIGKILL
    assert "took longer than" in failure_reason(outcome, tmp_path / "log", 3.0)


def test_what_a_point_has_started_ends_with_it(tmp_path: pathlib.Path) -> None:
    program = textwrap.dedent(
        """
        import subprocess, sys, pathlib
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(3600)"])
        pathlib.Path(sys.argv[1]).write_text(str(child.pid))
        """
    )
    run_process([sys.executable, "-S", "-c", program, str(tmp_path / "pid")], tmp_path / "log", 0, threading.Event())
    child = pathlib.Path("/proc", (tmp_path / "pid").read_text(), "stat")
    deadline = time.monotonic() + 600
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_the_memory_of_a_process_is_its_own(tmp_path: pathlib.Path) -> None:
    program = "import time; x = bytearray(200 * 2**20); time.sleep(0.5)"
    outcome = run_process([sys.executable, "-S", "-c", program], tmp_path / "log", 0, threading.Event())
    assert outcome.is_good
    assert 200 < outcome.peak_mib < 240


def test_points_wait_for_their_training_and_fail_with_it(tmp_path: pathlib.Path) -> None:
    watched = Watched()
    done = tmp_path / "trained" / "finished"
    train = "import pathlib, sys; pathlib.Path(sys.argv[1], 'finished').touch()"
    good = Unit(
        (work(tmp_path, "trained", train, is_done=done.is_file),),
        (work(tmp_path, "a", GOOD), work(tmp_path, "b", GOOD)),
    )
    bad = Unit(
        (work(tmp_path, "untrained", "raise SystemExit('loss is nan')", is_done=lambda: False),),
        (work(tmp_path, "c", GOOD), work(tmp_path, "d", GOOD)),
    )
    runner(tmp_path, watched).run([good, bad])
    assert watched.started_names == ["trained", "a", "b", "untrained"]
    rows = {str(row["key"]): row for row in read_results(tmp_path / "results.csv")}
    assert [rows[f"key-{name}"]["status"] for name in "abcd"] == ["ok", "ok", "failed", "failed"]
    assert str(rows["key-c"]["reason"]).startswith("training failed: loss is nan (log: ")
    again = Watched()
    runner(tmp_path, again).run([Unit(good.trainings, (work(tmp_path, "e", GOOD),))])
    assert again.started_names == ["e"]  # trained already


def test_a_training_waits_for_the_one_that_it_starts_from(tmp_path: pathlib.Path) -> None:
    train = "import pathlib, sys; pathlib.Path(sys.argv[1], 'finished').touch()"

    def training(name: str, program: str) -> Work:
        return work(tmp_path, name, program, is_done=(tmp_path / name / "finished").is_file)

    first = training("first", train)
    units = [Unit((first, training(f"next{name}", train)), (work(tmp_path, name, GOOD),)) for name in "ab"]
    watched = Watched()
    runner(tmp_path, watched).run(units)
    assert watched.started_names == ["first", "nexta", "a", "nextb", "b"]  # the first is done once
    bad = training("bad", "raise SystemExit('loss is nan')")
    failing = Watched()
    runner(tmp_path, failing).run([Unit((bad, training("after", train)), (work(tmp_path, "c", GOOD),))])
    assert failing.started_names == ["bad"]
    rows = {str(row["key"]): row for row in read_results(tmp_path / "results.csv")}
    assert str(rows["key-c"]["reason"]).startswith("training failed: loss is nan")


def test_two_sweeps_into_one_folder_measure_each_point_once(tmp_path: pathlib.Path) -> None:
    slow = "import time; time.sleep(0.2); " + GOOD.replace("import ", "import os, ", 1)
    slow += "; open(sys.argv[1] + '/runs', 'a').write('x')"
    works = [work(tmp_path, f"p{index}", slow) for index in range(6)]
    first, second = Watched(), Watched()
    runners = [
        threading.Thread(target=runner(tmp_path, first).run, args=(points(*works),)),
        threading.Thread(target=runner(tmp_path, second).run, args=(points(*works[::-1]),)),
    ]
    for thread in runners:
        thread.start()
    for thread in runners:
        thread.join()
    assert len(read_results(tmp_path / "results.csv")) == 6
    assert [(tmp_path / f"p{index}" / "runs").read_text() for index in range(6)] == ["x"] * 6
    assert len(first.started_names) + len(second.started_names) == 6


def test_jobs_run_beside_each_other_each_with_its_device(tmp_path: pathlib.Path) -> None:
    program = (
        "import os, sys, time\n"
        "open(sys.argv[1] + '/gpu', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        f"while not all(os.path.exists({str(tmp_path)!r} + '/' + name + '/gpu') for name in ('p0', 'p1')):\n"
        "    time.sleep(0.05)\n"  # one alone waits for ever
    )
    works = [work(tmp_path, f"p{index}", program + GOOD, limit=60.0) for index in range(2)]
    runner(tmp_path, Watched(), jobs=2, devices=["3", "5"]).run(points(*works))
    assert [row["status"] for row in read_results(tmp_path / "results.csv")] == ["ok", "ok"]
    assert {(tmp_path / f"p{index}" / "gpu").read_text() for index in range(2)} == {"3", "5"}


def test_a_results_file_of_other_columns_stops_the_sweep(tmp_path: pathlib.Path) -> None:
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Exception, match="unknown column 'a'"):
        runner(tmp_path, Watched()).run(points(work(tmp_path, "x", GOOD), work(tmp_path, "y", GOOD)))


def test_an_interrupt_ends_the_process_and_keeps_what_was_done(tmp_path: pathlib.Path) -> None:
    program = f"""
import pathlib, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import test_sweep_runner as t
folder = pathlib.Path({str(tmp_path)!r})
t.runner(folder, t.Watched()).run(t.points(t.work(folder, "a", t.GOOD), t.work(folder, "b", t.SLEEP)))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    log = tmp_path / "b" / "log.txt"
    deadline = time.monotonic() + 600
    while not (log.is_file() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert "KeyboardInterrupt" in errors
    assert [row["key"] for row in read_results(tmp_path / "results.csv")] == ["key-a"]
    sleeping = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False).stdout
    assert str(tmp_path / "b") not in sleeping


def test_a_row_that_is_there_is_not_measured_again(tmp_path: pathlib.Path) -> None:
    append_row(tmp_path / "results.csv", {"key": "key-a", "name": "a", "status": "ok"})
    append_row(tmp_path / "results.csv", {"key": "key-b", "name": "b", "status": "failed"})
    watched = Watched()
    runner(tmp_path, watched).run(points(work(tmp_path, "a", GOOD), work(tmp_path, "b", GOOD)))
    assert watched.started_names == ["b"]
    assert {row["key"]: row["status"] for row in read_results(tmp_path / "results.csv")} == {
        "key-a": "ok",
        "key-b": "ok",
    }
    assert os.listdir(tmp_path / "a") == [".lock"]
