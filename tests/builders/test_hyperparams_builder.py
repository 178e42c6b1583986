"""Every field of Hyperparams arrives in ConvHyperparams."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from google.protobuf import text_format

from detzoo.builders.hyperparams import build_hyperparams
from detzoo.config import pb
from detzoo.contracts import BatchNormHyperparams
from detzoo.errors import ConfigError
from detzoo.layers.activation import swish
from detzoo.layers.conv import convolution


def hyperparams(text, **kwargs):
    return build_hyperparams(text_format.Parse(text, pb.Hyperparams()), **kwargs)


def test_defaults_are_those_of_the_schema():
    built = hyperparams("")
    assert (built.activation, built.batch_norm, built.force_use_bias) == ("relu", None, False)
    assert (built.l1_weight, built.l2_weight, built.regularize_depthwise) == (0.0, 0.0, False)
    assert isinstance(built.kernel_initializer(), keras.initializers.GlorotUniform)


@pytest.mark.parametrize(
    ("name", "expected"), [("NONE", None), ("RELU", "relu"), ("RELU_6", "relu6"), ("SWISH", swish)]
)
def test_activations(name, expected):
    assert hyperparams(f"activation: {name}").activation == expected


def test_l2_weight_is_halved_because_the_api_halves_the_sum_of_squares():
    built = hyperparams("regularizer { l2_regularizer { weight: 0.5 } }")
    layer = convolution(1, 1, built, "point")
    layer.build((None, 1, 1, 2))
    layer.kernel.assign([[[[3.0], [4.0]]]])
    assert float(layer.losses[0]) == pytest.approx(0.5 * (9 + 16) / 2)


def test_l1_weight_is_taken_as_it_is():
    built = hyperparams("regularizer { l1_regularizer { weight: 0.25 } } regularize_depthwise: true")
    assert (built.l1_weight, built.l2_weight, built.regularize_depthwise) == (0.25, 0.0, True)


@pytest.mark.parametrize("normalizer", ["batch_norm", "sync_batch_norm"])
def test_batch_norm_fields(normalizer):
    fields = """
        decay: 0.97 epsilon: 0.002
        center: false scale: true
        """
    built = hyperparams(f"{normalizer} {{ {fields} }}").batch_norm
    synchronized = normalizer == "sync_batch_norm"
    assert built == BatchNormHyperparams(
        pytest.approx(0.97), pytest.approx(0.002), False, True, train=True, synchronized=synchronized
    )


def test_statistics_are_frozen_by_either_switch():
    assert not hyperparams("batch_norm { train: false }").batch_norm.train
    assert not hyperparams("batch_norm {}", freeze_batchnorm=True).batch_norm.train


@pytest.mark.parametrize(
    ("text", "kind", "stddev", "limit"),
    [
        # The kernel is 10 x 10 x 20 x 30: fan in 2000, fan out 3000. A truncated normal keeps to 2 sigma.
        ("truncated_normal_initializer { stddev: 0.03 }", "TruncatedNormal", 0.03 * 0.8796, 0.06),
        ("random_normal_initializer { stddev: 0.01 }", "RandomNormal", 0.01, 0.1),
        ("variance_scaling_initializer {}", "VarianceScaling", (2 / 2000) ** 0.5, 0.1),
        ("variance_scaling_initializer { mode: FAN_OUT factor: 1 }", "VarianceScaling", (1 / 3000) ** 0.5, 0.1),
        ("variance_scaling_initializer { mode: FAN_AVG factor: 1 }", "VarianceScaling", (1 / 2500) ** 0.5, 0.1),
        ("variance_scaling_initializer { uniform: true factor: 3 }", "VarianceScaling", (3 / 2000) ** 0.5, 0.0672),
        ("keras_initializer_by_name: 'he_normal'", "HeNormal", (2 / 2000) ** 0.5, 0.1),
    ],
)
def test_initializers_draw_what_they_say(text, kind, stddev, limit):
    initializer = hyperparams(f"initializer {{ {text} }}").kernel_initializer()
    values = np.asarray(initializer((10, 10, 20, 30)))
    assert type(initializer).__name__ == kind
    assert np.mean(values) == pytest.approx(0.0, abs=5e-4)
    assert np.std(values) == pytest.approx(stddev, rel=0.02)
    assert np.max(np.abs(values)) <= limit


def test_mean_of_normal_initializers_arrives():
    built = hyperparams("initializer { truncated_normal_initializer { mean: 0.5 stddev: 0.01 } }")
    assert np.mean(np.asarray(built.kernel_initializer()((50, 50)))) == pytest.approx(0.5, abs=0.01)


def test_each_layer_gets_an_initializer_of_its_own():
    built = hyperparams("initializer { keras_initializer_by_name: 'glorot_normal' }")
    one, two = (np.asarray(built.kernel_initializer()((4, 4))) for _ in range(2))
    assert not np.allclose(one, two)


def test_unknown_initializer_is_refused_with_its_field():
    with pytest.raises(ConfigError, match="keras_initializer_by_name: Keras has no initializer 'glorat'"):
        hyperparams("initializer { keras_initializer_by_name: 'glorat' }")
