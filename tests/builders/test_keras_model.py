"""Keras's methods of built detectors: predict, save, load, summary, frozen and changed parts, losses of each kind."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from detzoo.builders.detector import build_detector, with_num_classes
from detzoo.config import pb
from detzoo.contracts import Batch
from detzoo.detectors.training_losses import loss_shares
from detzoo.errors import ConfigError, DataError, UsageError


@pytest.fixture(scope="module")
def one(load_module):
    """The module tests/small_one_stage.py."""
    return load_module("small_one_stage.py")


@pytest.fixture(scope="module")
def ssd(one):
    """A one-stage detector that detects something."""
    return one.detector_and_resizer()[0]


@pytest.fixture
def images():
    """Three images of another size than the detectors take."""
    return np.random.default_rng(2).integers(0, 256, (3, 40, 50, 3), np.uint8)


def truth_of(groundtruth, *keys):
    """The user's dict with the ground truth of tests/small_two_stage.py."""
    values = {"boxes": groundtruth.boxes_norm, "classes": groundtruth.classes, "masks": groundtruth.masks}
    return {key: values[key].numpy() for key in ("boxes", "classes", *keys)}


def batch_of(images, groundtruth):
    """The same as a batch of the input pipeline."""
    shapes = tf.tile([tf.shape(images)[1:3]], [2, 1])
    return Batch(images, shapes, shapes, tf.constant(["0", "1"]), tf.constant([0, 1], tf.int64), groundtruth)


def test_predict_gives_the_detections_of_resized_images(ssd, images):
    padded, true_shape = ssd.origin.resizer(tf.constant(images))
    predictions = ssd.forward(ssd.preprocess(padded))
    expected = ssd.postprocess(predictions, tf.tile(true_shape[tf.newaxis], [3, 1]), (64, 96))
    found = ssd.predict(images, batch_size=2, verbose=0)
    assert list(found) == ["boxes", "scores", "classes", "num_valid"]
    assert found["boxes"].shape == (3, 12, 4)
    assert found["num_valid"].min() > 0
    np.testing.assert_allclose(found["boxes"], expected.boxes_norm, atol=1e-5)
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-5)
    np.testing.assert_array_equal(found["classes"], expected.classes)
    np.testing.assert_array_equal(found["num_valid"], expected.num_valid)
    dataset = tf.data.Dataset.from_tensor_slices((images.astype(np.float32), np.zeros(3))).batch(2)
    np.testing.assert_allclose(ssd.predict(dataset, verbose=0)["boxes"], found["boxes"], atol=1e-5)


def test_calling_gives_raw_predictions(ssd, images):
    inputs = ssd.preprocess(tf.image.resize(images, (64, 96)))
    np.testing.assert_array_equal(ssd(inputs).class_logits, ssd.forward(inputs).class_logits)


def test_a_keras_file_holds_weights_optimizer_and_frozen_layers(one, images, tmp_path):
    detector, _ = one.detector_and_resizer()
    detector.backbone.trainable = False
    detector.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    detector.fit(images[:2], {"boxes": [[[0.1, 0.1, 0.6, 0.7]]] * 2, "classes": [[1]] * 2}, verbose=0)
    detector.save(tmp_path / "small.keras")
    found = detector.predict(images, verbose=0)
    np.savez(tmp_path / "found.npz", images=images, **found)
    script = """
        import sys, detzoo
        assert "tensorflow" not in sys.modules and "keras" not in sys.modules
        import keras, numpy as np
        detector = keras.saving.load_model(sys.argv[1] + "/small.keras")
        expected = dict(np.load(sys.argv[1] + "/found.npz"))
        found = detector.predict(expected.pop("images"), verbose=0)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(value, found[name])
        assert not detector.backbone.trainable and detector.head.trainable
        assert int(detector.optimizer.iterations) == 1
        print(len(detector.trainable_variables), len(detector.optimizer.variables))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    loaded = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    assert loaded.stdout.split() == [str(len(detector.trainable_variables)), str(len(detector.optimizer.variables))]


def test_weights_and_clones(ssd, tmp_path):
    ssd.save_weights(tmp_path / "small.weights.h5")
    other = keras.models.clone_model(ssd)
    assert other.get_config() == ssd.get_config()
    other.load_weights(tmp_path / "small.weights.h5")
    for value, expected in zip(other.get_weights(), ssd.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_changed_head_is_no_config(one, tmp_path):
    detector = one.detector()
    detector.network = keras.Model(detector.network.inputs, detector.network.outputs)
    with pytest.raises(UsageError, match=r"layers were changed .*save_weights"):
        detector.save(tmp_path / "changed.keras")
    with pytest.raises(UsageError, match=r"detzoo export"):
        detector.export(tmp_path / "exported")


def test_a_detector_without_a_config_is_not_saved(toy):
    with pytest.raises(UsageError, match=r"ToyDetector was not built from a config.*save_weights"):
        toy.toy_detector().get_config()


def test_a_frozen_part_does_not_change(one, images):
    detector, _ = one.detector_and_resizer()
    parts = {name: [np.array(v) for v in part.variables] for name, part in detector.named_parts.items()}
    detector.backbone.trainable = False
    assert not detector.backbone.trainable_variables
    detector.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    detector.fit(images[:2], {"boxes": [[[0.1, 0.1, 0.6, 0.7]]] * 2, "classes": [[1]] * 2}, verbose=0)
    for name, before in parts.items():
        after = [np.array(variable) for variable in detector.named_parts[name].variables]
        is_equal = all(map(np.array_equal, before, after))
        assert is_equal == (name == "backbone"), name


@pytest.mark.parametrize("num_classes", [2, 6])
def test_other_classes_keep_all_other_weights(ssd, num_classes):
    changed = with_num_classes(ssd, num_classes)
    assert changed.num_classes == num_classes
    assert changed.get_config()["model"].count(f"num_classes: {num_classes}") == 1
    before = {variable.path: np.array(variable) for variable in ssd.variables}
    for variable in changed.variables:
        if "class_predictor" in variable.path:
            assert not np.array_equal(variable, before[variable.path])
        else:
            np.testing.assert_array_equal(variable, before[variable.path])


def test_classes_of_two_stages_and_of_none(small):
    detector = small.build("masks")
    changed = with_num_classes(detector, 5)
    kept = {v.path for v in changed.variables if v.path.startswith(("backbone", "rpn", "box_backbone"))}
    before = {v.path: np.array(v) for v in detector.variables}
    for variable in changed.variables:
        if variable.path in kept:
            np.testing.assert_array_equal(variable, before[variable.path])
    assert changed.named_parts["mask_head"].output_shapes[-1][-1] == 5
    with pytest.raises(ConfigError, match="no config or no classes"):
        with_num_classes(small.build("first_stage"), 5)


TWO_STAGES = ["backbone", "rpn", "box_backbone", "box_head"]
PARTS = {
    "plain": TWO_STAGES,
    "rfcn": TWO_STAGES,
    "pyramid_masks": ["backbone", "neck", "rpn", "box_backbone", "box_head", "mask_head"],
    "first_stage": ["backbone", "rpn"],
}


def check_summary(detector, names):
    lines = []
    detector.summary(print_fn=lambda text: lines.extend(text.splitlines()))
    assert list(detector.named_parts) == names
    rows = {line.split()[0]: line for line in lines[3:] if line[:1] not in " "}
    for name, part in detector.named_parts.items():
        assert f" {part.count_params():,} " in rows[name]
        assert part.output_shapes
        assert all(variable.path.startswith(f"{name}/") for variable in part.variables)
    assert sum(part.count_params() for part in detector.named_parts.values()) == detector.count_params()
    assert f"Total parameters: {detector.count_params():,}" in lines


@pytest.mark.parametrize("kind", PARTS)
def test_summary_of_two_stages(small, kind):
    check_summary(small.build(kind), PARTS[kind])


def test_summary_of_the_others(one, ssd, load_module):
    check_summary(ssd, ["backbone", "neck", "head"])
    # 4 x 6 cells of 3 anchors, 2 x 3 and 1 x 2 cells of 4 (one more between the sizes): 72 + 24 + 8 = 104 boxes, with a
    # column of background and 6 of classes.
    assert ssd.head.output_shapes == [(None, 104, 4), (None, 104, 7)]
    assert ssd.backbone.output_shapes[0] == (None, 2, 3, 256)
    with pytest.raises(UsageError, match="faster_rcnn has no neck; its parts: backbone, rpn"):
        _ = load_module("small_two_stage.py").build("first_stage").neck
    check_summary(load_module("small_mask_proposals.py").build(), ["backbone", "neck", "head", "mask_head"])


@pytest.mark.parametrize("kind", ["pyramid_masks", "rfcn"])
def test_losses_of_two_stages_for_evaluation(small, kind):
    detector = small.build(kind)
    images, groundtruth = small.images_and_groundtruth()
    batch = batch_of(images, groundtruth)
    before = detector.get_weights()
    trained = loss_shares(detector, batch)
    detector.set_weights(before)
    evaluated = loss_shares(detector, batch, training=False)
    assert evaluated.keys() == trained.keys()
    assert all(np.isfinite(value) for value in evaluated.values())
    for value, expected in zip(detector.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_masks_are_learned_and_predicted(small):
    detector = small.build("masks")
    images, groundtruth = small.images_and_groundtruth()
    detector.compile(run_eagerly=True)
    with pytest.raises(Exception, match='this detector learns masks; add "masks"'):
        detector.train_on_batch(images, truth_of(groundtruth))
    logs = detector.train_on_batch(images, truth_of(groundtruth, "masks"), return_dict=True)
    assert logs["mask"] > 0
    found = detector.predict_on_batch(images)
    assert found["masks"].shape == (2, 5, 7, 7)


def test_given_regions_need_batches(small):
    detector = small.build("from_reader")
    images, groundtruth = small.images_and_groundtruth()
    detector.compile(run_eagerly=True)
    batch = batch_of(images, groundtruth)._replace(proposals=small.given_proposals())
    assert detector.predict_step(batch)["boxes"].shape == (2, 5, 4)
    for method in (detector.predict_on_batch, lambda x: detector.train_on_batch(x, truth_of(groundtruth))):
        with pytest.raises(DataError, match=r"given regions.*batches with proposals"):
            method(images)


SPP_NET = """
spp_net {
  num_classes: 2
  network { type: "zf_5" pyramid_bins: 1 depth_multiplier: 0.05 fc_depth: 8 }
  svm { } fine_tuning { }
  post_processing { batch_non_max_suppression { } }
}
"""


def test_spp_nets_are_not_fitted():
    detector = build_detector(text_format.Parse(SPP_NET, pb.DetectionModel()))
    check_summary(detector, ["backbone", "box_backbone", "head", "svm"])
    detector.compile()
    with pytest.raises(UsageError, match="trained in steps, by detzoo train"):
        detector.fit(np.zeros((1, 224, 224, 3), np.uint8), {"boxes": [[[0, 0, 1, 1]]], "classes": [[0]]})


def test_the_global_policy_is_the_default(one):
    before = keras.config.dtype_policy()
    try:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        detector = one.detector()
        keras.mixed_precision.set_global_policy("float16")
        with pytest.raises(ConfigError, match="dtype_policy is 'float16'"):
            one.detector()
    finally:
        keras.config.set_dtype_policy(before)
    assert detector.origin.dtype_policy == "mixed_bfloat16"
    assert detector.network.get_layer("backbone").layers[1].compute_dtype == "bfloat16"
    assert type(detector).from_config(detector.get_config()).dtype_policy.name == "mixed_bfloat16"


EVERY_REGION = """
faster_rcnn {
  first_stage_minibatch_size: 4000 second_stage_batch_size: 64
  first_stage_positive_balance_fraction: 1.0 second_stage_balance_fraction: 1.0
}
"""


@pytest.mark.train
@pytest.mark.parametrize("kind", ["one stage", "two stages"])
def test_a_step_of_fit_is_a_step_of_the_trainer(one, small, kind):
    from detzoo.train.settings import TrainSettings
    from detzoo.train.step import TrainStep

    images, groundtruth = small.images_and_groundtruth()
    results = []
    for fits in (True, False):
        # The samples of a two-stage detector are complete, so they do not depend on random numbers.
        keras.utils.set_random_seed(3)
        detector = one.detector() if kind == "one stage" else small.build("plain", EVERY_REGION)
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
        if fits:
            detector.compile(optimizer, run_eagerly=True)
            logs = detector.train_on_batch(images, truth_of(groundtruth), return_dict=True)
            losses = {name: value for name, value in logs.items() if name != "loss"}
        else:
            variables = detector.trainable_variables
            optimizer.build(variables)
            step = TrainStep(detector, optimizer, variables, TrainSettings(num_steps=1, batch_size=2))
            outputs = step(batch_of(images, groundtruth))
            losses = dict(zip(step.part_names, outputs.losses.numpy(), strict=True))
        results.append((losses, {v.path: np.array(v) for v in detector.variables}))
    (losses, weights), (their_losses, their_weights) = results
    assert losses == pytest.approx(their_losses)
    assert weights.keys() == their_weights.keys()
    for path, value in weights.items():
        np.testing.assert_allclose(value, their_weights[path], rtol=1e-6, atol=1e-7, err_msg=path)
