"""Shards, merging, rows of points, and how long a sweep takes."""

from __future__ import annotations

import pathlib

import pytest

from detzoo.errors import DataError, UsageError
from detzoo.sweep.results import append_row, read_results, retire_rows
from detzoo.sweep.run.estimate import Cost, Remaining, point_seconds, share_of_peak, training_seconds
from detzoo.sweep.run.parts import Shard, merge, parse_shard, part_of
from detzoo.sweep.run.point_files import compose_row

MACHINE = {"environment.cpu": "Model A", "environment.cores": 2}


def add(folder: pathlib.Path, key: str, status: str = "ok", **values: object) -> None:
    folder.mkdir(exist_ok=True)
    append_row(folder / "results.csv", {"key": key, "name": f"n{key}", "status": status, **MACHINE, **values})
    point = folder / "points" / key
    point.mkdir(parents=True, exist_ok=True)
    (point / "pipeline.config").write_text(f"# {folder.name}")
    (point / "export").mkdir(exist_ok=True)
    (folder / "examples").mkdir(exist_ok=True)
    (folder / "examples" / f"{folder.name}.jpg").write_bytes(b"jpeg")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_the_whole_and_do_not_overlap(count: int) -> None:
    items = [f"k{index}" for index in range(20)]

    def training(item: str) -> str:
        return "shared" if item in ("k3", "k11", "k19") else item

    parts = [part_of(items, Shard(index, count), training) for index in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == sorted(items)
    assert [{"k3", "k11", "k19"} <= set(part) for part in parts].count(True) == 1  # one training, one machine
    assert parts == [part_of(items[::-1], Shard(i, count), training)[::-1] for i in range(1, count + 1)]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_is_i_of_n(text: str) -> None:
    assert parse_shard("2/3") == Shard(2, 3)
    assert parse_shard("") == Shard(1, 1)
    with pytest.raises(UsageError, match=r"accepted: I/N with I from 1 to N"):
        parse_shard(text)


def test_a_merge_has_every_point_with_its_files(tmp_path: pathlib.Path) -> None:
    add(tmp_path / "p1", "a", mAP=0.25)
    add(tmp_path / "p1", "b", "failed", reason="killed")
    add(tmp_path / "p2", "b", mAP=0.5)
    add(tmp_path / "p2", "c", "failed", reason="took longer")
    merged = merge(tmp_path / "all", [tmp_path / "p1", tmp_path / "p2"])
    assert (merged.num_rows, merged.num_failed) == (3, 1)
    assert merged.taken == {str(tmp_path / "p1"): 1, str(tmp_path / "p2"): 2}
    rows = {row["key"]: row for row in read_results(tmp_path / "all" / "results.csv")}
    assert [rows[key]["mAP"] for key in "abc"] == [0.25, 0.5, None]
    assert rows["b"]["status"] == "ok"  # the measurement, not the failure
    assert (tmp_path / "all" / "points" / "b" / "pipeline.config").read_text() == "# p2"
    assert not (tmp_path / "all" / "points" / "b" / "export").exists()
    assert {file.name for file in (tmp_path / "all" / "examples").iterdir()} == {"p1.jpg", "p2.jpg"}
    assert merge(tmp_path / "all", [tmp_path / "p1"]).num_rows == 3  # again, into what is there


def test_commands_of_a_merge_name_the_files_where_they_are_now(tmp_path: pathlib.Path) -> None:
    command = (
        "detzoo benchmark '--pipeline_config_path=/other machine/p1/points/a/pipeline.config' --device=cpu"
        " && detzoo evaluate --checkpoint_dir=runs/a --output_dir=p1/points/a/evaluation"
        " '--set=eval_input_reader[0].proposals_path=p1/points/a/proposals.npz' --set=x=1"
    )
    add(tmp_path / "p1", "a", command=command)
    merge(tmp_path / "all", [tmp_path / "p1"])
    [row] = read_results(tmp_path / "all" / "results.csv")
    here = tmp_path / "all" / "points" / "a"
    assert row["command"] == (
        f"detzoo benchmark --pipeline_config_path={here}/pipeline.config --device=cpu"
        f" && detzoo evaluate --checkpoint_dir=runs/a --output_dir={here}/evaluation"
        f" '--set=eval_input_reader[0].proposals_path={here}/proposals.npz' --set=x=1"
    )
    assert merge(tmp_path / "all", [tmp_path / "p1"]).num_rows == 1  # the same point, though the commands differ


def test_parts_of_different_hardware_are_refused(tmp_path: pathlib.Path) -> None:
    add(tmp_path / "p1", "a")
    add(tmp_path / "p2", "b", **{"environment.cores": 8})
    add(tmp_path / "p3", "c", "failed", **{"environment.cores": None, "environment.cpu": None})  # fits to all
    with pytest.raises(UsageError, match=r"(?s)different hardware.*p1: Model A, 2 cores.*p2: Model A, 8 cores"):
        merge(tmp_path / "all", [tmp_path / "p1", tmp_path / "p2"])
    assert not (tmp_path / "all").exists()
    assert merge(tmp_path / "all", [tmp_path / "p1", tmp_path / "p3"]).num_rows == 2
    assert merge(tmp_path / "both", [tmp_path / "p1", tmp_path / "p2"], allow_mixed_hardware=True).num_rows == 2


def test_points_measured_twice_are_a_conflict(tmp_path: pathlib.Path) -> None:
    add(tmp_path / "p1", "a", mAP=0.25)
    add(tmp_path / "p2", "a", mAP=0.5)
    with pytest.raises(UsageError, match=r"(?s)measured twice.*na \(key a\) in .*p1 and .*p2"):
        merge(tmp_path / "all", [tmp_path / "p1", tmp_path / "p2"])
    add(tmp_path / "p3", "a", mAP=0.25)
    assert merge(tmp_path / "all", [tmp_path / "p1", tmp_path / "p3"]).num_rows == 1  # equal rows


def test_unreadable_and_missing_parts_are_named(tmp_path: pathlib.Path) -> None:
    for name in ("p1", "p2"):
        add(tmp_path / name, "a", mAP=0.25)
        file = tmp_path / name / "results.csv"
        file.write_text(file.read_text().replace("0.25", "a lot"))
    with pytest.raises(DataError, match=r"(?s)p1/results.csv:2: column 'mAP': found 'a lot'.*p2/results.csv:2: "):
        merge(tmp_path / "all", [tmp_path / "p1", tmp_path / "p2"])
    with pytest.raises(UsageError, match=r"there is no results.csv at .*p9"):
        merge(tmp_path / "all", [tmp_path / "p9"])


def test_a_row_takes_each_number_from_where_it_is() -> None:
    facts = {"key": "k", "name": "n", "device": "CPU", "reason": "no checkpoint"}
    benchmark = {
        "device": "GPU",
        "latency": {"median_ms": 12, "num_runs": 50},
        "stages": {"network_ms": 7.5, "masks_ms": None},
        "parameters": 100,
        "environment": {"gpus": ["A", "B"], "cores": 2, "versions": {"tensorflow": "2.20"}},
        "load": {"is_quiet": True, "before": 0.0},
        "not_a_column": 3,
    }
    metrics = {"mAP": 0.5, "mAP (large)": -1.0, "AR@100 (small)": 0.1}
    row = compose_row(facts, {"benchmark": benchmark, "metrics": metrics, "columns": {"num_eval_images": 8}}, None)
    assert row["latency.median_ms"] == 12.0
    assert row["environment.gpus"] == "A; B"
    assert row["environment.versions.tensorflow"] == "2.20"
    assert (row["stages.network_ms"], row["stages.masks_ms"]) == (7.5, None)
    assert (row["load.is_quiet"], row["load.before"]) == (True, 0.0)  # no load is a measurement
    assert (row["mAP"], row["mAP (large)"], row["num_eval_images"]) == (0.5, None, 8)
    assert (row["device"], row["status"], row["reason"]) == ("CPU", "ok", "no checkpoint")
    accuracy_alone = compose_row(facts, {"where": {"environment": {"cores": 4}}, "metrics": metrics}, None)
    assert (accuracy_alone["environment.cores"], accuracy_alone["mAP"]) == (4, 0.5)
    failed = compose_row(facts, {"benchmark": benchmark}, "killed")
    assert (failed["status"], failed["reason"], failed["parameters"], failed["mAP"]) == ("failed", "killed", 100, None)
    assert compose_row(facts, None, "killed")["parameters"] is None


def test_an_edited_point_takes_the_place_of_the_old_one(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "results.csv"
    how = {"device": "CPU", "precision": "float32", "jit_compile": False, "batch_size": 1}
    for key, name, values in (
        ("old", "x", how),
        ("gpu", "x", {**how, "device": "GPU"}),
        ("other", "y", how),
        ("new", "x", how),
    ):
        append_row(file, {"key": key, "name": name, "status": "ok", **values})
    retire_rows(file, {"key": "new", "name": "x", **how})
    assert [row["key"] for row in read_results(file)] == ["gpu", "other", "new"]
    append_row(file, {"key": "after", "name": "z", "status": "ok"})
    assert len(read_results(file)) == 4


def test_the_cost_of_a_point() -> None:
    # 8e9 multiply-adds at 300 proposals, of which three quarters grow with them: 2e9 + 6e9 / 10 at 30.
    faster = Cost(8e9, "faster_rcnn", 1.0, 30, 300, 10, 0)
    assert faster.multiply_adds == pytest.approx(2.6e9)
    # A quarter of the pixels: what does not grow with proposals is a quarter.
    assert Cost(8e9, "faster_rcnn", 0.25, 300, 300, 10, 0).multiply_adds == pytest.approx(6.5e9)
    assert Cost(8e9, "ssd", 0.25, None, None, 10, 0).multiply_adds == pytest.approx(2e9)
    small, many = Cost(1e9, "ssd", 1.0, None, None, 10, 0), Cost(1e9, "ssd", 1.0, None, None, 20, 0)
    # Of the machine's 100e9 operations per second, 0.3 are reached with 1e9 multiply-adds, 0.56 with ten times as many.
    assert point_seconds(many, 100) - point_seconds(small, 100) == pytest.approx(10 * 1.7 * 2e9 / 30e9)
    one, ten = training_seconds(small, 100, 1, 100), training_seconds(small, 10, 10, 100)
    nothing = training_seconds(small, 0, 1, 100)
    assert one - nothing == pytest.approx(100 * (0.004 + 3 * 2e9 / 30e9))
    assert ten - nothing == pytest.approx(100 * (0.004 + 3 * 2e9 / 56e9))
    assert [share_of_peak(adds) for adds in (0.0, 1e6, 1e12)] == [0.07, 0.07, 0.95]


def test_the_time_left_follows_the_pace() -> None:
    remaining = Remaining({"a": 10.0, "b": 10.0, "c": 10.0})
    assert remaining.seconds() == 30.0
    assert remaining.seconds({"a": 4.0, "b": 25.0}) == 16.0  # 6 of a, nothing of b, all of c
    remaining.ended("a", 30.0)  # three times as long; the guess counts as one more
    assert remaining.seconds() == pytest.approx(20.0 * (30 + 10) / (10 + 10))
    remaining.ended("b", 0.0)  # another sweep did it
    assert remaining.seconds() == pytest.approx(10.0 * (30 + 10) / (10 + 10))
    assert Remaining({"a": 10.0, "b": 10.0}, jobs=2).seconds() == 10.0
    remaining.ended("c", 5.0)
    assert remaining.seconds() == 0.0
