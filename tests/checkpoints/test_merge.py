"""Two checkpoints that share a backbone become one."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.checkpoints.files import open_checkpoint
from detzoo.checkpoints.layout import make_checkpoint
from detzoo.checkpoints.merge import merge_checkpoints, save_weights
from detzoo.errors import CheckpointError

BACKBONE = {"backbone/kernel": np.array([1.0, 2.0], np.float32)}


def save(folder, model, average=None):
    sections = {"model": model, "average": average or {}}
    variables = {name: {path: tf.Variable(value) for path, value in part.items()} for name, part in sections.items()}
    tf.train.CheckpointManager(make_checkpoint(tf.Variable(7, dtype=tf.int64), **variables), str(folder), 1).save(7)
    return folder


def test_the_parts_of_both_make_one_model(tmp_path):
    first = save(tmp_path / "first", {**BACKBONE, "rpn/bias": np.array([3.0], np.float32)})
    second = save(tmp_path / "second", {**BACKBONE, "head/bias": np.array([[4.0]], np.float32)})
    merged = merge_checkpoints(first, second, ("backbone", "neck"))
    assert {path: value.tolist() for path, value in merged.items()} == {
        "backbone/kernel": [1.0, 2.0],
        "rpn/bias": [3.0],
        "head/bias": [[4.0]],
    }


def test_moving_averages_come_first(tmp_path):
    first = save(tmp_path / "first", {**BACKBONE, "rpn/bias": np.array([3.0])}, {"rpn/bias": np.array([5.0])})
    second = save(tmp_path / "second", BACKBONE)
    assert merge_checkpoints(first, second, ("backbone",))["rpn/bias"].tolist() == [5.0]


def test_shared_parts_must_be_identical_to_the_last_bit(tmp_path):
    first = save(tmp_path / "first", BACKBONE)
    nearly = save(tmp_path / "nearly", {"backbone/kernel": np.nextafter(BACKBONE["backbone/kernel"], np.float32(9))})
    with pytest.raises(CheckpointError, match="do not share their backbone: 1 of 1 variables differ"):
        merge_checkpoints(first, nearly, ("backbone",))
    larger = save(tmp_path / "larger", {**BACKBONE, "backbone/bias": np.zeros(2, np.float32)})
    with pytest.raises(CheckpointError, match="1 of 2 variables differ, such as backbone/bias"):
        merge_checkpoints(first, larger, ("backbone",))


def test_a_part_that_both_have_must_be_shared(tmp_path):
    first = save(tmp_path / "first", BACKBONE)
    with pytest.raises(CheckpointError, match=r"both .* have backbone/kernel: which one to take"):
        merge_checkpoints(first, first, ("neck",))


def test_saved_weights_are_a_checkpoint_without_an_optimizer(tmp_path):
    weights = {**BACKBONE, "rpn/bias": np.array([3.0], np.float32)}
    assert save_weights(tmp_path, 12, weights) == f"{tmp_path}/ckpt-12"
    stored = open_checkpoint(tmp_path)
    assert stored.step == 12
    assert stored.paths("model") == {"backbone/kernel": (2,), "rpn/bias": (1,)}
    assert stored.read("model", "rpn/bias").tolist() == [3.0]
    assert stored.paths("optimizer") == {}
