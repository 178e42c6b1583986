"""The attention of Context R-CNN: hand-worked results, padding, and its parts."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.heads.context_attention import AttentionParts, Memory, context_attention
from detzoo.layers.attention import MemoryAttention

# Projections that change nothing but the length: identity kernels, and a normalization without effect.
SCALE = math.sqrt(1.001)  # of gamma: the variance 1 and its epsilon
CHANNELS = 2


def build(parts, num_rows=None):
    regions = keras.Input((1, 1, CHANNELS))
    inputs = [regions, keras.Input((num_rows, CHANNELS)), *(keras.Input((), dtype="int32") for _ in range(2))]
    model = keras.Model(inputs, context_attention(regions, Memory(*inputs[1:]), parts))
    for weight in model.weights:
        if weight.name in ("kernel", "gamma"):
            weight.assign(np.eye(*weight.shape) if weight.name == "kernel" else np.full(weight.shape, SCALE))
    return model


def attend(model, regions, memory, num_features, num_regions=2):
    regions = np.array(regions, np.float32).reshape(-1, 1, 1, CHANNELS)
    given = [regions, np.array([memory], np.float32), np.array([num_features]), np.array([num_regions])]
    return model([tf.constant(value) for value in given]).numpy().reshape(-1, CHANNELS)


def test_attention_to_a_memory_by_hand():
    # Of length 1 the queries are (1, 0) and (0.6, 0.8), keys and values (1, 0) and (0, 1). With temperature 0.5, the
    # weights of the first query are e^2 : e^0, those of the second e^1.2 : e^1.6. Means are added twice, as they are
    # and in the regions.
    model = build(AttentionParts(depth=CHANNELS, temperature=0.5, adds_means=False))
    first, second = 1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(0.4))
    regions = [[2.0, 0.0], [3.0, 4.0]]
    expected = np.add(regions, [[first, 1 - first], [second, 1 - second]])
    np.testing.assert_allclose(attend(model, regions, [[5.0, 0.0], [0.0, 0.25]], 2), expected, rtol=1e-5)
    # In the graphs of TensorFlow 1 the layer adds its input, and its sum is added to its input: twice the means.
    model = build(AttentionParts(depth=CHANNELS, temperature=0.5))
    expected += 2 * np.array(regions)
    np.testing.assert_allclose(attend(model, regions, [[5.0, 0.0], [0.0, 0.25]], 2), expected, rtol=1e-5)


def test_padding_has_no_effect():
    model = build(AttentionParts(depth=CHANNELS, temperature=0.01))
    regions, memory = [[2.0, 1.0], [3.0, 4.0]], [[1.0, 2.0], [2.0, 1.0]]
    expected = attend(model, regions, memory, 2)
    np.testing.assert_allclose(attend(model, regions, [*memory, [9.0, 1.0], [0.0, 0.0]], 2), expected, rtol=1e-6)
    assert not np.allclose(attend(model, regions, [*memory, [9.0, 1.0], [0.0, 0.0]], 3), expected)
    # Without any row, the values are 0, and so is what a projection without shift makes of them.
    np.testing.assert_allclose(attend(model, regions, memory, 0), 3 * np.array(regions), rtol=1e-6)


def test_attention_to_the_other_regions():
    # Both regions are queries, keys and values of length 1: (1, 0) and (0, 1). Temperature 1: weights e^1 : e^0.
    parts = AttentionParts(depth=CHANNELS, temperature=1.0, attends_to_memory=False, attends_to_image=True)
    own = 1 / (1 + math.exp(-1.0))
    regions = np.array([[2.0, 0.0], [0.0, 3.0]])
    expected = np.add(regions, [[own, 1 - own], [1 - own, own]])
    np.testing.assert_allclose(attend(build(parts), regions, [[1.0, 1.0]], 1), expected, rtol=1e-5)
    # The second region is padding, so that the first one attends to itself alone.
    assert attend(build(parts), regions, [[1.0, 1.0]], 1, num_regions=1)[0] == pytest.approx([3.0, 0.0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # One region, one row of memory: whatever the weights, the image gives (1, 0) and the memory (0, 1).
        ({"adds_means": False}, [4.0, 0.0 + 1.0]),
        ({"num_heads": 3, "adds_means": False}, [4.0, 1.0]),  # a mean of three
        ({"num_layers": 2, "adds_means": False}, [4.0, 2.0]),  # a sum of two
        ({"attends_to_image": True, "adds_means": False}, [4.0 + 1.0, 1.0]),
        ({"attends_to_image": True, "in_sequence": True, "adds_means": False}, [4.0, 1.0]),
        # The mean of (4, 0) and (1, 0) instead of (4, 0), twice.
        ({"attends_to_image": True, "in_sequence": True}, [4.0 + 2 * 2.5, 1.0]),
    ],
)
def test_parts_of_the_attention(options, expected):
    model = build(AttentionParts(depth=CHANNELS, temperature=0.01, **options))
    assert attend(model, [[4.0, 0.0]], [[0.0, 7.0]], 1, num_regions=1)[0] == pytest.approx(expected, rel=1e-5)


def test_every_weight_learns_and_a_batch_is_its_images():
    model = build(AttentionParts(depth=3, temperature=0.5, attends_to_image=True, num_heads=2))
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if weight.name == "kernel":
            weight.assign(generator.uniform(0.1, 1.0, weight.shape))
    regions = generator.uniform(0.1, 1.0, (6, 1, 1, CHANNELS)).astype(np.float32)
    memory = generator.uniform(0.1, 1.0, (2, 4, CHANNELS)).astype(np.float32)
    given = [tf.constant(value) for value in (regions, memory, np.array([4, 2]), np.array([3, 2]))]
    with tf.GradientTape() as tape:
        batch = model(given)
        loss = tf.reduce_sum(batch**2)
    assert all(np.any(gradient) for gradient in tape.gradient(loss, model.trainable_weights))
    for row in range(2):
        alone = model([given[0][3 * row : 3 * row + 3], *(value[row : row + 1] for value in given[1:])])
        np.testing.assert_allclose(batch[3 * row : 3 * row + 3], alone, rtol=1e-5)


def test_the_layer_is_stored_with_its_temperature():
    layer = MemoryAttention(0.2, name="attention")
    assert MemoryAttention.from_config(layer.get_config()).temperature == 0.2


def test_attention_to_nothing_is_an_error():
    with pytest.raises(ValueError, match="to the memory, to the image, or to both"):
        build(AttentionParts(depth=2, temperature=1.0, attends_to_memory=False))
