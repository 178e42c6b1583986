"""The training step: the loss of a global batch, gradients over replicas, clipping, freezing, averages."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.errors import ConfigError, UsageError


def weights_of(trainer):
    return {path: variable.numpy() for path, variable in trainer.model_variables.items()}


def global_batch(training_toy, start=0, size=4):
    context = tf.distribute.InputContext()
    return next(iter(training_toy.make_dataset(size)(start, context)))


def test_loss_is_total_over_normalizer_plus_regularization_once(training_toy, one_device):
    trainer = training_toy.make_trainer(one_device, l2=0.1)
    detector, batch = trainer.detector, global_batch(training_toy)
    terms = detector.loss_terms(detector.forward(detector.preprocess(batch.images)), batch.groundtruth)
    # Records 0..3 have 1, 2, 3 and 1 objects.
    assert float(terms["localization"].normalizer) == 7.0
    kernel = trainer.model_variables["backbone/stem/kernel"].numpy()
    result = trainer.run_steps(1)
    np.testing.assert_allclose(result.losses["localization"], float(terms["localization"].total) / 7, rtol=1e-5)
    np.testing.assert_allclose(result.losses["regularization"], 0.1 * np.sum(kernel**2), rtol=1e-5)
    np.testing.assert_allclose(
        result.losses["total"],
        sum(result.losses[name] for name in ("localization", "classification", "regularization")),
        rtol=1e-6,
    )


def assert_same_step(found, expected, rtol):
    assert expected.losses.keys() == found.losses.keys()
    for name, value in expected.losses.items():
        np.testing.assert_allclose(found.losses[name], value, rtol=rtol, err_msg=name)
    np.testing.assert_allclose(found.gradient_norm, expected.gradient_norm, rtol=2e-5)


def test_two_replicas_compute_what_one_does(training_toy, one_device, two_replicas):
    one = training_toy.make_trainer(one_device, training_toy.settings(gradient_clipping_norm=0.5), l2=0.1)
    two = training_toy.make_trainer(two_replicas, training_toy.settings(gradient_clipping_norm=0.5), l2=0.1)
    for _ in range(3):
        assert_same_step(two.run_steps(1), one.run_steps(1), rtol=2e-6)
    for path, value in weights_of(one).items():
        np.testing.assert_allclose(weights_of(two)[path], value, rtol=1e-4, atol=1e-6, err_msg=path)
    assert int(one.next_record) == int(two.next_record) == 12


def test_accumulated_gradients_are_those_of_the_whole_batch(training_toy, one_device, two_replicas):
    # Records 0..3 have 1, 2, 3 and 1 objects: means of parts of one or two images would have other normalizers.
    whole, *others = (
        training_toy.make_trainer(
            strategy, training_toy.settings(gradient_accumulation_steps=count, gradient_clipping_norm=0.5), l2=0.1
        )
        for strategy, count in ((one_device, 1), (one_device, 4), (two_replicas, 2))
    )
    expected = [whole.run_steps(1) for _ in range(2)]
    for trainer in others:
        for first in expected:
            assert_same_step(trainer.run_steps(1), first, rtol=1e-5)
        for path, value in weights_of(whole).items():
            np.testing.assert_allclose(weights_of(trainer)[path], value, rtol=1e-4, atol=1e-6, err_msg=path)
    with pytest.raises(UsageError, match="2 replicas and 4 gradient_accumulation_steps; use a multiple of 8"):
        training_toy.make_trainer(two_replicas, training_toy.settings(gradient_accumulation_steps=4))
    with pytest.raises(UsageError, match=r"among 1 replica and 3 gradient_accumulation_steps; use a multiple of 3$"):
        training_toy.make_trainer(one_device, training_toy.settings(gradient_accumulation_steps=3))


def test_statistics_of_replicas_are_averaged_before_they_are_saved(training_toy, two_replicas):
    trainer = training_toy.make_trainer(two_replicas, batch_norm=True)
    trainer.run_steps(2)
    mean = trainer.model_variables["backbone/norm/moving_mean"]
    first, second = (value.numpy() for value in two_replicas.experimental_local_results(mean))
    assert np.abs(first - second).max() > 0
    trainer.synchronize_statistics()
    for value in two_replicas.experimental_local_results(mean):
        np.testing.assert_allclose(value.numpy(), (first + second) / 2, rtol=1e-6)


def test_the_step_is_traced_once_whatever_the_number_of_steps(training_toy, one_device, monkeypatch):
    trainer = training_toy.make_trainer(one_device)
    traces = []
    original = trainer.detector.loss_terms
    monkeypatch.setattr(trainer.detector, "loss_terms", lambda *args: traces.append(1) or original(*args))
    for num_steps in (1, 3, 2):
        result = trainer.run_steps(num_steps)
    assert (result.step, len(traces)) == (6, 1)


def test_the_loss_falls(training_toy, one_device):
    trainer = training_toy.make_trainer(one_device)
    first = trainer.run_steps(1).losses["total"]
    assert trainer.run_steps(20).losses["total"] < 0.9 * first


def test_clipping_bounds_the_step(training_toy, one_device):
    run = training_toy.settings(gradient_clipping_norm=0.01)
    trainer = training_toy.make_trainer(one_device, run, optimizer=lambda: keras.optimizers.SGD(1.0))
    before = weights_of(trainer)
    result = trainer.run_steps(1)
    assert result.gradient_norm > 0.01
    moved = [weights_of(trainer)[path] - value for path, value in before.items()]
    # Plain SGD with rate 1 moves by the clipped gradient.
    np.testing.assert_allclose(np.sqrt(sum(np.sum(part**2) for part in moved)), 0.01, rtol=1e-3)


def test_weight_decay_shrinks_kernels_only_by_rate_times_decay(training_toy, one_device):
    plain = training_toy.make_trainer(one_device, optimizer=lambda: keras.optimizers.SGD(0.1))
    decayed = training_toy.make_trainer(one_device, optimizer=lambda: keras.optimizers.SGD(0.1, weight_decay=0.5))
    start = weights_of(plain)
    plain.run_steps(1)
    decayed.run_steps(1)
    for path, value in start.items():
        shrunk = 0.1 * 0.5 * value if path.endswith("kernel") else 0.0 * value
        np.testing.assert_allclose(weights_of(decayed)[path], weights_of(plain)[path] - shrunk, atol=1e-6)


def test_bias_multiplier_scales_the_steps_of_biases(training_toy, one_device):
    plain = training_toy.make_trainer(one_device, optimizer=lambda: keras.optimizers.SGD(0.1))
    run = training_toy.settings(bias_gradient_multiplier=2.0)
    doubled = training_toy.make_trainer(one_device, run, optimizer=lambda: keras.optimizers.SGD(0.1))
    start = weights_of(plain)
    plain.run_steps(1)
    doubled.run_steps(1)
    for path, value in start.items():
        factor = 2.0 if path.endswith("bias") else 1.0
        step = weights_of(plain)[path] - value
        np.testing.assert_allclose(weights_of(doubled)[path], value + factor * step, atol=1e-6)


def test_frozen_variables_stay_and_are_not_regularised(training_toy, one_device):
    run = training_toy.settings(freeze_variables=("^backbone/",))
    trainer = training_toy.make_trainer(one_device, run, l2=0.1)
    before = weights_of(trainer)
    result = trainer.run_steps(2)
    assert "regularization" not in result.losses
    for path, value in before.items():
        moved = np.abs(weights_of(trainer)[path] - value).max() > 0
        assert moved == path.startswith("head/"), path
    assert trainer.num_trainable == 4 * 4 + 4 + 4 * 3 + 3


def test_frozen_batch_norm_keeps_its_statistics_and_normalises_with_them(training_toy, one_device):
    def first_loss(**toy):
        run = training_toy.settings(freeze_variables=("^backbone/",))
        trainer = training_toy.make_trainer(one_device, run, **toy)
        before = weights_of(trainer)
        result = trainer.run_steps(2)
        for path, value in before.items():
            assert np.array_equal(weights_of(trainer)[path], value) == path.startswith("backbone/"), path
        return result.losses["total"]

    assert first_loss(batch_norm=True) == first_loss(batch_norm="frozen")


def test_a_pattern_that_finds_scales_only_lets_statistics_move(training_toy, one_device):
    run = training_toy.settings(freeze_variables=("gamma$", "beta$"))
    trainer = training_toy.make_trainer(one_device, run, batch_norm=True)
    before = weights_of(trainer)
    trainer.run_steps(2)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        moved = not np.array_equal(weights_of(trainer)[f"backbone/norm/{name}"], before[f"backbone/norm/{name}"])
        assert moved == name.startswith("moving"), name


def test_update_patterns_choose_what_trains(training_toy, one_device):
    run = training_toy.settings(update_variables=("classes",), freeze_variables=("bias$",))
    trainer = training_toy.make_trainer(one_device, run)
    assert [v.path for v in trainer.detector.trainable_variables] == ["head/classes/kernel"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze_variables": ("FeatureExtractor",)}, "finds no variable.*backbone/stem/kernel.*Parts.*backbone, head"),
        ({"freeze_variables": ("(",)}, "not a regular expression"),
        ({"freeze_variables": ("a",)}, "leave nothing to train"),
    ],
)
def test_patterns_that_make_no_sense_are_errors(training_toy, one_device, changes, message):
    with pytest.raises(ConfigError, match=message):
        training_toy.make_trainer(one_device, training_toy.settings(**changes))


def test_the_batch_must_divide(training_toy, two_replicas):
    with pytest.raises(UsageError, match="batch_size 5 cannot be divided among 2 replicas"):
        training_toy.make_trainer(two_replicas, training_toy.settings(batch_size=5))


def test_moving_average_follows_with_a_decay_that_grows(training_toy, one_device):
    run = training_toy.settings(moving_average_decay=0.5)
    trainer = training_toy.make_trainer(one_device, run)
    path = "head/classes/kernel"
    expected = trainer.model_variables[path].numpy()
    for step in range(1, 13):
        trainer.run_steps(1)
        decay = min(0.5, (1 + step) / (10 + step))  # 0.5 from step 8 on
        expected = decay * expected + (1 - decay) * trainer.model_variables[path].numpy()
        np.testing.assert_allclose(trainer.average.averages[path].numpy(), expected, rtol=1e-5)
    raw = trainer.model_variables[path].numpy()
    with trainer.weights_for_evaluation():
        np.testing.assert_array_equal(trainer.model_variables[path].numpy(), trainer.average.averages[path].numpy())
    np.testing.assert_array_equal(trainer.model_variables[path].numpy(), raw)


def test_moving_average_of_two_replicas(training_toy, one_device, two_replicas):
    run = training_toy.settings(moving_average_decay=0.9)
    trainers = [training_toy.make_trainer(strategy, run) for strategy in (one_device, two_replicas)]
    for trainer in trainers:
        trainer.run_steps(3)
    one, two = (trainer.average.averages["backbone/stem/kernel"].numpy() for trainer in trainers)
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_finite_names_the_first_step(training_toy, one_device):
    trainer = training_toy.make_trainer(one_device, optimizer=lambda: keras.optimizers.SGD(1e30))
    result = trainer.run_steps(8)
    assert result.failed_step in (2, 3)
    assert result.failed_values["learning_rate"] == pytest.approx(1e30)
    assert not np.isfinite(result.failed_values["total"] + result.failed_values["gradient_norm"])


def test_float16_skips_overflowing_steps_and_halves_the_scale(training_toy, one_device):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        trainer = training_toy.make_trainer(one_device, training_toy.settings(float16_loss_scaling=True))
    finally:
        keras.config.set_dtype_policy("float32")
    trainer.loss_scale.scale.assign(2.0**20)
    before = weights_of(trainer)
    result = trainer.run_steps(1)
    assert result.failed_step is None
    assert float(trainer.loss_scale.scale) == 2.0**19
    assert all(np.array_equal(value, before[path]) for path, value in weights_of(trainer).items())
    first_loss = result.losses["total"]
    trainer.loss_scale.scale.assign(8.0)
    trainer.loss_scale.finite_steps.assign(1999)
    result = trainer.run_steps(20)
    assert float(trainer.loss_scale.scale) == 16.0
    assert result.losses["total"] < first_loss


def test_bfloat16_trains(training_toy, one_device):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        trainer = training_toy.make_trainer(one_device)
    finally:
        keras.config.set_dtype_policy("float32")
    first = trainer.run_steps(1).losses["total"]
    assert trainer.run_steps(20).losses["total"] < 0.9 * first
    assert trainer.model_variables["backbone/stem/kernel"].dtype == tf.float32
