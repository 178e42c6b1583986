"""The pyramid of RetinaNet in the paper's form and in the Object Detection API's."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams, Groundtruth
from detzoo.necks.feature_pyramid import CoarseLevels, PyramidParts, feature_pyramid

HYPERPARAMS = ConvHyperparams(
    kernel_initializer=keras.initializers.Ones, activation="relu6", batch_norm=BatchNormHyperparams(scale=True)
)
SHAPES = {3: (10, 16, 8), 4: (5, 8, 16), 5: (3, 4, 32)}  # an image of 80 x 128


def pyramid_model(max_level=7, hyperparams=HYPERPARAMS, coarse_from_c5=False, is_normalized=True, **options):
    maps = {level: keras.Input(shape, name=f"c{level}") for level, shape in SHAPES.items()}
    coarse = CoarseLevels.CONVOLVE_BACKBONE if coarse_from_c5 else CoarseLevels.CONVOLVE_PYRAMID
    parts = PyramidParts(coarse_levels=coarse, is_normalized=is_normalized, **options)
    pyramid = feature_pyramid(maps, 4, max_level, hyperparams, parts)
    return keras.Model(list(maps.values()), list(pyramid.values()))


def shapes_by_path(model):
    return {weight.path: tuple(weight.shape) for weight in model.weights}


@pytest.mark.parametrize("coarse_from_c5", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_every_form_has_five_maps_of_one_depth(coarse_from_c5, normalized):
    model = pyramid_model(coarse_from_c5=coarse_from_c5, is_normalized=normalized)
    assert [x.shape[1:] for x in model.outputs] == [(10, 16, 4), (5, 8, 4), (3, 4, 4), (2, 2, 4), (1, 1, 4)]


def test_the_papers_form_is_plain_and_takes_p6_from_c5():
    shapes = shapes_by_path(pyramid_model(coarse_from_c5=True, is_normalized=False))
    assert not any("batch_norm" in path for path in shapes)
    assert shapes["fpn_coarse_6_conv/kernel"] == (3, 3, 32, 4)
    assert shapes["fpn_coarse_7_conv/kernel"] == (3, 3, 4, 4)
    assert shapes["fpn_smooth_5_conv/kernel"] == (3, 3, 4, 4)
    # The 1 x 1 laterals have 8*4+4, 16*4+4 and 32*4+4 parameters, the three 3 x 3 have 3*(9*16+4), P6 has 9*32*4+4, and
    # P7 has 9*16+4.
    assert sum(np.prod(shape) for shape in shapes.values()) == 36 + 68 + 132 + 3 * 148 + 1156 + 148


def test_the_apis_form_is_normalised_and_takes_p6_from_p5():
    shapes = shapes_by_path(pyramid_model())
    assert shapes["fpn_coarse_6_conv/kernel"] == (3, 3, 4, 4)
    assert shapes["fpn_coarse_7_batch_norm/gamma"] == (4,)
    assert "fpn_smooth_5_conv/kernel" not in shapes


def test_lite_form_is_separable_below_and_above():
    shapes = shapes_by_path(pyramid_model(use_depthwise=True))
    assert shapes["fpn_smooth_3_separable/depthwise_kernel"] == (3, 3, 4, 1)
    assert shapes["fpn_coarse_7_separable/pointwise_kernel"] == (1, 1, 4, 4)


def test_pyramid_may_end_where_the_backbone_ends():
    assert len(pyramid_model(max_level=5).outputs) == 3


def test_p7_sees_p6_through_a_relu_in_the_papers_form():
    negative = dataclasses.replace(HYPERPARAMS, kernel_initializer=lambda: keras.initializers.Constant(-1.0))
    model = pyramid_model(hyperparams=negative, coarse_from_c5=True, is_normalized=False)
    *_, p6, p7 = model([np.ones((1, *shape), np.float32) for shape in SHAPES.values()])
    assert float(np.max(p6)) < 0.0
    np.testing.assert_array_equal(p7, np.zeros((1, 1, 1, 4)))


OHEM = """
ssd {
  add_background_class: false
  loss {
    classification_loss { weighted_sigmoid {} }
    hard_example_miner {
      num_hard_examples: 16 iou_threshold: 0.5
      loss_type: CLASSIFICATION %s
    }
  }
}
"""


@pytest.fixture(scope="module")
def small(load_module):
    return load_module("small_one_stage.py")


def anchors_that_learn(small, miner):
    """Rows (image, anchor) whose logits get a gradient, and the states of all anchors; two images, one object each."""
    detector = small.detector(small.FPN_LITE, OHEM % miner)
    boxes = tf.constant([[[0.1, 0.1, 0.6, 0.5]], [[0.3, 0.4, 0.9, 0.9]]])
    none = tf.zeros([2, 1], tf.bool)
    classes, ones, no_masks = tf.constant([[2], [0]]), tf.ones([2, 1]), tf.zeros([2, 1, 0, 0], tf.uint8)
    truth = Groundtruth(boxes, classes, ones, none, none, tf.zeros([2, 1]), no_masks)
    predictions = detector.forward(tf.random.stateless_uniform([2, 64, 96, 3], [1, 2], -1.0, 1.0))
    with tf.GradientTape() as tape:
        tape.watch(predictions.class_logits)
        loss = detector.loss_terms(predictions, truth)["classification"].total
    gradient = tape.gradient(loss, predictions.class_logits)
    state = detector.anchor_targets(predictions, truth).state.numpy()
    return np.argwhere(np.abs(gradient).max(axis=-1) > 0), state


def test_hard_examples_of_each_image_learn(small):
    rows, _ = anchors_that_learn(small, "")
    assert np.bincount(rows[:, 0]).tolist() == [16, 16]


def test_places_are_kept_for_positives_of_each_image(small):
    rows, state = anchors_that_learn(small, "max_negatives_per_positive: 3 reserve_positives: true")
    for image in range(2):
        chosen = state[image, rows[rows[:, 0] == image, 1]]
        positives = int(np.sum(chosen == 1))
        assert 1 <= positives <= 4
        assert np.sum(chosen == 0) == 3 * positives == len(chosen) - positives
