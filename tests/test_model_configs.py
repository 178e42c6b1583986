"""Every file of model_configs/: its header, parsed and checked, built, and stepped once on small images."""

from __future__ import annotations

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.builders.optimizer import build_optimizer
from detzoo.config.check import check_pipeline
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Severity
from detzoo.contracts import Groundtruth

FOLDER = pathlib.Path(__file__).parents[1] / "model_configs"
CONFIGS = sorted(path.name for path in FOLDER.glob("*.config"))
WIDTH = 96  # pixels; the height is 64
SMALL_IMAGES = {
    "fixed_shape_resizer": ["fixed_shape_resizer.height=64", f"fixed_shape_resizer.width={WIDTH}"],
    "keep_aspect_ratio_resizer": [
        "keep_aspect_ratio_resizer.min_dimension=64",
        f"keep_aspect_ratio_resizer.max_dimension={WIDTH}",
    ],
}
# Names that Keras makes up where a layer has none: they depend on what was built before in the process.
AUTOMATIC_NAME = re.compile(r"/(conv2d|depthwise_conv2d|separable_conv2d|grouped_conv2d|batch_normalization)(_\d+)?/")

_stepped: dict[bytes, str] = {}  # model block with small images -> the config that it was stepped for


def small(name):
    """The config as it is, but for images of 64 x 96 and no download."""
    path = FOLDER / name
    kind = load_pipeline(path).message.model.ssd.image_resizer.WhichOneof("image_resizer_oneof")
    overrides = [f"model.ssd.image_resizer.{override}" for override in SMALL_IMAGES[kind]]
    return load_pipeline(path, [*overrides, "model.ssd.feature_extractor.pretrained_weights="]).message


def groundtruth(num_classes):
    """One large and one small object in the first image, none in the second."""
    boxes = np.zeros((2, 3, 4), np.float32)
    boxes[0, :2] = [[0.1, 0.2, 0.9, 0.7], [0.4, 0.4, 0.6, 0.6]]
    return Groundtruth(
        boxes_norm=tf.constant(boxes),
        classes=tf.constant([[0, num_classes - 1, -1], [-1, -1, -1]]),
        weights=tf.constant([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
        is_crowd=tf.zeros([2, 3], tf.bool),
        is_difficult=tf.zeros([2, 3], tf.bool),
        area_px=tf.zeros([2, 3]),
        masks=tf.zeros([2, 3, 0, 0], tf.uint8),
    )


def training_step(detector, optimizer):
    """Losses and gradients of one step on two images of noise, applied."""
    images = np.random.default_rng(1).uniform(0, 255, (2, *detector.input_shape_px, 3)).astype(np.float32)
    weights = detector.trainable_weights
    with tf.GradientTape() as tape:
        predictions = detector.predict(detector.preprocess(tf.constant(images)), training=True)
        terms = detector.loss_terms(predictions, groundtruth(detector.num_classes))
        losses = {name: term.total / tf.maximum(term.normalizer, 1.0) for name, term in terms.items()}
        losses["regularization"] = sum(detector.losses)
        value = sum(losses.values())
    gradients = tape.gradient(value, weights)
    optimizer.apply_gradients(zip(gradients, weights, strict=True))
    return losses, gradients


def test_there_are_configs():
    assert len(CONFIGS) >= 20


@pytest.mark.parametrize("name", CONFIGS)
def test_header_says_paper_command_hardware_and_result(name):
    header = (FOLDER / name).read_text().split("\n\n")[0]
    for line in ("# Paper: ", "# Train: detzoo train --pipeline_config_path model_configs/" + name, "# Hardware: "):
        assert line in header
    assert re.search(r"^# Result: \S", header, re.MULTILINE)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_no_problems_but_missing_files(name):
    problems = check_pipeline(load_pipeline(FOLDER / name), files=False)
    assert [problem for problem in problems if problem.severity is not Severity.NOTE] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_config_builds_and_trains_a_step(name):
    config = small(name)
    key = config.model.SerializeToString(deterministic=True)
    if key in _stepped:  # differs in the size of its images only
        assert _stepped[key] in CONFIGS
        return
    _stepped[key] = name
    keras.utils.clear_session()
    detector = build_detector(config.model)
    paths = [weight.path for weight in detector.weights]
    assert len(set(paths)) == len(paths)
    assert {path.split("/")[0] for path in paths} == {"backbone", "neck", "head"}
    assert not [path for path in paths if AUTOMATIC_NAME.search(path)]
    losses, gradients = training_step(detector, build_optimizer(config.train_config.optimizer))
    assert set(losses) == {"localization", "classification", "regularization"}
    assert all(np.isfinite(loss) and loss > 0 for loss in losses.values())
    assert all(gradient is not None and np.all(np.isfinite(gradient)) for gradient in gradients)
    assert all(np.all(np.isfinite(weight)) for weight in detector.trainable_weights)
