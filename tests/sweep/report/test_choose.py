"""The best points within limits, on four points: the numbers are chosen so that each answer can be seen."""

from __future__ import annotations

import pytest

from detzoo.cli import main, sweep
from detzoo.errors import DetzooError, UsageError
from detzoo.sweep.columns import LATENCY
from detzoo.sweep.measured import clean_rows
from detzoo.sweep.report.choose import Limit, choose
from detzoo.sweep.results import write_results

PEAK = "memory.peak_mib"


def point(name, milliseconds, mib, accuracy, **more):
    values = {LATENCY: milliseconds, PEAK: mib, "mAP": accuracy, "device": "CPU", "batch_size": 1}
    return {"key": name, "name": name, "status": "ok", "command": f"detzoo benchmark {name}", **values, **more}


ROWS = [
    point("small", 20.0, 300.0, 0.20),
    point("medium", 40.0, 700.0, 0.30),
    point("slow_twin", 45.0, 600.0, 0.30),  # as accurate as medium, slower
    point("large", 100.0, 1500.0, 0.40),
]


def limits(latency=None, mib=None, least=None):
    every = [
        Limit("max_latency_ms", LATENCY, latency, False),
        Limit("max_memory_mib", PEAK, mib, False),
        Limit("min_map", "mAP", least, True),
    ]
    return [limit for limit in every if limit.bound is not None]


def names(choice):
    return [row["name"] for row in choice.best]


def test_the_most_accurate_within_the_limits_comes_first_and_of_twins_the_faster():
    choice = choose(clean_rows(ROWS), limits(50.0, 800.0), "mAP", 3)
    assert names(choice) == ["medium", "slow_twin", "small"]
    assert choice.num_within == 3
    assert choice.on_frontier == {0, 2}  # medium beats its twin


def test_a_limit_itself_is_kept():
    assert names(choose(clean_rows(ROWS), limits(20.0, 300.0), "mAP", 3)) == ["small"]


def test_no_more_points_than_asked_for():
    assert names(choose(clean_rows(ROWS), [], "mAP", 1)) == ["large"]


def test_a_lower_bound_of_accuracy():
    assert names(choose(clean_rows(ROWS), limits(least=0.30), "mAP", 9)) == ["large", "medium", "slow_twin"]


def test_where_nothing_fits_the_nearest_point_is_the_one_with_the_smallest_worst_excess():
    # Below 10 ms and 200 MiB: small is 100 % too slow and 50 % too big, the others at least 300 % too slow.
    choice = choose(clean_rows(ROWS), limits(10.0, 200.0), "mAP", 3)
    assert choice.best == []
    assert choice.nearest.row["name"] == "small"
    assert [limit.flag for limit in choice.nearest.broken] == ["max_latency_ms", "max_memory_mib"]
    assert choice.nearest.broken[0].excess(choice.nearest.row) == pytest.approx(1.0)
    assert choice.nearest.broken[1].excess(choice.nearest.row) == pytest.approx(0.5)


def test_without_accuracy_the_fastest_come_first():
    rows = [{**row, "mAP": None} for row in ROWS]
    choice = choose(clean_rows(rows), limits(50.0), "mAP", 2)
    assert not choice.by_metric
    assert names(choice) == ["small", "medium"]


def test_points_without_accuracy_are_counted_beside_those_with():
    rows = [*ROWS, point("unknown", 5.0, 100.0, None)]
    choice = choose(clean_rows(rows), limits(50.0), "mAP", 1)
    assert names(choice) == ["medium"]
    assert (choice.num_within, choice.num_without_metric) == (4, 1)


def test_a_point_that_lacks_a_limited_number_does_not_fit():
    rows = [point("unmeasured", 5.0, None, 0.9), *ROWS]
    choice = choose(clean_rows(rows), limits(mib=800.0), "mAP", 1)
    assert names(choice) == ["medium"]
    assert choice.num_unknown == 1


def test_failed_points_are_never_chosen():
    rows = [{**ROWS[3], "status": "failed"}, *ROWS[:3]]
    assert names(choose(clean_rows(rows), [], "mAP", 1)) == ["medium"]


@pytest.fixture
def command(tmp_path):
    """A function: rows and words of a command line -> run."""

    def run(rows, *words):
        path = tmp_path / "results.csv"
        write_results(path, rows)
        sweep.Choose.run(main.parse_flags("sweep choose", sweep.Choose, [f"--results={path}", *words]))

    return run


def test_the_answer_has_numbers_config_and_command(command, capsys):
    rows = [{**row, "config": f"points/{row['name']}.config"} for row in ROWS]
    command(rows, "--max_latency_ms=50", "--max_memory_mib=800", "--num_best=2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 points within latency.median_ms <= 50, memory.peak_mib <= 800; the best by mAP:"
    assert lines[3].split() == ["1*", "medium", "0.300", "40.0", "700", "-", "-"]
    assert lines[4].split() == ["2", "slow_twin", "0.300", "45.0", "600", "-", "-"]
    assert "1  config   points/medium.config" in lines
    assert "   command  detzoo benchmark medium" in lines


def test_where_nothing_fits_the_command_names_the_limit_and_by_how_much(command):
    with pytest.raises(DetzooError, match="nearest: small") as caught:
        command(ROWS, "--max_latency_ms=10")
    assert "latency.median_ms is 20, 100 % above --max_latency_ms 10" in str(caught.value)
    assert caught.value.exit_code == 1


def test_without_accuracy_the_command_says_so(command, capsys):
    command([{**row, "mAP": None} for row in ROWS], "--max_latency_ms=50")
    assert "none of them has mAP: nothing was measured to choose by" in capsys.readouterr().out


def test_several_devices_need_the_flag(command, capsys):
    rows = [*ROWS, point("on_gpu", 3.0, 900.0, 0.35, device="GPU")]
    with pytest.raises(UsageError, match="CPU and GPU, whose times do not compare; give --device"):
        command(rows)
    command(rows, "--device=gpu")
    assert "on_gpu" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no point was measured on --device TPU"):
        command(rows, "--device=TPU")


def test_other_kinds_of_memory(command, capsys):
    rows = [point("a", 5.0, 100.0, 0.3, **{"memory.process_peak_mib": 2000.0})]
    with pytest.raises(DetzooError, match=r"memory\.process_peak_mib is 2,000, 100 % above"):
        command(rows, "--max_memory_mib=1000", "--memory=process")
    command(rows, "--max_memory_mib=1000")
    assert "peak MiB" in capsys.readouterr().out


def test_accuracy_in_per_cent_is_refused(command):
    with pytest.raises(UsageError, match="--min_map is 30; accuracies are shares of 1"):
        command(ROWS, "--min_map=30")


def test_a_number_that_no_point_has(command):
    with pytest.raises(DetzooError, match="none of 4 has all of parameters"):
        command(ROWS, "--max_parameters=5e6")


def test_no_measured_point(command):
    with pytest.raises(DetzooError, match=r"results\.csv has 1, and none was measured"):
        command([{"key": "a", "name": "a", "status": "failed", "reason": "out of memory"}])


def test_one_source_of_rows(command):
    with pytest.raises(UsageError, match="give either --output_dir"):
        command(ROWS, "--output_dir=somewhere")
