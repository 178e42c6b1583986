"""Heads of a cropped region: fully connected features, classes and boxes, masks; counts and values by hand."""

from __future__ import annotations

import csv
import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.heads.box_head import box_predictor, fully_connected_features, mask_depth, mask_predictor

PLAIN = ConvHyperparams(kernel_initializer=lambda: keras.initializers.RandomNormal(stddev=0.1, seed=3))
ONES = ConvHyperparams(kernel_initializer=keras.initializers.Ones)
NORMALIZED = dataclasses.replace(PLAIN, batch_norm=BatchNormHyperparams(scale=True))


def model_of(build, shape, *args, **kwargs):
    inputs = keras.Input(shape)
    outputs = build(inputs, *args, **kwargs)
    return keras.Model(inputs, outputs._asdict() if hasattr(outputs, "_asdict") else outputs)


def test_parameters_of_two_fully_connected_layers():
    # From 3 x 5 cells of 4 channels to 8 are 60 * 8 + 8 = 488 parameters, and from 8 to 8 are 72. Batch norm of 8
    # channels has gamma, beta and two statistics, which are 32.
    assert model_of(fully_connected_features, (3, 5, 4), 8).count_params() == 488 + 72
    batch_norm = BatchNormHyperparams(scale=True)
    assert model_of(fully_connected_features, (3, 5, 4), 8, batch_norm).count_params() == 488 + 72 + 32


def test_fully_connected_features_by_hand():
    model = model_of(fully_connected_features, (1, 2, 1), 2)
    fc1, fc2 = model.get_layer("fc1"), model.get_layer("fc2")
    fc1.set_weights([np.float32([[1, -1], [2, -2]]), np.float32([0, 1])])
    fc2.set_weights([np.float32([[1, -1], [1, 1]]), np.float32([0.5, 0])])
    # Cells 3 and 4: fc1 = [3 + 8, relu(-3 - 8 + 1)] = [11, 0]; fc2 = [11.5, relu(-11)] = [11.5, 0].
    np.testing.assert_allclose(model(np.float32([[[[3], [4]]]])), [[[[11.5, 0.0]]]])


def test_weight_decay_of_fully_connected_features():
    model = model_of(fully_connected_features, (1, 2, 1), 2, l2_weight=0.25)
    kernels = [np.float32([[1, -1], [2, -2]]), np.float32([[1, -1], [1, 1]])]
    for name, kernel in zip(("fc1", "fc2"), kernels):
        model.get_layer(name).set_weights([kernel, np.float32([5, 5])])
    # Squares: 1 + 1 + 4 + 4 = 10 and 4; the biases do not count.
    np.testing.assert_allclose(np.sum(model.losses), 0.25 * (10 + 4))
    assert model_of(fully_connected_features, (1, 2, 1), 2).losses == []


def test_dropout_of_fully_connected_features_is_for_training():
    model = model_of(fully_connected_features, (1, 2, 1), 64, dropout_rate=0.5)
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.5, 0.5]
    x = np.ones((1, 1, 2, 1), np.float32)
    np.testing.assert_array_equal(model(x, training=False), model(x, training=False))
    assert not np.array_equal(model(x, training=True), model(x, training=False))


@pytest.mark.parametrize(("is_shared", "num_boxes"), [(False, 3), (True, 1)])
def test_boxes_of_classes(is_shared, num_boxes):
    model = model_of(box_predictor, (2, 3, 5), 3, PLAIN, share_box_across_classes=is_shared)
    outputs = model(np.ones((7, 2, 3, 5), np.float32))
    assert tuple(outputs["box_deltas"].shape) == (7, num_boxes, 4)
    assert tuple(outputs["class_logits"].shape) == (7, 4)
    # Both layers read the mean of 5 channels: 5 * 4 Q + 4 Q, and 5 * 4 + 4.
    assert model.count_params() == 24 * num_boxes + 24


def test_box_predictor_reads_the_mean_over_the_cells():
    outputs = model_of(box_predictor, (1, 3, 2), 2, ONES)(np.float32([[[[1, 0], [2, 0], [6, 3]]]]))
    # Means 3 and 1; kernels of ones add them: 4 everywhere.
    np.testing.assert_allclose(outputs["box_deltas"], np.full((1, 2, 4), 4.0))
    np.testing.assert_allclose(outputs["class_logits"], np.full((1, 3), 4.0))


def test_codes_of_a_class_are_neighbours():
    model = model_of(box_predictor, (1, 1, 2), 3, PLAIN)
    model.get_layer("box_predictor").set_weights([np.zeros((2, 12)), np.arange(12.0)])
    np.testing.assert_array_equal(model(np.ones((1, 1, 1, 2)))["box_deltas"][0], np.arange(12.0).reshape(3, 4))


def test_dropout_and_regulariser_of_the_box_predictor_arrive():
    hyperparams = dataclasses.replace(ONES, l2_weight=0.01)
    model = model_of(box_predictor, (1, 1, 2), 3, hyperparams, dropout_rate=0.25)
    assert model.get_layer("dropout").rate == 0.25
    # Sums of squares of kernels of ones: 2 * 12 and 2 * 4, times .01.
    assert sum(float(loss) for loss in model.losses) == pytest.approx(0.32)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_outputs_are_float32_under_mixed_policies(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        boxes = model_of(box_predictor, (2, 2, 4), 3, PLAIN)
        masks = model_of(mask_predictor, (2, 2, 4), 3, (5, 5), PLAIN, depth=4)
    finally:
        keras.config.set_dtype_policy(before)
    x = np.ones((1, 2, 2, 4), np.float32)
    assert {value.dtype for value in (*boxes(x).values(), masks(x))} == {tf.float32}


@pytest.mark.parametrize(
    ("num_features", "num_classes", "expected"),
    [
        # (3 log2 90 + 2 log2 1536) / 5 = (3 * 6.4919 + 2 * 10.585) / 5 = 8.129: 2**8.
        (1536, 90, 256),
        (1024, 90, 256),  # (19.476 + 20) / 5 = 7.895
        (16, 2, 4),  # (3 + 8) / 5 = 2.2
        (2048, 1, 16),  # 22 / 5 = 4.4
    ],
)
def test_automatic_depth_of_the_mask_head(num_features, num_classes, expected):
    assert mask_depth(num_features, num_classes) == expected


@pytest.mark.shared
def test_automatic_depth_is_that_of_the_published_mask_rcnn(shared):
    with (shared / "golden/mask_rcnn_inception_resnet_v2/variables.csv").open() as file:
        shapes = {row["name"]: row["shape"] for row in csv.DictReader(file)}
    (first,) = (shape for name, shape in shapes.items() if "mask_predictions/_mask_predictor_layers/0/kernel" in name)
    assert first == f"3x3x1536x{mask_depth(1536, 90)}"


def test_parameters_of_the_mask_head():
    # The 3 x 3 convolutions have 222 parameters from 4 to 6 channels, 330 from 6 to 6, and 275 from 6 to 5 classes.
    assert model_of(mask_predictor, (2, 3, 4), 5, (7, 9), PLAIN, num_conv_layers=3, depth=6).count_params() == 827
    assert model_of(mask_predictor, (2, 3, 4), 5, (7, 9), PLAIN, num_conv_layers=2, depth=6).count_params() == 497
    # With batch norm no biases but the last one, and twice 4 * 6.
    normalized = model_of(mask_predictor, (2, 3, 4), 5, (7, 9), NORMALIZED, num_conv_layers=3, depth=6)
    assert normalized.count_params() == 827 - 12 + 48
    # Depth 0: (3 log2 5 + 2 log2 4) / 5 = 2.19, so 4: 148 + 185.
    assert model_of(mask_predictor, (2, 3, 4), 5, (7, 9), PLAIN, depth=0).count_params() == 333


@pytest.mark.parametrize(("is_class_agnostic", "num_masks"), [(False, 5), (True, 1)])
def test_masks_of_classes(is_class_agnostic, num_masks):
    model = model_of(mask_predictor, (2, 3, 4), 5, (7, 9), PLAIN, depth=6, is_class_agnostic=is_class_agnostic)
    assert model.output_shape == (None, 7, 9, num_masks)


def test_features_are_enlarged_before_the_convolutions():
    # One layer, kernel of ones: corners of 3 x 3 coincide with those of 2 x 2. The middle cell adds all nine.
    model = model_of(mask_predictor, (2, 2, 1), 1, (3, 3), ONES, num_conv_layers=1)
    enlarged = np.array([[0, 1, 2], [2, 3, 4], [4, 5, 6]])
    outputs = model(np.float32([[[[0], [2]], [[4], [6]]]]))[0, :, :, 0]
    assert float(outputs[1, 1]) == enlarged.sum() == 27
    assert float(outputs[0, 0]) == enlarged[:2, :2].sum() == 6


def test_features_may_be_convolved_before_they_are_enlarged():
    model = model_of(mask_predictor, (2, 3, 4), 5, (4, 9), PLAIN, depth=6, convolve_then_upsample=True)
    assert model.output_shape == (None, 4, 9, 5)
    names = [layer.name for layer in model.layers if layer.weights]
    assert names == ["mask_0_conv", "mask_upsampled_conv", "mask_predictor"]
    assert model.get_layer("mask_0_conv").output.shape[1:3] == (2, 3)
    assert model.get_layer("mask_upsampled_conv").output.shape[1:3] == (4, 9)
    assert model.get_layer("mask_upsample").size == (2, 3)


def test_a_mask_that_is_no_multiple_of_the_features_is_refused():
    with pytest.raises(ValueError, match=r"repeats the cells of features of \(2, 3\); a mask of \(5, 9\)"):
        model_of(mask_predictor, (2, 3, 4), 5, (5, 9), PLAIN, depth=6, convolve_then_upsample=True)


def test_every_weight_has_a_gradient_and_survives_saving(tmp_path):
    inputs = keras.Input((2, 3, 4))
    features = fully_connected_features(inputs, 8, BatchNormHyperparams(scale=True))
    outputs = {**box_predictor(features, 3, PLAIN)._asdict(), "masks": mask_predictor(inputs, 3, (4, 6), PLAIN)}
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(1).normal(0, 1, (5, 2, 3, 4)).astype(np.float32)
    with tf.GradientTape() as tape:
        value = sum(tf.reduce_sum(output**2) for output in model(x, training=True).values())
    gradients = tape.gradient(value, model.trainable_weights)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")(x)
    for name, output in model(x).items():
        np.testing.assert_array_equal(loaded[name], output)
