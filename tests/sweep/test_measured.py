"""Tests of the values in a row of results.csv, and of missing values."""

from __future__ import annotations

import math

import pytest

from detzoo.sweep.columns import NAMES
from detzoo.sweep.measured import clean_rows, failed_rows, groups_by_device, measured_rows, with_values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mAP", -1.0),  # pycocotools: nothing to measure
        ("mAP (small)", -1.0),
        ("mAP", math.nan),
        ("latency.median_ms", 0.0),
        ("latency.median_ms", math.inf),
        ("memory.peak_mib", 0.0),
        ("multiply_adds", 0),
    ],
)
def test_what_cannot_be_a_measurement_is_missing(name, value):
    [row] = clean_rows([{"key": "a", name: value}])
    assert row[name] is None


@pytest.mark.parametrize(("name", "value"), [("mAP", 0.0), ("load.during", 0.0), ("latency.repeat_difference", 0.0)])
def test_a_zero_that_was_measured_stays(name, value):
    [row] = clean_rows([{"key": "a", name: value}])
    assert row[name] == 0.0


def test_a_clean_row_has_every_column():
    [row] = clean_rows([{"name": "only"}])
    assert tuple(row) == NAMES
    assert row["key"] is None


def test_rows_without_a_key_are_kept_apart():
    assert len(clean_rows([{"name": "a"}, {"name": "b"}])) == 2


def test_failed_points_are_told_apart():
    rows = clean_rows([{"key": "a", "status": "ok"}, {"key": "b", "status": "failed"}])
    assert [row["key"] for row in measured_rows(rows)] == ["a"]
    assert [row["key"] for row in failed_rows(rows)] == ["b"]


def test_rows_with_all_values():
    rows = clean_rows([{"key": "a", "mAP": 0.1}, {"key": "b", "mAP": 0.1, "parameters": 5}, {"key": "c"}])
    assert [row["key"] for row in with_values(rows, "mAP", "parameters")] == ["b"]


def test_groups_share_device_and_batch_size():
    rows = clean_rows(
        [
            {"key": "a", "device": "CPU", "batch_size": 1},
            {"key": "b", "device": "GPU", "batch_size": 1},
            {"key": "c", "device": "GPU", "batch_size": 1},
        ]
    )
    assert {name: len(group) for name, group in groups_by_device(rows).items()} == {"GPU": 2, "CPU": 1}
    rows[0]["batch_size"] = 8
    assert set(groups_by_device(rows)) == {"CPU, batch 8", "GPU, batch 1"}
