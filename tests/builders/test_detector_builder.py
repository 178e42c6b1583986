"""From a model block to a detector: golden variable lists, precision, refusals, and that it can learn."""

from __future__ import annotations

import collections
import csv
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from detzoo.builders.detector import build_detector
from detzoo.config import pb
from detzoo.config.load import load_pipeline
from detzoo.contracts import Groundtruth
from detzoo.detectors.one_stage import OneStageDetector
from detzoo.errors import ConfigError

GOLDEN = (
    "ssd_mobilenet_v2_320",
    "ssd_mobilenet_v2_fpnlite_320",
    "ssd_mobilenet_v1_fpn_640",
    "ssd_resnet50_v1_fpn_640",
    "ssd_resnet101_v1_fpn_640",
)

SMALL_SSD = """
ssd {
  num_classes: 3
  image_resizer { fixed_shape_resizer { height: 64 width: 96 } }
  feature_extractor {
    type: 'ssd_mobilenet_v2' depth_multiplier: 0.25
    min_depth: 8 num_layers: 3
    override_base_feature_extractor_hyperparams: true
    conv_hyperparams {
      activation: RELU_6
      initializer { variance_scaling_initializer { } }
      batch_norm { scale: true decay: 0.9 }
    }
  }
  box_predictor {
    convolutional_box_predictor {
      kernel_size: 3 use_dropout: false
      conv_hyperparams { initializer { random_normal_initializer { stddev: 0.01 } } }
    }
  }
  anchor_generator { ssd_anchor_generator { num_layers: 3 aspect_ratios: [1.0, 2.0, 0.5] } }
  box_coder { faster_rcnn_box_coder {} }
  matcher { argmax_matcher { force_match_for_each_row: true } }
  similarity_calculator { iou_similarity {} }
  loss { classification_loss { weighted_sigmoid_focal { alpha: 0.25 } } localization_loss { weighted_smooth_l1 {} } }
  post_processing { batch_non_max_suppression { max_total_detections: 7 } score_converter: SIGMOID }
}
"""


def model_message(*edits):
    """The small SSD with pieces of its text replaced."""
    text = SMALL_SSD
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return text_format.Parse(text, pb.DetectionModel())


def images_and_groundtruth():
    """Two images with one bright box each."""
    boxes = np.array([[[0.1, 0.1, 0.6, 0.5], [0, 0, 0, 0]], [[0.4, 0.5, 0.9, 0.9], [0, 0, 0, 0]]], np.float32)
    images = np.random.default_rng(1).uniform(0, 60, (2, 64, 96, 3)).astype(np.float32)
    images[0, 6:38, 10:48], images[1, 26:58, 48:86] = (250, 40, 40), (40, 40, 250)
    groundtruth = Groundtruth(
        boxes_norm=tf.constant(boxes),
        classes=tf.constant([[0, -1], [2, -1]]),
        weights=tf.constant([[1.0, 0.0], [1.0, 0.0]]),
        is_crowd=tf.zeros([2, 2], tf.bool),
        is_difficult=tf.zeros([2, 2], tf.bool),
        area_px=tf.zeros([2, 2]),
        masks=tf.zeros([2, 2, 0, 0], tf.uint8),
    )
    return tf.constant(images), groundtruth


@pytest.mark.parametrize("name", GOLDEN)
def test_variables_have_the_shapes_of_the_published_checkpoint(shared, name):
    folder = shared / "golden" / name
    overrides = ["model.ssd.image_resizer.fixed_shape_resizer.height=128"]
    detector = build_detector(load_pipeline(folder / "pipeline.config", overrides).message.model)
    with (folder / "variables.csv").open() as file:
        wanted = collections.Counter(
            tuple(int(size) for size in row["shape"].split("x")) if row["shape"] else () for row in csv.DictReader(file)
        )
    assert collections.Counter(tuple(weight.shape) for weight in detector.weights) == wanted
    assert type(detector) is OneStageDetector
    assert detector.name == "ssd"  # as the config calls it


def test_paths_of_variables_do_not_depend_on_what_was_built_before():
    first, second = (sorted(weight.path for weight in build_detector(model_message()).weights) for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)
    assert {path.split("/")[0] for path in first} == {"backbone", "neck", "head"}
    automatic = re.compile(r"/(conv2d|depthwise_conv2d|separable_conv2d|batch_norm(alization)?|dense)(_\d+)?/")
    assert not [path for path in first if automatic.search(path)]


def test_attributes_and_anchors_follow_the_config():
    detector = build_detector(model_message())
    assert (detector.num_classes, detector.input_shape_px) == (3, (64, 96))
    predictions = detector.forward(tf.zeros([1, 64, 96, 3]))
    # Levels 4, 5, 6: 4 x 6, 2 x 3, 1 x 2 cells; three boxes on the lowest (reduced), four on each other.
    assert tuple(predictions.class_logits.shape) == (1, 24 * 3 + 6 * 4 + 2 * 4, 4)


def test_without_background_class_there_is_one_column_a_class():
    message = model_message(("num_classes: 3", "num_classes: 3 add_background_class: false"))
    assert build_detector(message).forward(tf.zeros([1, 64, 96, 3])).class_logits.shape[-1] == 3


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_predictions_and_variables_are_float32_under_every_policy(policy):
    before = keras.config.dtype_policy()
    detector = build_detector(model_message(), dtype_policy=policy)
    assert keras.config.dtype_policy() == before
    assert {layer.compute_dtype for layer in detector.network.layers if "extra" in layer.name} == {
        policy.removeprefix("mixed_")
    }
    images, groundtruth = images_and_groundtruth()
    predictions = detector.forward(detector.preprocess(images), training=True)
    assert {x.dtype for x in predictions} == {tf.float32}
    assert {weight.dtype for weight in detector.weights} == {"float32"}
    assert all(np.isfinite(term.total) for term in detector.loss_terms(predictions, groundtruth).values())


def test_loss_falls_within_twenty_steps_on_two_images():
    detector = build_detector(model_message())
    images, groundtruth = images_and_groundtruth()
    optimizer = keras.optimizers.Adam(0.003)
    optimizer.build(detector.trainable_weights)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            predictions = detector.forward(detector.preprocess(images), training=True)
            terms = detector.loss_terms(predictions, groundtruth)
            value = sum(term.total / tf.maximum(term.normalizer, 1.0) for term in terms.values())
        optimizer.apply_gradients(zip(tape.gradient(value, detector.trainable_weights), detector.trainable_weights))
        return value

    losses = [float(step()) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


def test_detections_come_from_a_traced_detector_as_from_an_eager_one():
    detector = build_detector(model_message())
    images, _ = images_and_groundtruth()

    def detect(batch):
        predictions = detector.forward(detector.preprocess(batch))
        return detector.postprocess(predictions, tf.constant([[64, 96], [64, 48]]), (64, 96))

    eager, traced = detect(images), tf.function(detect)(images)
    assert tuple(eager.boxes_norm.shape) == (2, 7, 4)
    np.testing.assert_allclose(eager.raw_scores, traced.raw_scores, atol=1e-5)
    np.testing.assert_allclose(eager.scores, traced.scores, atol=1e-5)


def test_images_of_any_size_where_the_resizer_leaves_it_open():
    resizer = "keep_aspect_ratio_resizer { min_dimension: 64 max_dimension: 128 }"
    detector = build_detector(model_message(("fixed_shape_resizer { height: 64 width: 96 }", resizer)))
    assert detector.input_shape_px == (None, None)
    traced = tf.function(detector.forward, input_signature=[tf.TensorSpec([None, None, None, 3])])
    # Maps of stride 16, 32 and 64: 64 x 96 pads to 64 x 128 and 70 x 65 to 128 x 128.
    assert traced(tf.zeros([1, 64, 96, 3])).box_deltas.shape[1] == 4 * 8 * 3 + 2 * 4 * 4 + 1 * 2 * 4
    assert traced(tf.zeros([1, 70, 65, 3])).box_deltas.shape[1] == 8 * 8 * 3 + 4 * 4 * 4 + 2 * 2 * 4


def test_padding_to_a_multiple_enlarges_the_maps():
    message = model_message(("min_depth: 8", "min_depth: 8 pad_to_multiple: 128"), ("height: 64", "height: 65"))
    # 65 x 96 pads to 128 x 128: 8 x 8, 4 x 4 and 2 x 2 cells.
    num_anchors = 64 * 3 + 16 * 4 + 4 * 4
    assert build_detector(message).forward(tf.zeros([1, 65, 96, 3])).box_deltas.shape[1] == num_anchors


def test_frozen_batch_norm_reaches_every_part():
    detector = build_detector(model_message(("num_classes: 3", "num_classes: 3 freeze_batchnorm: true")))
    norms = [layer for layer in detector._flatten_layers() if hasattr(layer, "train_statistics")]
    assert len(norms) > 50
    assert not any(layer.train_statistics for layer in norms)


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (("num_classes: 3", ""), r"model\.ssd\.num_classes: is missing; accepted: 1 to"),
        (
            ("num_layers: 3 aspect_ratios", "num_layers: 4 aspect_ratios"),
            "num_layers: is 4, but the extractor makes 3 maps",
        ),
        (("ssd_mobilenet_v2'", "ssd_mobilenet_v3'"), "ssd_mobilenet_v3"),
        (("fixed_shape_resizer { height: 64 width: 96 }", ""), r"model\.ssd\.image_resizer: is missing or empty"),
        (
            ("convolutional_box_predictor", "weight_shared_convolutional_box_predictor"),
            "a head that all maps share needs one number",
        ),
    ],
)
def test_contradictions_are_refused_with_their_field(edit, error):
    edits = [edit]
    if "weight_shared" in edit[1]:
        edits.append(("kernel_size: 3 use_dropout: false", "depth: 8"))
    with pytest.raises(ConfigError, match=error):
        build_detector(model_message(*edits))


def test_other_models_and_policies_are_refused():
    with pytest.raises(ConfigError, match=r"model: no model is chosen; accepted: ssd, faster_rcnn"):
        build_detector(pb.DetectionModel())
    with pytest.raises(ConfigError, match=r"model\.experimental_model: .* not supported; accepted: ssd"):
        build_detector(text_format.Parse("experimental_model {}", pb.DetectionModel()))
    with pytest.raises(ConfigError, match=r"model\.faster_rcnn\.num_classes: is 0; accepted: 1 or more"):
        build_detector(text_format.Parse("faster_rcnn {}", pb.DetectionModel()))
    with pytest.raises(ConfigError, match="dtype_policy is 'float8'; accepted: float32"):
        build_detector(model_message(), dtype_policy="float8")
