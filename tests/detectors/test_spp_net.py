"""SPP-net's detector: paths, windows on maps, scores and boxes, against numbers worked by hand and by other ways."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from detzoo.builders.detector import build_detector
from detzoo.config import pb
from detzoo.contracts import Proposals
from detzoo.detectors.spp_net import BOX_CODER
from detzoo.errors import ConfigError

HEIGHT, WIDTH, NUM_CLASSES, FC_DEPTH = 60, 90, 3, 16
BINS, CHANNELS = 50, 26  # 36 + 9 + 4 + 1 bins; 256 channels of conv5 times 0.1
PLAIN = """
spp_net {
  num_classes: 3
  network {
    type: 'zf_5' pyramid_bins: [6, 3, 2, 1]
    fc_depth: 16 depth_multiplier: 0.1
  }
  scale: [96, 144]
  window_size: 64
  max_proposals: 5
  fine_tuning { }
  svm { }
  box_regression { }
  post_processing {
    batch_non_max_suppression {
      iou_threshold: 0.3 max_detections_per_class: 4
      max_total_detections: 6
    }
  }
}
"""


def message_of(*more, without=()):
    message = text_format.Parse(PLAIN, pb.DetectionModel())
    for name in without:
        message.spp_net.ClearField(name)
    for text in more:
        text_format.Merge(f"spp_net {{ {text} }}", message)
    return message


@pytest.fixture(scope="module")
def detector():
    built = build_detector(message_of())
    generator = np.random.default_rng(0)
    for model, spread in ((built.svm, 0.05), (built.box_regression, 0.0005)):
        for variable in model.variables:
            variable.assign(generator.normal(0.0, spread, variable.shape))
    return built


@pytest.fixture(scope="module")
def inputs(detector):
    images = np.random.default_rng(1).uniform(0, 255, (2, HEIGHT, WIDTH, 3)).astype(np.float32)
    return detector.preprocess(images)


WINDOWS = np.array(
    [
        [[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.5, 0.6], [0.5, 0.5, 0.9, 0.7], [0.0, 0.0, 0.0, 0.0]],
        [[0.3, 0.1, 0.4, 0.9], [0.2, 0.2, 0.8, 0.8], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    ],
    np.float32,
)


def proposals(num_valid=(3, 2)):
    return Proposals(tf.constant(WINDOWS), tf.zeros([2, 4]), tf.constant(num_valid))


def test_the_paths_are_those_of_the_classifier_and_of_the_parts_of_the_chain(detector):
    shapes = {v.path: tuple(v.shape) for v in detector.variables if "seed" not in v.path}
    pooled = BINS * CHANNELS
    assert shapes["backbone/conv1/kernel"] == (7, 7, 3, 10)  # 96 filters times 0.1
    assert {path: shape for path, shape in shapes.items() if not path.startswith("backbone/")} == {
        "box_backbone/fc6/kernel": (pooled, FC_DEPTH),
        "box_backbone/fc6/bias": (FC_DEPTH,),
        "box_backbone/fc7/kernel": (FC_DEPTH, FC_DEPTH),
        "box_backbone/fc7/bias": (FC_DEPTH,),
        "head/fc8/kernel": (FC_DEPTH, NUM_CLASSES + 1),
        "head/fc8/bias": (NUM_CLASSES + 1,),
        "svm/kernel": (FC_DEPTH, NUM_CLASSES),
        "svm/bias": (NUM_CLASSES,),
        "box_regression/kernel": (pooled, 4 * NUM_CLASSES),
        "box_regression/bias": (4 * NUM_CLASSES,),
    }


def test_scaled_sizes_keep_the_aspect(detector):
    # Factors 96 / 60 and 144 / 60: 90 becomes 144 and 216.
    assert detector.scaled_sizes(tf.constant([HEIGHT, WIDTH])).numpy().tolist() == [[96, 144], [144, 216]]


def test_windows_are_pooled_from_the_map_of_their_scale(detector, inputs):
    """By hand: the cells of each window, then the classifier's own pooling of what was cut out of the map.

    The whole image, 60 x 90, has 13824 pixels at the first scale and 31104 at the second; the square of 64 has 4096:
    the first. Window 1, 24 x 36 pixels, has 2212 and 4977: the second (881 away against 1884). There it reaches from
    (14.4, 43.2) to (72, 129.6); cells look at 0.5 + 16 k: rows 1 to 4 (16.5 to 64.5), columns 3 to 8 (48.5 to 128.5).
    """
    from detzoo.ops.spatial_pyramid import spatial_pyramid

    maps = detector.feature_maps(inputs)
    pooled = detector.pool(maps, tf.constant([HEIGHT, WIDTH]), tf.constant(WINDOWS[:, :2]))
    assert pooled.shape == (2, 2, BINS * CHANNELS)
    whole = spatial_pyramid(maps[0][:1], (6, 3, 2, 1))
    np.testing.assert_allclose(pooled[0, 0], whole[0], rtol=1e-6)
    cut = spatial_pyramid(maps[1][:1, 1:5, 3:9], (6, 3, 2, 1))
    np.testing.assert_allclose(pooled[0, 1], cut[0], rtol=1e-6)


def test_a_cell_looks_where_its_window_is(detector):
    """A bright spot answers in the bins of the window around it, not in those of a window elsewhere."""
    images = np.zeros((1, 96, 144, 3), np.float32)
    images[0, 40:56, 100:116] = 250.0  # around (48, 108)
    maps = detector.feature_maps(tf.constant(images))
    windows = tf.constant([[[32 / 96, 92 / 144, 64 / 96, 124 / 144], [0.0, 0.0, 32 / 96, 32 / 144]]])
    pooled = detector.pool({0: maps[0], 1: maps[1]}, tf.constant([96, 144]), windows).numpy()
    background = detector.pool(detector.feature_maps(tf.zeros_like(images)), tf.constant([96, 144]), windows).numpy()
    change = np.abs(pooled - background).max(axis=-1)[0]
    assert change[0] > 1.0
    assert change[1] == 0.0


def test_logits_are_margins_behind_the_best_ones_negative(detector, inputs):
    predictions = detector.forward(inputs, proposals=proposals())
    assert predictions.class_logits.shape == (2, 3, NUM_CLASSES + 1)  # row 3 is padding in both images
    pooled = detector.pool(detector.feature_maps(inputs), tf.constant([HEIGHT, WIDTH]), tf.constant(WINDOWS[:, :3]))
    kernels = {v.path: v.numpy() for v in detector.variables}
    fc6 = np.maximum(pooled @ kernels["box_backbone/fc6/kernel"] + kernels["box_backbone/fc6/bias"], 0.0)
    fc7 = np.maximum(fc6 @ kernels["box_backbone/fc7/kernel"] + kernels["box_backbone/fc7/bias"], 0.0)
    margins = fc7 @ kernels["svm/kernel"] + kernels["svm/bias"]
    np.testing.assert_allclose(predictions.class_logits[..., 1:], margins, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(predictions.class_logits[..., 0], -margins.max(axis=-1), rtol=1e-4, atol=1e-4)


def test_detections_are_moved_windows_of_valid_rows_only(detector, inputs):
    predictions = detector.forward(inputs, proposals=proposals((2, 1)))
    shapes = tf.constant([[HEIGHT, WIDTH]] * 2)
    found = detector.postprocess(predictions, shapes, (HEIGHT, WIDTH))
    assert set(found.anchor_indices.numpy()[0, : found.num_valid[0]]) == {0, 1}
    assert set(found.anchor_indices.numpy()[1, : found.num_valid[1]]) == {0}
    row, label = found.anchor_indices[0, 0], found.classes[0, 0]
    moved = BOX_CODER.decode(predictions.box_deltas[0, row, label], tf.constant(WINDOWS[0])[row])
    np.testing.assert_allclose(found.boxes_norm[0, 0], np.clip(moved, 0.0, 1.0), rtol=1e-5)
    scores = 1.0 / (1.0 + np.exp(-predictions.class_logits.numpy()))
    np.testing.assert_allclose(found.scores[0, 0], scores[0, :2, 1:].max(), rtol=1e-5)


def test_only_the_first_max_proposals_are_looked_at(inputs):
    few = build_detector(message_of("max_proposals: 2"))
    predictions = few.forward(few.preprocess(inputs), proposals=proposals())
    assert predictions.proposals.num_valid.numpy().tolist() == [2, 2]
    assert predictions.class_logits.shape[1] == 2


def test_an_image_without_proposals_has_no_detections(detector, inputs):
    predictions = detector.forward(inputs, proposals=proposals((0, 0)))
    found = detector.postprocess(predictions, tf.constant([[HEIGHT, WIDTH]] * 2), (HEIGHT, WIDTH))
    assert found.num_valid.numpy().tolist() == [0, 0]


def test_a_traced_function_takes_images_and_windows_of_any_number(detector):
    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32), tf.TensorSpec([None, None, 4], tf.float32)],
        autograph=False,
    )
    def traced(images, windows):
        count = tf.shape(windows)[1]
        given = Proposals(windows, tf.zeros(tf.shape(windows)[:2]), tf.fill(tf.shape(windows)[:1], count))
        predictions = detector.forward(detector.preprocess(images), proposals=given)
        return predictions.class_logits, predictions.box_deltas

    for height, width, count in ((40, 60, 3), (70, 33, 1)):
        images = np.random.default_rng(2).uniform(0, 255, (1, height, width, 3)).astype(np.float32)
        windows = WINDOWS[:1, :count]
        given = Proposals(tf.constant(windows), tf.zeros([1, count]), tf.constant([count]))
        eager = detector.forward(detector.preprocess(images), proposals=given)
        logits, deltas = traced(images, windows)
        np.testing.assert_allclose(logits, eager.class_logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(deltas, eager.box_deltas, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("features", "without", "missing", "width"),
    [
        ("POOL5", ("fine_tuning",), ("box_backbone", "head"), BINS * CHANNELS),
        ("FC6", ("fine_tuning",), ("head",), FC_DEPTH),
        ("FC7", ("box_regression",), ("box_regression",), FC_DEPTH),
    ],
)
def test_a_detector_has_the_parts_that_its_config_names(inputs, features, without, missing, width):
    built = build_detector(message_of(f"features: {features}", without=without))
    shapes = {v.path: tuple(v.shape) for v in built.variables}
    assert not [path for path in shapes if path.startswith(missing)]
    assert shapes["svm/kernel"] == (width, NUM_CLASSES)
    predictions = built.forward(inputs, proposals=proposals())
    boxes = 1 if "box_regression" in without else NUM_CLASSES
    assert predictions.box_deltas.shape == (2, 3, boxes, 4)


def test_fc6_is_what_the_svms_read_where_it_is_asked_for():
    built = build_detector(message_of("features: FC6"))
    pooled = tf.random.stateless_normal([1, 2, BINS * CHANNELS], seed=(1, 2))
    np.testing.assert_array_equal(built.classified_features(pooled), built.fully_connected(pooled).fc6)


def test_without_svms_the_softmax_of_the_fine_tuning_is_the_score(inputs):
    built = build_detector(message_of(without=("svm",)))
    predictions = built.forward(inputs, proposals=proposals())
    found = built.postprocess(predictions, tf.constant([[HEIGHT, WIDTH]] * 2), (HEIGHT, WIDTH))
    scores = tf.nn.softmax(predictions.class_logits)[0, :3, 1:]
    np.testing.assert_allclose(found.scores[0, 0], tf.reduce_max(scores), rtol=1e-5)


def test_predict_needs_proposals(detector, inputs):
    with pytest.raises(ValueError, match="no first stage"):
        detector.forward(inputs)


def test_there_is_no_loss_of_an_image(detector):
    with pytest.raises(NotImplementedError, match="trained in steps"):
        detector.loss_terms(None, None)


@pytest.mark.parametrize(
    ("more", "without", "named"),
    [
        ("", ("num_classes",), r"num_classes: is missing; accepted: 1 to"),
        ("network { type: 'vgg' }", (), r"network.type: is 'vgg'; accepted: zf_5, convnet_5, overfeat_5, overfeat_7"),
        ("network { pyramid_bins: 0 }", (), r"pyramid_bins\[4\]: is 0; accepted: 1 to"),
        ("", ("svm", "fine_tuning"), "nothing scores the windows"),
    ],
)
def test_what_cannot_be_built_is_named(more, without, named):
    with pytest.raises(ConfigError, match=rf"model\.spp_net.*{named}"):
        build_detector(message_of(more, without=without))
