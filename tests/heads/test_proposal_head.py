"""The proposal head: what the levels share, the order of the anchors, and that every option arrives."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.heads.proposal_head import Sharing, proposal_head

PLAIN = ConvHyperparams(kernel_initializer=lambda: keras.initializers.RandomNormal(stddev=0.1, seed=3))
ONES = ConvHyperparams(kernel_initializer=keras.initializers.Ones)
SHAPES = {2: (3, 4, 8), 3: (2, 2, 8)}


def head_model(num_anchors, depth, hyperparams=PLAIN, shapes=SHAPES, **options):
    inputs = {level: keras.Input(shape, name=f"p{level}") for level, shape in shapes.items()}
    return keras.Model(
        list(inputs.values()), proposal_head(inputs, num_anchors, depth, hyperparams, **options)._asdict()
    )


@pytest.mark.parametrize(
    ("sharing", "expected"),
    [
        # 3 x 3 from 8 to 16: 9 * 8 * 16 + 16 = 1168. To 3 anchors: 16 * 12 + 12 = 204 and 16 * 6 + 6 = 102.
        (Sharing.ALL, 1168 + 204 + 102),
        (Sharing.CONVOLUTION, 1168 + 2 * (204 + 102)),
        (Sharing.NONE, 2 * (1168 + 204 + 102)),
    ],
)
def test_parameters_of_each_sharing(sharing, expected):
    assert head_model((3, 3), 16, sharing=sharing).count_params() == expected


@pytest.mark.parametrize(
    ("sharing", "expected"),
    [
        (Sharing.ALL, ["box_predictor", "conv", "objectness_predictor"]),
        (
            Sharing.CONVOLUTION,
            ["box_predictor_2", "box_predictor_3", "conv", "objectness_predictor_2", "objectness_predictor_3"],
        ),
        (
            Sharing.NONE,
            [f"{name}_{level}" for name in ("box_predictor", "conv", "objectness_predictor") for level in (2, 3)],
        ),
    ],
)
def test_names_say_what_is_shared(sharing, expected):
    assert sorted({weight.path.split("/")[0] for weight in head_model((1, 1), 4, sharing=sharing).weights}) == expected


def test_one_map_has_names_without_a_level():
    model = head_model((2,), 4, shapes={4: (3, 4, 8)}, sharing=Sharing.NONE)
    assert {weight.path.split("/")[0] for weight in model.weights} == {"conv", "box_predictor", "objectness_predictor"}


def test_rows_are_ordered_by_level_row_column_and_anchor():
    # 1 x 1 kernels of ones on maps whose only channel is the cell's number, which ReLU6 leaves alone up to 6.
    shapes = {2: (2, 2, 1), 3: (1, 2, 1)}
    model = head_model((2, 1), 1, ONES, shapes, kernel_size=1)
    outputs = model([np.arange(4.0).reshape(1, 2, 2, 1), np.array([4.0, 5.0]).reshape(1, 1, 2, 1)])
    cells = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 5])
    np.testing.assert_array_equal(outputs["box_deltas"][0], np.repeat(cells[:, None], 4, axis=1))
    np.testing.assert_array_equal(outputs["class_logits"][0], np.repeat(cells[:, None], 2, axis=1))


def test_activation_is_relu6_whatever_the_hyperparameters_say():
    hyperparams = dataclasses.replace(ONES, activation=None)
    model = head_model((1,), 2, hyperparams, {4: (1, 3, 1)}, kernel_size=1)
    # Two channels of min(max(x, 0), 6), summed by the predictors.
    outputs = model([np.array([-5.0, 2.0, 50.0]).reshape(1, 1, 3, 1)])
    np.testing.assert_array_equal(outputs["class_logits"][0, :, 1], [0.0, 4.0, 12.0])


@pytest.mark.parametrize(("kernel_size", "dilation", "reach"), [(3, 1, 1), (5, 1, 2), (3, 2, 2), (1, 1, 0)])
def test_kernel_size_and_dilation_arrive(kernel_size, dilation, reach):
    # The middle of 9 columns is seen from ``dilation`` apart, up to the kernel's reach.
    image = np.zeros((1, 1, 9, 1), np.float32)
    image[0, 0, 4] = 1.0
    model = head_model((1,), 1, ONES, {4: (1, 9, 1)}, kernel_size=kernel_size, dilation=dilation)
    expected = [1.0 if abs(x - 4) <= reach and (x - 4) % dilation == 0 else 0.0 for x in range(9)]
    np.testing.assert_array_equal(model([image])["box_deltas"][0, :, 0], expected)


@pytest.mark.parametrize(
    ("center", "force_use_bias", "has_bias"), [(True, False, False), (False, False, True), (True, True, True)]
)
def test_the_convolution_has_a_bias_where_no_normalisation_shifts(center, force_use_bias, has_bias):
    batch_norm = BatchNormHyperparams(center=center, scale=True)
    hyperparams = dataclasses.replace(PLAIN, batch_norm=batch_norm, force_use_bias=force_use_bias)
    paths = {weight.path for weight in head_model((1, 1), 4, hyperparams).weights}
    assert ("conv/bias" in paths) == has_bias
    # The normalisation is each level's own, also where the kernel is shared.
    assert {f"conv_level_{level}_batch_norm/gamma" for level in (2, 3)} <= paths
    assert ("conv_level_2_batch_norm/beta" in paths) == center


def test_every_weight_has_a_gradient():
    model = head_model((3, 3), 6, dataclasses.replace(PLAIN, batch_norm=BatchNormHyperparams(scale=True)))
    maps = [np.random.default_rng(1).normal(0, 1, (2, *shape)).astype(np.float32) for shape in SHAPES.values()]
    with tf.GradientTape() as tape:
        outputs = model(maps, training=True)
        value = tf.reduce_sum(outputs["box_deltas"] ** 2) + tf.reduce_sum(outputs["class_logits"] ** 2)
    gradients = tape.gradient(value, model.trainable_weights)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_levels_need_as_many_numbers_of_anchors():
    with pytest.raises(ValueError, match="shorter"):
        head_model((3,), 4)
