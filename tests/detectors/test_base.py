"""The one-stage detector over small real parts: paths of variables, anchors, unknown sizes, wiring of the verbs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import ConvHyperparams, FeatureExtractor, FeatureSpec, Predictions
from detzoo.detectors.base import Detector
from detzoo.detectors.one_stage import OneStageDetector, one_stage_network
from detzoo.heads.dense_head import DenseHeadOptions, convolutional_head
from detzoo.layers.conv import conv_block
from detzoo.necks.ssd_levels import add_extra_levels
from detzoo.ops.anchors import SsdAnchors

HYPERPARAMS = ConvHyperparams(kernel_initializer=keras.initializers.GlorotUniform, l2_weight=0.5)
ANCHORS = SsdAnchors((np.array([[0.2, 0.2], [0.1, 0.4]], np.float32), np.array([[0.5, 0.5], [0.3, 0.6]], np.float32)))


def extractor(shape):
    """One map of stride 8."""
    with keras.name_scope("backbone"):
        image = keras.Input((*shape, 3))
        x = conv_block(conv_block(image, 4, 3, HYPERPARAMS, "stem", strides=4), 4, 3, HYPERPARAMS, "body", strides=2)
    model = keras.Model(image, {3: x}, name="backbone")
    return FeatureExtractor(model, (FeatureSpec(3, 4),), lambda pixels: pixels / 255.0)


def detector(shape=(24, 40), pad_to_multiple=1, **parts):
    stub = {"targets": lambda *given: given, "loss": lambda *given: given, "detections": lambda *given: given}
    network = one_stage_network(
        shape,
        backbone := extractor(shape if pad_to_multiple == 1 else (None, None)),
        lambda maps: add_extra_levels(maps, (8,), HYPERPARAMS),
        lambda maps: convolutional_head(maps, (2, 2), 4, HYPERPARAMS, DenseHeadOptions()),
        pad_to_multiple=pad_to_multiple,
    )
    return OneStageDetector(network, backbone.normalize, ANCHORS, **{**stub, **parts}, num_classes=3, name="small")


def image(height=24, width=40):
    return tf.constant(np.random.default_rng(1).uniform(0, 255, (2, height, width, 3)), tf.uint8)


def test_attributes_say_what_it_detects_and_takes():
    assert detector().num_classes == 3
    assert detector().input_shape_px == (24, 40)
    assert detector((None, None)).input_shape_px == (None, None)


def test_variables_are_found_under_their_part_by_stable_paths():
    paths = [weight.path for weight in detector().weights]
    assert sorted(paths) == sorted(
        f"{part}/{kind}"
        for part in (
            "backbone/stem_conv",
            "backbone/body_conv",
            "neck/extra_4_reduce_conv",
            "neck/extra_4_conv",
            "head/box_predictor_3",
            "head/box_predictor_4",
            "head/class_predictor_3",
            "head/class_predictor_4",
        )
        for kind in ("kernel", "bias")
    )
    assert [weight.path for weight in detector().weights] == paths  # a second model in the same process


def test_preprocess_casts_and_normalises():
    inputs = detector().preprocess(tf.constant([[[[0, 51, 255]]]], tf.uint8))
    assert inputs.dtype == tf.float32
    np.testing.assert_allclose(inputs[0, 0, 0], [0.0, 0.2, 1.0])


def test_predictions_cover_every_anchor():
    # 24 x 40 pixels: 3 x 5 cells of stride 8 and 2 x 3 of the next level, 2 anchors each: 2 * (15 + 6) = 42.
    model = detector()
    predictions = model.forward(model.preprocess(image()))
    assert tuple(predictions.box_deltas.shape) == (2, 42, 4)
    assert tuple(predictions.class_logits.shape) == (2, 42, 4)
    assert tuple(predictions.anchors_norm.shape) == (42, 4)
    # The centre of the first cell of 3 x 5 is (1/6, 1/10); sizes are fractions of the shorter side, 24 of 40.
    np.testing.assert_allclose(
        predictions.anchors_norm[0], [1 / 6 - 0.1, 0.1 - 0.1 * 24 / 40, 1 / 6 + 0.1, 0.1 + 0.1 * 24 / 40], rtol=1e-5
    )


@pytest.mark.parametrize(("size", "padded_size"), [((32, 48), (32, 48)), ((25, 33), (32, 48))])
def test_unknown_sizes_give_what_known_ones_give(size, padded_size):
    # The coarser map has stride 16.
    known, unknown = detector(padded_size), detector((None, None))
    for ours, theirs in zip(unknown.weights, known.weights, strict=True):
        ours.assign(theirs)
    inputs = known.preprocess(image(*size))
    traced = tf.function(unknown.forward, input_signature=[tf.TensorSpec([None, None, None, 3])])
    pad = [(0, after - before) for before, after in zip(size, padded_size, strict=True)]
    expected, received = known.forward(tf.pad(inputs, [(0, 0), *pad, (0, 0)])), traced(inputs)
    np.testing.assert_allclose(received.box_deltas, expected.box_deltas, atol=1e-5)
    np.testing.assert_allclose(received.class_logits, expected.class_logits, atol=1e-5)
    # Anchors are fractions of what was given, not of what it was padded to.
    scale = np.tile(np.array(padded_size) / np.array(size), 2)
    np.testing.assert_allclose(received.anchors_norm, expected.anchors_norm * scale, atol=1e-5)


def test_backbone_sees_a_padded_image_while_anchors_are_fractions_of_the_true_one():
    # 20 x 30 pads to 32 x 32: 4 x 4 cells of stride 8, 2 x 2 above: 2 * (16 + 4) = 40 anchors.
    predictions = detector((20, 30), pad_to_multiple=32).forward(tf.zeros([1, 20, 30, 3]))
    assert tuple(predictions.box_deltas.shape) == (1, 40, 4)
    np.testing.assert_allclose(predictions.anchors_norm, ANCHORS([(4, 4), (2, 2)], (20, 30)))


def test_verbs_hand_over_to_the_parts():
    model = detector()
    predictions = Predictions("deltas", "logits", "anchors")
    assert model.loss_terms(predictions, "groundtruth") == (predictions, ("anchors", "groundtruth"))
    assert model.postprocess(predictions, "shapes", (24, 40)) == (predictions, "shapes", (24, 40))


def test_calling_is_predicting():
    model = detector()
    for called, predicted in zip(model(tf.ones([1, 24, 40, 3])), model.forward(tf.ones([1, 24, 40, 3])), strict=True):
        np.testing.assert_array_equal(called, predicted)


def test_regularisation_counts_every_kernel_once():
    model = detector()
    kernels = [np.asarray(weight) for weight in model.weights if weight.name == "kernel"]
    assert float(sum(model.losses)) == pytest.approx(0.5 * sum(np.sum(kernel**2) for kernel in kernels), rel=1e-5)
    model.forward(tf.ones([1, 24, 40, 3]), training=True)
    assert len(model.losses) == len(kernels)


def test_weights_survive_saving(tmp_path):
    model, other = detector(), detector()
    model.save_weights(tmp_path / "small.weights.h5")
    other.load_weights(tmp_path / "small.weights.h5")
    inputs = model.preprocess(image())
    np.testing.assert_array_equal(other.forward(inputs).class_logits, model.forward(inputs).class_logits)


@pytest.mark.parametrize("verb", ["preprocess", "forward"])
def test_a_detector_without_verbs_says_so(verb):
    with pytest.raises(NotImplementedError, match=f"{verb} is defined by each detector"):
        getattr(Detector(3, (24, 40)), verb)(None)
