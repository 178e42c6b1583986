"""Batch normalisation against Keras's own, frozen, synchronised and in half precision; L2 normalisation by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import BatchNormHyperparams
from detzoo.layers.normalization import BatchNorm, L2Norm, batch_norm_from

SHAPE = (4, 3, 5, 2)  # n = 4 * 3 * 5 = 60 values a channel
MOVING = ("moving_mean", "moving_variance")


def values(seed=1, shape=SHAPE):
    return np.random.default_rng(seed).normal(2.0, 3.0, shape).astype(np.float32)


def built(layer, seed=2):
    """The layer with weights that are not those of the start."""
    layer.build((None, *SHAPE[1:]))
    for weight in layer.weights:
        weight.assign(np.random.default_rng(seed).uniform(0.5, 1.5, weight.shape))
    return layer


@pytest.mark.parametrize(("center", "scale"), [(True, True), (True, False), (False, True), (False, False)])
def test_training_equals_kerass_layer(center, scale):
    arguments = {"momentum": 0.9, "epsilon": 0.01, "center": center, "scale": scale}
    ours, reference = built(BatchNorm(**arguments)), built(keras.layers.BatchNormalization(**arguments))
    before = np.asarray(ours.moving_variance)
    x = tf.constant(values())
    gradients = []
    for layer in (ours, reference):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
            value = tf.reduce_sum(outputs * tf.constant(values(3)))
        gradients.append([outputs, *tape.gradient(value, [x, *layer.trainable_weights])])
    for mine, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.moving_mean, reference.moving_mean, rtol=1e-5)
    # The moving variance follows the unbiased variance: 60 / 59 of the biased one.
    unbiased = np.var(values(), axis=(0, 1, 2)) * 60 / 59
    np.testing.assert_allclose(ours.moving_variance, 0.9 * before + 0.1 * unbiased, rtol=1e-5)


def test_inference_uses_the_moving_statistics():
    ours = built(BatchNorm(momentum=0.9, epsilon=0.01))
    reference = built(keras.layers.BatchNormalization(momentum=0.9, epsilon=0.01))
    np.testing.assert_allclose(
        ours(values(), training=False), reference(values(), training=False), rtol=1e-5, atol=1e-5
    )


def test_frozen_statistics_do_not_move_while_gamma_and_beta_train():
    layer = built(BatchNorm(train_statistics=False))
    before = [np.array(getattr(layer, name)) for name in MOVING]
    inference = layer(values(), training=False)
    with tf.GradientTape() as tape:
        training = layer(values(), training=True)
        value = tf.reduce_sum(training * tf.constant(values(3)))
    np.testing.assert_array_equal(training, inference)
    for name, old in zip(MOVING, before, strict=True):
        np.testing.assert_array_equal(getattr(layer, name), old)
    assert [weight.name for weight in layer.trainable_weights] == ["gamma", "beta"]
    assert all(float(tf.reduce_sum(tf.abs(g))) > 0 for g in tape.gradient(value, layer.trainable_weights))


def test_a_frozen_layer_is_in_inference_mode():
    layer = built(BatchNorm())
    inference = np.asarray(layer(values(), training=False))
    layer.trainable = False
    np.testing.assert_array_equal(layer(values(), training=True), inference)


def replica_outputs(layer, strategy, x):
    """The layer run in training on each half of ``x`` by one of two replicas."""

    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return layer(tf.gather(tf.reshape(x, (2, -1, *x.shape[1:])), replica), training=True)

    outputs = strategy.run(tf.function(step))
    return np.concatenate([np.asarray(part) for part in strategy.experimental_local_results(outputs)])


@pytest.mark.parametrize("synchronized", [False, True])
def test_only_synchronised_statistics_span_the_replicas(two_cpus, synchronized):
    strategy = tf.distribute.MirroredStrategy(two_cpus)
    with strategy.scope():
        layer = built(BatchNorm(synchronized=synchronized, momentum=0.9))
    together = built(BatchNorm(momentum=0.9))(values(), training=True)
    outputs = replica_outputs(layer, strategy, tf.constant(values()))
    assert np.allclose(outputs, together, atol=1e-4) == synchronized


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [False, True])
def test_half_precision_keeps_float32_statistics(policy, training):
    half, full = built(BatchNorm(dtype=policy)), built(BatchNorm())
    outputs = half(values(), training=training)
    assert outputs.dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in half.weights} == {"float32"}
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), full(values(), training=training), atol=0.1)
    np.testing.assert_allclose(half.moving_mean, full.moving_mean, atol=1e-3)


def test_hyperparameters_arrive():
    hyperparams = BatchNormHyperparams(0.97, 0.02, center=False, scale=True, train=False, synchronized=True)
    layer = batch_norm_from(hyperparams, "norm")
    assert (layer.name, layer.momentum, layer.epsilon) == ("norm", 0.97, 0.02)
    assert (layer.center, layer.scale, layer.train_statistics, layer.synchronized) == (False, True, False, True)


def test_saved_model_computes_the_same(tmp_path):
    image = keras.Input((3, 5, 2))
    model = keras.Model(image, L2Norm(7.0, name="l2")(BatchNorm(train_statistics=False, name="norm")(image)))
    for weight in model.weights:
        weight.assign(np.random.default_rng(2).uniform(0.5, 1.5, weight.shape))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(values(), training=True), model(values(), training=True))
    assert loaded.get_layer("norm").train_statistics is False


def test_l2_norm_scales_each_location_to_twenty():
    # (3, 4) has length 5, so the direction is (0.6, 0.8).
    outputs = L2Norm()(tf.constant([[[[3.0, 4.0], [0.0, -2.0]]]]))
    np.testing.assert_allclose(outputs, [[[[12.0, 16.0], [0.0, -20.0]]]], rtol=1e-6)


def test_l2_norm_has_finite_gradients_at_zero_and_no_overflow_in_float16():
    layer = L2Norm()
    x = tf.zeros([1, 2, 3, 4])
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(layer(x))
    assert np.all(np.isfinite(tape.gradient(value, x)))
    large = L2Norm(dtype="mixed_float16")(tf.fill([1, 2, 3, 4], 1000.0))  # 4 * 1000**2 overflows float16
    assert large.dtype == "float16"
    np.testing.assert_allclose(large, np.full((1, 2, 3, 4), 10.0))  # 20 / sqrt(4)
