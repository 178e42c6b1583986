"""Dense heads: the order of the anchors, what is shared, what is each level's own, and that every option arrives."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.heads.dense_head import DenseHeadOptions, convolutional_head, weight_shared_head

PLAIN = ConvHyperparams(kernel_initializer=lambda: keras.initializers.RandomNormal(stddev=0.1, seed=3))
NORMALIZED = dataclasses.replace(PLAIN, activation="relu6", batch_norm=BatchNormHyperparams(scale=True))
SHAPES = {3: (3, 4, 8), 4: (2, 2, 8)}
OPTIONS = DenseHeadOptions(kernel_size=3, num_layers_before_predictor=2)


def head_model(head, *args, shapes=SHAPES, **kwargs):
    inputs = {level: keras.Input(shape, name=f"p{level}") for level, shape in shapes.items()}
    return keras.Model(list(inputs.values()), tuple(head(inputs, *args, **kwargs)))


def maps(shapes=SHAPES, seed=1):
    generator = np.random.default_rng(seed)
    return [generator.normal(0, 1, (2, *shape)).astype(np.float32) for shape in shapes.values()]


def kernels(model):
    return {weight.path: tuple(weight.shape) for weight in model.weights if "kernel" in weight.name}


def test_rows_are_ordered_by_level_row_column_and_anchor():
    # A 1 x 1 kernel of ones on maps whose only channel is the cell's number: all outputs of a cell are that number.
    ones = ConvHyperparams(kernel_initializer=keras.initializers.Ones)
    shapes = {3: (2, 3, 1), 4: (1, 2, 1)}
    model = head_model(convolutional_head, (2, 1), 3, ones, DenseHeadOptions(kernel_size=1), shapes=shapes)
    boxes, logits = model([np.arange(6.0).reshape(1, 2, 3, 1), np.array([10.0, 11.0]).reshape(1, 1, 2, 1)])
    expected = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 10, 11]
    np.testing.assert_array_equal(boxes[0], np.repeat(np.array(expected)[:, None], 4, axis=1))
    np.testing.assert_array_equal(logits[0], np.repeat(np.array(expected)[:, None], 3, axis=1))


def test_columns_of_an_anchor_are_neighbours():
    # Channel 8 of the box predictor is the first code of the third anchor, as the reshape to [anchors, 4] has it.
    model = head_model(convolutional_head, (3,), 5, PLAIN, DenseHeadOptions(kernel_size=1), shapes={3: (1, 1, 8)})
    biases = {weight.path: weight for weight in model.weights if weight.name == "bias"}
    biases["box_predictor_3/bias"].assign(np.arange(12.0))
    biases["class_predictor_3/bias"].assign(np.arange(15.0))
    boxes, logits = model([np.zeros((1, 1, 1, 8), np.float32)])
    np.testing.assert_array_equal(boxes[0], np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(logits[0], np.arange(15).reshape(3, 5))


def test_per_level_head_has_predictors_of_each_level():
    model = head_model(convolutional_head, (3, 6), 5, NORMALIZED, DenseHeadOptions(kernel_size=1))
    assert kernels(model) == {
        "box_predictor_3/kernel": (1, 1, 8, 12),
        "class_predictor_3/kernel": (1, 1, 8, 15),
        "box_predictor_4/kernel": (1, 1, 8, 24),
        "class_predictor_4/kernel": (1, 1, 8, 30),
    }
    assert [tuple(x.shape[1:]) for x in model(maps())] == [(3 * 12 + 6 * 4, 4), (3 * 12 + 6 * 4, 5)]


@pytest.mark.parametrize(("least", "most", "expected"), [(0, 0, None), (0, 4, 4), (0, 99, 8), (16, 32, 16)])
def test_reductions_before_the_predictors_have_the_depth_that_is_asked(least, most, expected):
    model = head_model(convolutional_head, (1, 1), 5, NORMALIZED, OPTIONS, min_depth=least, max_depth=most)
    reductions = [shape for path, shape in sorted(kernels(model).items()) if "shared" in path]
    assert reductions == ([] if expected is None else [(1, 1, 8, expected), (1, 1, expected, expected)] * 2)


def test_depthwise_per_level_predictor_is_depthwise_normalised_then_pointwise():
    model = head_model(
        convolutional_head, (3,), 5, NORMALIZED, DenseHeadOptions(use_depthwise=True), shapes={3: (3, 4, 8)}
    )
    assert kernels(model) == {
        "box_predictor_3_depthwise/kernel": (3, 3, 8, 1),
        "box_predictor_3/kernel": (1, 1, 8, 12),
        "class_predictor_3_depthwise/kernel": (3, 3, 8, 1),
        "class_predictor_3/kernel": (1, 1, 8, 15),
    }
    assert any(weight.path == "box_predictor_3_batch_norm/gamma" for weight in model.weights)


def test_shared_towers_have_one_set_of_kernels_and_norms_of_each_level():
    model = head_model(weight_shared_head, (2, 2), 5, 16, NORMALIZED, OPTIONS)
    assert kernels(model) == {
        "box_tower_0/kernel": (3, 3, 8, 16),
        "box_tower_1/kernel": (3, 3, 16, 16),
        "class_tower_0/kernel": (3, 3, 8, 16),
        "class_tower_1/kernel": (3, 3, 16, 16),
        "box_predictor/kernel": (3, 3, 16, 8),
        "class_predictor/kernel": (3, 3, 16, 10),
    }
    gammas = sorted(weight.path for weight in model.weights if weight.name == "gamma")
    assert gammas == [
        f"{tower}_tower_{layer}_level_{level}_batch_norm/gamma"
        for tower in ("box", "class")
        for layer in (0, 1)
        for level in (3, 4)
    ]
    assert sorted(w.path for w in model.weights if w.name == "bias") == ["box_predictor/bias", "class_predictor/bias"]


def test_one_level_predicts_as_two_do():
    both = head_model(weight_shared_head, (2, 2), 5, 16, PLAIN, OPTIONS)
    one = head_model(weight_shared_head, (2,), 5, 16, PLAIN, OPTIONS, shapes={4: SHAPES[4]})
    by_path = {weight.path: weight for weight in both.weights}
    for weight in one.weights:
        weight.assign(by_path[weight.path])
    for joined, alone in zip(both(maps()), one(maps()[1:]), strict=True):
        np.testing.assert_allclose(joined[:, 2 * 12 :], alone, atol=1e-6)


def test_a_shared_tower_feeds_both_predictors():
    model = head_model(weight_shared_head, (2, 2), 5, 16, NORMALIZED, OPTIONS, share_tower=True)
    assert [path for path in kernels(model) if "tower" in path] == ["tower_0/kernel", "tower_1/kernel"]


def test_separable_towers_and_predictors():
    options = dataclasses.replace(OPTIONS, use_depthwise=True)
    model = head_model(weight_shared_head, (2, 2), 5, 16, NORMALIZED, options, share_tower=True)
    assert kernels(model)["tower_0/depthwise_kernel"] == (3, 3, 8, 1)
    assert kernels(model)["class_predictor/pointwise_kernel"] == (1, 1, 16, 10)


@pytest.mark.parametrize("configured", [False, True])
def test_switches_configure_the_separable_kernels(configured):
    options = dataclasses.replace(OPTIONS, use_depthwise=True)
    hyperparams = dataclasses.replace(PLAIN, kernel_initializer=lambda: keras.initializers.Constant(0.25))
    model = head_model(
        weight_shared_head,
        *((2, 2), 5, 16, hyperparams, options),
        configure_pointwise=configured,
        configure_predictors=configured,
    )
    constant = {path for path in kernels(model) if np.all(np.asarray(dict_of(model)[path]) == 0.25)}
    towers = {f"{tower}_tower_{layer}/" for tower in ("box", "class") for layer in (0, 1)}
    predictors = {"box_predictor/", "class_predictor/"}
    expected = {f"{name}depthwise_kernel" for name in towers}
    if configured:
        expected |= {f"{name}pointwise_kernel" for name in towers | predictors}
        expected |= {f"{name}depthwise_kernel" for name in predictors}
    assert constant == expected


def dict_of(model):
    return {weight.path: weight for weight in model.weights}


def test_maps_of_different_channels_are_projected_to_the_commonest():
    shapes = {3: (3, 4, 6), 4: (2, 2, 8), 5: (1, 1, 8)}
    model = head_model(weight_shared_head, (1, 1, 1), 5, 16, NORMALIZED, OPTIONS, shapes=shapes)
    assert kernels(model)["head_3_projection_conv/kernel"] == (1, 1, 6, 8)


def test_levels_with_different_numbers_of_anchors_cannot_share_a_head():
    with pytest.raises(ValueError, match=r"same number of anchors.*\(3, 6\)"):
        head_model(weight_shared_head, (3, 6), 5, 16, NORMALIZED, OPTIONS)


@pytest.mark.parametrize("head", [convolutional_head, weight_shared_head])
def test_every_score_starts_at_the_prior(head):
    # pi = 0.01: the bias is -log(99) = -4.595; with maps of zeros the logits are the bias, and the boxes zero.
    options = DenseHeadOptions(kernel_size=3, class_bias_init=-math.log((1 - 0.01) / 0.01))
    depth = (16,) if head is weight_shared_head else ()
    boxes, logits = head_model(head, (2, 2), 5, *depth, PLAIN, options)([np.zeros((1, *s)) for s in SHAPES.values()])
    np.testing.assert_allclose(tf.sigmoid(logits), np.full(logits.shape, 0.01), rtol=1e-5)
    np.testing.assert_array_equal(boxes, np.zeros(boxes.shape))


@pytest.mark.parametrize("head", [convolutional_head, weight_shared_head])
def test_options_change_the_outputs(head):
    depth = (16,) if head is weight_shared_head else ()
    large = dataclasses.replace(PLAIN, kernel_initializer=lambda: keras.initializers.RandomNormal(stddev=2.0, seed=3))
    options = DenseHeadOptions(
        kernel_size=3, box_deltas_clip_range=(-0.5, 1.0), sigmoid_class_outputs=True, dropout_rate=0.5
    )
    model = head_model(head, (2, 2), 5, *depth, large, options)
    boxes, scores = model(maps())
    assert (float(tf.reduce_min(boxes)), float(tf.reduce_max(boxes))) == (-0.5, 1.0)
    assert float(tf.reduce_min(scores)) >= 0.0
    assert float(tf.reduce_max(scores)) <= 1.0
    dropped_boxes, dropped_scores = model(maps(), training=True)
    np.testing.assert_array_equal(dropped_boxes, boxes)  # dropout is before the class predictor only
    assert not np.allclose(dropped_scores, scores)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("head", [convolutional_head, weight_shared_head])
def test_outputs_are_float32_in_mixed_precision(head, policy):
    depth = (16,) if head is weight_shared_head else ()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = head_model(head, (2, 2), 5, *depth, NORMALIZED, OPTIONS)
    finally:
        keras.config.set_dtype_policy(before)
    kernel = "class_predictor" if head is weight_shared_head else "class_predictor_3"
    assert model.get_layer(kernel).compute_dtype == policy.removeprefix("mixed_")
    assert {x.dtype for x in model(maps())} == {tf.float32}


def test_every_trainable_weight_gets_a_gradient_and_saving_changes_nothing(tmp_path):
    model = head_model(weight_shared_head, (2, 2), 5, 16, NORMALIZED, OPTIONS)
    with tf.GradientTape() as tape:
        boxes, logits = model(maps(), training=True)
        value = tf.reduce_sum(boxes * boxes) + tf.reduce_sum(logits * logits)
    gradients = tape.gradient(value, model.trainable_weights)
    assert all(float(tf.reduce_sum(tf.abs(gradient))) > 0 for gradient in gradients)
    model.save(tmp_path / "head.keras")
    loaded = keras.models.load_model(tmp_path / "head.keras")
    for ours, theirs in zip(model(maps()), loaded(maps()), strict=True):
        np.testing.assert_array_equal(ours, theirs)
