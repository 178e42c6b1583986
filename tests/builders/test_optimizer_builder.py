"""Schedules against their closed forms, optimizers against hand-worked steps."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from google.protobuf import text_format

from detzoo.builders.optimizer import build_optimizer, build_schedule, moving_average_decay
from detzoo.config import pb
from detzoo.config.load import read_pipeline
from detzoo.errors import ConfigError


def rate_config(text):
    return text_format.Parse(text, pb.LearningRate())


def optimizer_config(text):
    return text_format.Parse(text, pb.Optimizer())


def rates(text, steps):
    schedule = build_schedule(rate_config(text))
    return [float(schedule(step)) for step in steps]


def test_constant_rate():
    assert rates("constant_learning_rate { learning_rate: 0.25 }", [0, 1, 10**6]) == [0.25, 0.25, 0.25]


def test_a_rate_on_plateaus_waits_for_evaluations():
    text = "plateau_learning_rate { initial_learning_rate: 0.5 factor: 0.5 min_learning_rate: 0.2 }"
    schedule = build_schedule(rate_config(text))
    for num_drops, rate in ((0, 0.5), (1, 0.25), (2, 0.2)):
        schedule.num_drops.assign(num_drops)
        assert float(schedule(1000)) == pytest.approx(rate)


def test_cosine_with_warm_up():
    text = """
        cosine_decay_learning_rate {
          learning_rate_base: 0.8 total_steps: 1100
          warmup_learning_rate: 0.2 warmup_steps: 100
        }
        """
    # Warm-up: 0.2 + 0.6 * step / 100. Then 0.4 * (1 + cos(pi * (step - 100) / 1000)), and 0 past the end.
    wanted = [0.2, 0.206, 0.794, 0.8, 0.4 * (1 + math.cos(math.pi / 4)), 0.4, 0.0, 0.0]
    np.testing.assert_allclose(rates(text, [0, 1, 99, 100, 350, 600, 1100, 1101]), wanted, atol=1e-6)


def test_cosine_holds_the_base_rate():
    text = """cosine_decay_learning_rate {
      learning_rate_base: 0.8 total_steps: 1200
      warmup_steps: 100 warmup_learning_rate: 0.0
      hold_base_rate_steps: 100 }"""
    wanted = [0.0, 0.4, 0.8, 0.8, 0.8, 0.4, 0.0]
    np.testing.assert_allclose(rates(text, [0, 50, 100, 150, 200, 700, 1200]), wanted, atol=1e-6)


def test_cosine_without_warm_up():
    text = """
        cosine_decay_learning_rate {
          learning_rate_base: 0.8 total_steps: 100
          warmup_steps: 0
        }
        """
    np.testing.assert_allclose(rates(text, [0, 50, 100]), [0.8, 0.4, 0.0], atol=1e-6)


def test_exponential_staircase_burn_in_and_minimum():
    text = """exponential_decay_learning_rate {
      initial_learning_rate: 0.4 decay_steps: 10
      decay_factor: 0.5 burnin_learning_rate: 0.01
      burnin_steps: 5
      min_learning_rate: 0.06 }"""
    # The burn-in is below the minimum, which holds there too. Decay counts from its end: 0.4 / 2 at step 5 + 10, and
    # 0.05 at step 5 + 30.
    np.testing.assert_allclose(
        rates(text, [0, 4, 5, 14, 15, 24, 25, 35]), [0.06, 0.06, 0.4, 0.4, 0.2, 0.2, 0.1, 0.06], rtol=1e-6
    )


def test_exponential_without_staircase_and_burn_in_at_the_initial_rate():
    text = """
        exponential_decay_learning_rate {
          initial_learning_rate: 0.4 decay_steps: 10
          decay_factor: 0.5 staircase: false
          burnin_steps: 2
        }
        """
    np.testing.assert_allclose(rates(text, [0, 1, 2, 4, 7]), [0.4, 0.4, 0.4, 0.4 * 0.5**0.2, 0.4 * 0.5**0.5], rtol=1e-6)


def test_manual_steps():
    text = """
        manual_step_learning_rate {
          initial_learning_rate: 0.3
          schedule { step: 5 learning_rate: 0.2 }
          schedule { step: 10 learning_rate: 0.1 }
        }
        """
    np.testing.assert_allclose(rates(text, [0, 4, 5, 9, 10, 99]), [0.3, 0.3, 0.2, 0.2, 0.1, 0.1], rtol=1e-6)


def test_manual_steps_with_warm_up():
    text = """
        manual_step_learning_rate {
          initial_learning_rate: 0.1 warmup: true
          schedule { step: 4 learning_rate: 0.5 }
          schedule { step: 8 learning_rate: 0.05 }
        }
        """
    np.testing.assert_allclose(rates(text, [0, 1, 3, 4, 7, 8]), [0.1, 0.2, 0.4, 0.5, 0.5, 0.05], rtol=1e-6)


def test_manual_step_at_zero_replaces_the_initial_rate():
    text = """
        manual_step_learning_rate {
          initial_learning_rate: 0.1 warmup: true
          schedule { step: 0 learning_rate: 0.3 }
          schedule { step: 2 learning_rate: 0.2 }
        }
        """
    np.testing.assert_allclose(rates(text, [0, 1, 2]), [0.3, 0.3, 0.2], rtol=1e-6)


def steps_of(optimizer, gradients, start=1.0):
    """Values of one variable after each of some gradients."""
    variable = keras.Variable([start])
    optimizer.build([variable])
    values = []
    for gradient in gradients:
        optimizer.apply([np.array([gradient], np.float32)])
        values.append(float(variable.numpy()[0]))
    return values


def test_momentum_is_keras_sgd():
    config = optimizer_config(
        "momentum_optimizer { momentum_optimizer_value: 0.5 learning_rate { constant_learning_rate {"
        " learning_rate: 0.1 } } }"
    )
    # velocity: -0.1 * 2 = -0.2, then 0.5 * -0.2 - 0.1 * 1 = -0.2.
    np.testing.assert_allclose(steps_of(build_optimizer(config), [2.0, 1.0]), [0.8, 0.6], rtol=1e-6)


def test_rms_prop_starts_from_a_mean_square_of_one_and_adds_epsilon_inside_the_root():
    config = optimizer_config(
        """
        rms_prop_optimizer {
          momentum_optimizer_value: 0.5 decay: 0.9
          epsilon: 0.7 learning_rate { constant_learning_rate { learning_rate: 0.1 } }
        }
        """
    )
    # The mean square is 0.9 * 1 + 0.1 * 4 = 1.3, and the step is 0.1 * 2 / sqrt(1.3 + 0.7). Then the mean square is
    # 0.9 * 1.3 + 0.1 * 1 = 1.27.
    first = 0.2 / math.sqrt(2.0)
    second = 0.5 * first + 0.1 / math.sqrt(1.97)
    values = steps_of(build_optimizer(config), [2.0, 1.0])
    np.testing.assert_allclose(values, [1.0 - first, 1.0 - first - second], rtol=1e-5)


def test_adam_and_its_epsilon():
    text = "adam_optimizer { epsilon: 0.5 learning_rate { constant_learning_rate { learning_rate: 0.1 } } }"
    # First step: m = 0.1 g, v = 0.001 g^2; rate * sqrt(0.001) / 0.1 * m / (sqrt(v) + epsilon).
    wanted = 1.0 - 0.1 * math.sqrt(0.001) * 2.0 / (math.sqrt(0.001) * 2.0 + 0.5)
    np.testing.assert_allclose(steps_of(build_optimizer(optimizer_config(text)), [2.0]), [wanted], rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        ("momentum_optimizer { momentum_optimizer_value: 0.9", keras.optimizers.SGD(0.1, momentum=0.9)),
        ("momentum_optimizer { momentum_optimizer_value: 0", keras.optimizers.SGD(0.1)),
        ("adam_optimizer { epsilon: 0.01", keras.optimizers.Adam(0.1, epsilon=0.01)),
    ],
    ids=["momentum", "descent", "adam"],
)
def test_twenty_steps_equal_those_of_keras(config, reference):
    gradients = np.random.default_rng(0).normal(size=20)
    rate = "learning_rate { constant_learning_rate { learning_rate: 0.1 } } }"
    optimizer = build_optimizer(optimizer_config(f"{config} {rate}"))
    np.testing.assert_allclose(steps_of(optimizer, gradients), steps_of(reference, gradients), rtol=2e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_twenty_steps_of_rms_prop(momentum):
    gradients = np.random.default_rng(0).normal(size=20)
    config = optimizer_config(
        f"rms_prop_optimizer {{ momentum_optimizer_value: {momentum} decay: 0.9 epsilon: 0.01"
        " learning_rate { constant_learning_rate { learning_rate: 0.1 } } }"
    )
    value, mean_square, moved, wanted = 1.0, 1.0, 0.0, []
    for gradient in gradients:
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        moved = momentum * moved + 0.1 * gradient / math.sqrt(mean_square + 0.01)
        value -= moved
        wanted.append(value)
    np.testing.assert_allclose(steps_of(build_optimizer(config), gradients), wanted, rtol=2e-5)


def test_the_schedule_counts_steps_from_zero():
    config = optimizer_config(
        """
        momentum_optimizer {
          momentum_optimizer_value: 0
          learning_rate {
            manual_step_learning_rate {
              initial_learning_rate: 0.5
              schedule { step: 1 learning_rate: 0.25 }
            }
          }
        }
        """
    )
    np.testing.assert_allclose(steps_of(build_optimizer(config), [1.0, 1.0]), [0.5, 0.25], rtol=1e-6)


def test_weight_decay_and_moving_average_arrive():
    text = "adam_optimizer { learning_rate { constant_learning_rate { } } } weight_decay: 0.25"
    assert build_optimizer(optimizer_config(text)).weight_decay == 0.25
    assert moving_average_decay(optimizer_config(text)) == pytest.approx(0.9999)
    assert moving_average_decay(optimizer_config("moving_average_decay: 0.5")) == 0.5
    assert moving_average_decay(optimizer_config("use_moving_average: false")) is None


def test_no_optimizer_is_an_error():
    with pytest.raises(ConfigError, match=r"train_config\.optimizer: is missing or empty; choose one of .*adam"):
        build_optimizer(optimizer_config(""))


def test_published_configs_build(shared):
    paths = sorted((shared / "configs" / "published").rglob("*.config"))
    assert len(paths) == 104
    for path in paths:
        optimizer = build_optimizer(read_pipeline(str(path))[0].message.train_config.optimizer)
        assert 0.0 <= float(optimizer.learning_rate) < 1.0, path
