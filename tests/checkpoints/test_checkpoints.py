"""Checkpoints: keys, restoring for inference, warm starts by part, and what is said when that is impossible."""

from __future__ import annotations

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.checkpoints import restore_for_inference
from detzoo.checkpoints.files import latest_prefix, open_checkpoint
from detzoo.checkpoints.layout import make_checkpoint, parse_key, stored_key, variables_by_path
from detzoo.checkpoints.restore import warm_start
from detzoo.errors import CheckpointError


def make_model(num_classes=3, channels=4, fill=None, neck=True):
    """Backbone with batch norm, a neck and a head, every variable filled with one value."""
    image = keras.Input((8, 12, 3))
    with keras.name_scope("backbone"):
        x = keras.layers.Conv2D(channels, 1, name="stem")(image)
        x = keras.layers.BatchNormalization(name="norm.1")(x)
    if neck:
        with keras.name_scope("neck"):
            x = keras.layers.Conv2D(channels, 1, name="lateral")(x)
    with keras.name_scope("head"):
        x = keras.layers.Conv2D(num_classes, 1, name="classes")(x)
    model = keras.Model(image, x)
    if fill is not None:
        for variable in model.variables:
            variable.assign(tf.fill(variable.shape, float(fill)))
    return model


def save(folder, model, step=7, average=None):
    variables = variables_by_path(model.variables)
    averages = {}
    if average is not None:
        averages = {path: tf.Variable(tf.fill(variable.shape, average)) for path, variable in variables.items()}
    checkpoint = make_checkpoint(tf.Variable(step, dtype=tf.int64), model=variables, average=averages)
    return tf.train.CheckpointManager(checkpoint, str(folder), 3).save(checkpoint_number=step)


def values_of(model):
    return {variable.path: variable.numpy() for variable in model.variables}


@pytest.mark.parametrize("path", ["backbone/stem/kernel", "a.b/c", "S/.S", "plain"])
def test_keys_and_their_inverse(path):
    key = stored_key("model", path)
    assert key.startswith("model/")
    assert "/" not in key.removeprefix("model/").removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
    assert parse_key(key) == ("model", path)


def test_root_scalars_and_foreign_keys():
    assert parse_key(stored_key("step")) == ("step", "")
    assert parse_key("_CHECKPOINTABLE_OBJECT_GRAPH") is None


def test_the_files_have_the_documented_keys(tmp_path):
    prefix = save(tmp_path, make_model(fill=2.0), average=3.0)
    shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    assert shapes["model/backbone.Sstem.Skernel/.ATTRIBUTES/VARIABLE_VALUE"] == [1, 1, 3, 4]
    assert shapes["average/backbone.Snorm..1.Sgamma/.ATTRIBUTES/VARIABLE_VALUE"] == [4]
    assert {key.split("/")[0] for key in shapes} == {
        "model",
        "average",
        "step",
        "format",
        "save_counter",
        "_CHECKPOINTABLE_OBJECT_GRAPH",
    }


def test_equal_paths_stay_apart():
    first, second = keras.Variable(1.0, name="same"), keras.Variable(2.0, name="same")
    assert {path: float(v) for path, v in variables_by_path([first, second]).items()} == {"same": 1.0, "same#2": 2.0}


@pytest.mark.parametrize("form", ["folder", "prefix", "index", "data"])
def test_restoring_accepts_folder_prefix_and_files(tmp_path, form):
    prefix = save(tmp_path, make_model(fill=2.0), step=12)
    path = {"folder": tmp_path, "prefix": prefix, "index": prefix + ".index", "data": prefix + ".data-00000-of-00001"}
    model = make_model(fill=0.0)
    assert restore_for_inference(model, path[form]) == 12
    assert all((value == 2.0).all() for value in values_of(model).values())


def test_averages_are_preferred_unless_refused(tmp_path):
    save(tmp_path, make_model(fill=2.0), average=3.0)
    model = make_model(fill=0.0)
    restore_for_inference(model, tmp_path)
    assert all((value == 3.0).all() for value in values_of(model).values())
    restore_for_inference(model, tmp_path, prefer_ema=False)
    assert all((value == 2.0).all() for value in values_of(model).values())


def test_another_model_is_refused_with_the_differences(tmp_path):
    save(tmp_path, make_model(fill=2.0))
    model = make_model(num_classes=5, neck=False, fill=0.0)
    message = (
        r"2 variables of another shape \(head/classes/kernel: \(1, 1, 4, 3\) in the checkpoint, \(1, 1, 4, 5\) in the "
        r"model.*2 of its variables are not in the model \(neck/lateral/.*fine_tune_checkpoint"
    )
    with pytest.raises(CheckpointError, match=message):
        restore_for_inference(model, tmp_path)
    assert all((value == 0.0).all() for value in values_of(model).values())


def test_warm_start_keeps_all_but_the_classes(tmp_path):
    save(tmp_path, make_model(fill=2.0))
    model = make_model(num_classes=5, fill=0.0)
    report = warm_start(model, tmp_path)
    assert set(report.new) == {"head/classes/kernel", "head/classes/bias"}
    for path, value in values_of(model).items():
        assert (value == (0.0 if path.startswith("head") else 2.0)).all(), path
    text = report.describe()
    assert "restored 8 variables (backbone 6, neck 2)" in text
    assert "new: head/classes/bias: (3,) in the checkpoint, (5,) here" in text
    assert "another number of classes" in text


@pytest.mark.parametrize(
    ("kind", "restored"),
    [
        ("classification", {"backbone"}),
        ("detection", {"backbone", "neck"}),
        ("fine_tune", {"backbone", "neck", "head"}),
        ("full", {"backbone", "neck", "head"}),
    ],
)
def test_warm_start_by_part(tmp_path, kind, restored):
    save(tmp_path, make_model(fill=2.0), average=3.0)
    model = make_model(fill=0.0)
    report = warm_start(model, tmp_path, kind)
    for path, value in values_of(model).items():
        assert (value == (3.0 if path.split("/")[0] in restored else 0.0)).all(), path
    assert len(report.restored) + len(report.skipped) == 10
    assert not report.new


def test_warm_start_names_what_the_checkpoint_lacks(tmp_path):
    save(tmp_path, make_model(fill=2.0, neck=False))
    report = warm_start(make_model(fill=0.0), tmp_path)
    assert report.new == {"neck/lateral/kernel": "not in the checkpoint", "neck/lateral/bias": "not in the checkpoint"}
    assert "another number of classes" not in report.describe()


def test_warm_start_from_a_stranger_is_an_error(tmp_path):
    save(tmp_path / "wider", make_model(channels=9, num_classes=2, fill=2.0))
    with pytest.raises(CheckpointError, match=r"6 variables have another shape, first backbone/stem/kernel: .* 9\) in"):
        warm_start(make_model(fill=0.0), tmp_path / "wider")
    image = keras.Input((8, 12, 3))
    save(tmp_path / "other", keras.Model(image, keras.layers.Conv2D(2, 1, name="other")(image)))
    with pytest.raises(CheckpointError, match=r"no variable of .* fits this model: it has other/kernel, other/bias"):
        warm_start(make_model(fill=0.0), tmp_path / "other")
    with pytest.raises(CheckpointError, match="'detektion' is not known; accepted: classification, detection"):
        warm_start(make_model(), tmp_path, "detektion")


def test_missing_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match=r"the folder .* holds no checkpoint \(it is empty\); accepted"):
        latest_prefix(tmp_path)
    save(tmp_path / "run", make_model())
    with pytest.raises(CheckpointError, match="holds no checkpoint, but run/ in it does"):
        latest_prefix(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*ckpt-9 \(.*run has ckpt-7\)"):
        latest_prefix(tmp_path / "run" / "ckpt-9")
    with pytest.raises(CheckpointError, match=r"the folder .*nowhere does not exist"):
        latest_prefix(tmp_path / "nowhere" / "ckpt-9")
    with pytest.raises(CheckpointError, match="path of the checkpoint is empty"):
        latest_prefix("")


def test_a_lost_state_file_is_no_loss(tmp_path):
    for step in (7, 12):
        save(tmp_path, make_model(fill=2.0), step=step)
    (tmp_path / "checkpoint").unlink()
    assert latest_prefix(tmp_path).endswith("ckpt-12")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\xff garbage", b"no text of a message {", b'model_checkpoint_path: "ckpt-9"']
)
def test_a_damaged_state_file_is_no_loss(tmp_path, content):
    for step in (7, 12):
        save(tmp_path, make_model(fill=2.0), step=step)
    (tmp_path / "checkpoint").write_bytes(content)
    assert latest_prefix(tmp_path).endswith("ckpt-12")


def drop_last_byte(file):
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("data-00000-of-00001", pathlib.Path.unlink, "has an index but no data"),
        ("index", pathlib.Path.unlink, "has data but no index"),
        ("data-00000-of-00001", drop_last_byte, "is damaged or incomplete"),
        ("data-00000-of-00001", lambda file: file.write_bytes(b""), r"its data have 0 bytes, not \d+ or more"),
        ("data-00000-of-00001", lambda file: file.rename(file.with_suffix(".data-00001-of-00002")), "1 of its 2 data"),
        ("index", drop_last_byte, "is damaged or incomplete"),
    ],
)
@pytest.mark.parametrize("has_state", [True, False])
def test_an_incomplete_checkpoint_is_passed_over(tmp_path, caplog, name, damage, reason, has_state):
    for step in (7, 12):
        save(tmp_path, make_model(fill=float(step)), step=step)
    damage(tmp_path / f"ckpt-12.{name}")
    if not has_state:
        (tmp_path / "checkpoint").unlink()
    model = make_model(fill=0.0)
    assert restore_for_inference(model, tmp_path) == 7
    assert all((value == 7.0).all() for value in values_of(model).values())
    assert re.search(rf"ckpt-12 is skipped, .*ckpt-7 is used instead: .*{reason}", caplog.text)


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("keep", [0, 50])
def test_damaged_checkpoints(tmp_path, ending, keep):
    prefix = save(tmp_path, make_model(fill=2.0))
    file = tmp_path / (prefix.rsplit("/", 1)[1] + ending)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"ckpt-7 is damaged or incomplete \(.*copy its files again"):
        restore_for_inference(make_model(), tmp_path)


def test_checkpoints_of_others(tmp_path):
    inner = tf.train.Checkpoint(_feature_extractor=tf.train.Checkpoint(w=tf.Variable(1.0)))
    api = tf.train.Checkpoint(model=inner).save(str(tmp_path / "api" / "ckpt"))
    with pytest.raises(CheckpointError, match="of the TensorFlow Object Detection API, which cannot be resumed"):
        open_checkpoint(api)
    other = tf.train.Checkpoint(weight=tf.Variable(1.0)).save(str(tmp_path / "other" / "ckpt"))
    with pytest.raises(CheckpointError, match="was not made by `detzoo train`: its first tensors are"):
        open_checkpoint(other)


def test_a_newer_format_is_refused(tmp_path):
    model = make_model()
    checkpoint = make_checkpoint(tf.Variable(1, dtype=tf.int64), model=variables_by_path(model.variables))
    checkpoint.format.assign(2)
    prefix = checkpoint.write(str(tmp_path / "ckpt-1"))
    with pytest.raises(CheckpointError, match="has format 2, this detzoo reads up to 1"):
        open_checkpoint(prefix)


def test_restoring_gives_the_same_outputs(tmp_path):
    keras.utils.set_random_seed(1)
    model = make_model()
    save(tmp_path, model)
    other = make_model(fill=0.0)
    restore_for_inference(other, tmp_path)
    images = tf.random.stateless_uniform([2, 8, 12, 3], [1, 2])
    np.testing.assert_array_equal(other(images), model(images))
