"""The heads of a mask proposal network: what is shared, the order of the scores, and that every option arrives."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.heads.mask_proposal_head import mask_network, sliding_heads

PLAIN = ConvHyperparams(kernel_initializer=lambda: keras.initializers.RandomNormal(stddev=0.1, seed=3))
SHAPES = {2: (3, 4, 8), 3: (2, 2, 8)}


def heads_model(kernel_sizes, depth=16, hyperparams=PLAIN):
    inputs = {level: keras.Input(shape, name=f"p{level}") for level, shape in SHAPES.items()}
    return keras.Model(list(inputs.values()), sliding_heads(inputs, kernel_sizes, depth, hyperparams)._asdict())


def maps(seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=(2, *shape)).astype(np.float32) for shape in SHAPES.values()]


def test_layers_are_shared_over_the_levels_and_each_head_has_its_own():
    # 5 x 5 from 8 to 16 channels has 25 * 8 * 16 + 16 = 3216 parameters, and the score has 16 + 1 = 17. 7 x 7 has
    # 49 * 8 * 16 + 16 = 6288, and 17.
    assert heads_model((5,)).count_params() == 3216 + 17
    assert heads_model((5, 7)).count_params() == 3216 + 17 + 6288 + 17
    # Masks of 14 x 14 from 16 channels: 16 * 196 + 196 = 3332 a head.
    assert mask_network((5, 7), 16, 14, PLAIN).count_params() == 2 * 3332


def test_scores_are_in_the_order_head_level_row_column():
    model, given = heads_model((5, 7)), maps()
    outputs = model(given)
    assert outputs["score_logits"].shape == (2, 2 * (3 * 4 + 2 * 2), 1)
    found, first = outputs["score_logits"].numpy()[..., 0], 0
    for number, kernel_size in enumerate((5, 7)):
        conv, score = model.get_layer(f"conv_{kernel_size}"), model.get_layer(f"score_{kernel_size}")
        for level, x in enumerate(given):
            features = tf.nn.relu(conv(x))
            np.testing.assert_allclose(outputs["features"][2 * number + level], features, atol=1e-6)
            expected = tf.reshape(score(features), [2, -1])
            np.testing.assert_allclose(found[:, first : first + expected.shape[1]], expected, atol=1e-6)
            first += expected.shape[1]


def test_activation_and_normalisation_arrive():
    linear = heads_model((5,), hyperparams=_with())
    assert float(tf.reduce_min(linear(maps())["features"][0])) < 0.0
    assert float(tf.reduce_min(heads_model((5,))(maps())["features"][0])) == 0.0
    normalised = heads_model((5,), hyperparams=_with(activation="relu", batch_norm=BatchNormHyperparams()))
    norms = [layer.name for layer in normalised.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms == ["conv_5_level_2_batch_norm", "conv_5_level_3_batch_norm"]


def test_masks_of_a_location_depend_on_its_features_alone():
    network = mask_network((5, 7), 16, 6, PLAIN)
    features = np.random.default_rng(0).normal(size=(2, 3, 16)).astype(np.float32)
    logits = network(features)
    assert logits.shape == (2, 3, 6, 6, 2)
    kernel, bias = network.get_layer("mask_7").get_weights()
    expected = features[1, 2] @ kernel[0, 0] + bias  # row by row of the mask
    np.testing.assert_allclose(logits[1, 2, :, :, 1], expected.reshape(6, 6), atol=1e-5)


def _with(activation=None, batch_norm=None):
    return ConvHyperparams(PLAIN.kernel_initializer, activation=activation, batch_norm=batch_norm)
