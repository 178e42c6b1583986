"""Statistics of batch normalization from training batches: against the inputs themselves, in float64."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Batch
from detzoo.detectors.batch_norm_statistics import BatchNormStatistics, layers_with_moving_statistics
from detzoo.errors import DataError, DetzooError
from detzoo.layers.normalization import BatchNorm
from detzoo.train.strategy import create_strategy

BATCH, NUM_BATCHES = 4, 3
MEAN, VARIANCE = "backbone/norm/moving_mean", "backbone/norm/moving_variance"


@pytest.fixture(scope="module")
def training_toy(load_module):
    """The module tests/train/training_toy.py."""
    pytest.importorskip("orbit", reason="needs detzoo[train]: tf-models-official is not installed")
    return load_module("train/training_toy.py")


def one_device():
    return tf.distribute.OneDeviceStrategy("CPU:0")


def batches(training_toy, count=NUM_BATCHES):
    return list(itertools.islice(training_toy.make_dataset(BATCH)(0, tf.distribute.InputContext()), count))


def inputs_of_norm(training_toy, kernel, bias, count=NUM_BATCHES):
    """Outputs [batches, positions, channels] of the toy's one convolution, 8 x 8 pixels with stride 8, by hand."""
    found = []
    for batch in batches(training_toy, count):
        images = batch.images.numpy().astype(np.float64) / 127.5 - 1.0
        cells = images.reshape(BATCH, 2, 8, 3, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 8 * 8 * 3)
        found.append(cells @ kernel.astype(np.float64).reshape(8 * 8 * 3, -1) + bias)
    return np.stack(found)


def stem(variables):
    return variables["backbone/stem/kernel"].numpy(), variables["backbone/stem/bias"].numpy()


def assert_population(training_toy, statistics, weights, rtol=1e-5):
    """Mean and variance over all positions of all batches."""
    x = inputs_of_norm(training_toy, *weights)
    np.testing.assert_allclose(statistics[MEAN].numpy(), x.mean(axis=(0, 1)), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(statistics[VARIANCE].numpy(), x.var(axis=(0, 1)), rtol=rtol)
    return x


def test_statistics_are_those_of_all_positions_of_all_batches(training_toy):
    trainer = training_toy.make_trainer(one_device(), batch_norm=True)
    weights = {path: variable.numpy() for path, variable in trainer.model_variables.items()}
    result = BatchNormStatistics(trainer.detector, trainer._distributed_dataset(0)).recompute(NUM_BATCHES)
    assert (result.num_batches, result.num_images, result.num_layers) == (NUM_BATCHES, NUM_BATCHES * BATCH, 1)
    x = assert_population(training_toy, trainer.model_variables, stem(trainer.model_variables))
    # The mean of the batches' variances alone would miss how their means differ.
    assert np.all(x.var(axis=1).mean(axis=0) < 0.999 * trainer.model_variables[VARIANCE].numpy())
    for path, value in weights.items():
        unchanged = np.array_equal(trainer.model_variables[path].numpy(), value)
        assert unchanged == (path not in (MEAN, VARIANCE)), path
    assert int(trainer.optimizer.iterations) == int(trainer.step) == int(trainer.next_record) == 0


@pytest.mark.parametrize("synchronized", [False, True])
def test_two_replicas_compute_what_one_does(training_toy, two_cpus, synchronized):
    strategy = create_strategy("mirrored", device_type="CPU")
    trainer = training_toy.make_trainer(strategy, batch_norm=True)
    for layer in layers_with_moving_statistics(trainer.detector):
        layer.synchronized = synchronized
    with strategy.scope():
        result = BatchNormStatistics(trainer.detector, trainer._distributed_dataset(0)).recompute(NUM_BATCHES)
    assert (result.num_batches, result.num_images) == (NUM_BATCHES, NUM_BATCHES * BATCH)
    assert_population(training_toy, trainer.model_variables, stem(trainer.model_variables))
    for value in strategy.experimental_local_results(trainer.model_variables[MEAN]):
        np.testing.assert_array_equal(value.numpy(), trainer.model_variables[MEAN].numpy())


@pytest.mark.parametrize(("policy", "tolerance"), [("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2)])
def test_mixed_precision(training_toy, policy, tolerance):
    keras.config.set_dtype_policy(policy)
    try:
        trainer = training_toy.make_trainer(one_device(), batch_norm=True)
    finally:
        keras.config.set_dtype_policy("float32")
    BatchNormStatistics(trainer.detector, trainer._distributed_dataset(0)).recompute(NUM_BATCHES)
    assert trainer.model_variables[MEAN].dtype == tf.float32
    assert_population(training_toy, trainer.model_variables, stem(trainer.model_variables), tolerance)


def test_the_averaged_weights_have_statistics_of_their_own(training_toy):
    run = training_toy.settings(moving_average_decay=0.9, recompute_batch_norm_batches=NUM_BATCHES)
    trainer = training_toy.make_trainer(one_device(), run, batch_norm=True)
    trainer.run_steps(4)
    averaged = stem(trainer.average.averages)
    assert np.abs(averaged[0] - stem(trainer.model_variables)[0]).max() > 1e-4
    trainer.recompute_statistics()
    assert_population(training_toy, trainer.model_variables, stem(trainer.model_variables))
    assert_population(training_toy, trainer.average.averages, averaged)
    for before, after in zip(averaged, stem(trainer.average.averages)):
        np.testing.assert_array_equal(after, before)
    with trainer.weights_for_evaluation():
        assert_population(training_toy, trainer.model_variables, averaged)


def test_the_data_may_end_early(training_toy):
    trainer = training_toy.make_trainer(one_device(), num_records=NUM_BATCHES * BATCH + 1, batch_norm=True)
    result = BatchNormStatistics(trainer.detector, trainer._distributed_dataset(0)).recompute(100)
    assert result.num_batches == NUM_BATCHES
    assert_population(training_toy, trainer.model_variables, stem(trainer.model_variables))
    trainer = training_toy.make_trainer(one_device(), num_records=BATCH - 1, batch_norm=True)
    with pytest.raises(DataError, match="train_input_reader has no full batch"):
        BatchNormStatistics(trainer.detector, trainer._distributed_dataset(0)).recompute(100)


@pytest.mark.parametrize("batch_norm", [False, "frozen"])
def test_without_moving_statistics_there_is_nothing_to_recompute(training_toy, batch_norm):
    trainer = training_toy.make_trainer(one_device(), batch_norm=batch_norm)
    before = {path: variable.numpy() for path, variable in trainer.model_variables.items()}
    with pytest.raises(DetzooError, match="no batch normalization whose statistics training moves"):
        BatchNormStatistics(trainer.detector, trainer._distributed_dataset(0)).recompute(1)
    for path, value in before.items():
        np.testing.assert_array_equal(trainer.model_variables[path].numpy(), value)


def test_statistics_that_are_not_finite_are_refused(training_toy):
    trainer = training_toy.make_trainer(one_device(), batch_norm=True)
    kernel = trainer.model_variables["backbone/stem/kernel"]
    kernel.assign(tf.fill(kernel.shape, np.inf))
    with pytest.raises(DetzooError, match=r"inputs of .*norm are not finite"):
        BatchNormStatistics(trainer.detector, trainer._distributed_dataset(0)).recompute(1)


class Shared(keras.Model):
    """One normalization on two maps of different size, a frozen one before it, and dropout."""

    def __init__(self):
        super().__init__(name="shared")
        image = keras.Input((None, None, 2))
        self.seeds = keras.layers.Dropout(0.5, seed=3)
        norm = BatchNorm(name="norm")
        frozen = BatchNorm(train_statistics=False, name="frozen")(image)
        maps = [norm(frozen), norm(keras.layers.AveragePooling2D(2)(3.0 * frozen + 5.0))]
        self.network = keras.Model(image, [self.seeds(maps[0]), maps[1]])
        self.built = True

    def preprocess(self, images):
        return images

    def forward(self, inputs, training=False, **context):
        return self.network(inputs, training=training)


def test_a_shared_layer_gets_the_statistics_of_all_its_inputs_and_random_states_stay():
    rng = np.random.default_rng(0)
    images = rng.normal(2.0, 3.0, (6, 4, 6, 2)).astype(np.float32)
    empty = [tf.zeros([6, 0])] * 4
    dataset = tf.data.Dataset.from_tensor_slices((images, *empty)).batch(3)
    dataset = dataset.map(lambda image, a, b, c, d: Batch(image, a, b, c, d, ()))
    detector = Shared()
    states = [v.numpy() for v in detector.non_trainable_variables if "seed" in v.path]
    assert BatchNormStatistics(detector, dataset).recompute(2).num_layers == 1
    x = images.astype(np.float64) / np.sqrt(1.0 + 1e-3)  # the frozen layer has mean 0, variance 1, epsilon 0.001
    pooled = 3.0 * x.reshape(6, 2, 2, 3, 2, 2).mean(axis=(2, 4)) + 5.0
    values = np.concatenate([x.reshape(-1, 2), pooled.reshape(-1, 2)])  # 144 and 36 positions
    norm = detector.network.get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean.numpy(), values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), values.var(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(detector.network.get_layer("frozen").moving_mean.numpy(), [0.0, 0.0])
    assert states
    for before, after in zip(states, [v.numpy() for v in detector.non_trainable_variables if "seed" in v.path]):
        np.testing.assert_array_equal(after, before)
