"""``Hyperparams`` messages -> ``ConvHyperparams`` (floor 5).

References:
    The initializers are those of the Object Detection API on TF2: ``variance_scaling_initializer`` draws from a
    truncated normal (or uniform) distribution, and ``l2_regularizer.weight`` w stands for w * sum(x**2) / 2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from detzoo.config import pb
from detzoo.contracts import BatchNormHyperparams, ConvHyperparams, Tensor
from detzoo.errors import ConfigError
from detzoo.layers.activation import swish

L2_HALF = 0.5  # the config's L2 loss is w * sum(x**2) / 2, Keras's is l2 * sum(x**2)

_ACTIVATIONS: dict[int, str | Callable[[Tensor], Tensor] | None] = {
    pb.Hyperparams.NONE: None,
    pb.Hyperparams.RELU: "relu",
    pb.Hyperparams.RELU_6: "relu6",
    pb.Hyperparams.SWISH: swish,
}


def build_hyperparams(message: pb.Hyperparams, freeze_batchnorm: bool = False) -> ConvHyperparams:
    """Builds the hyperparameters of a part; ``freeze_batchnorm`` takes precedence over the message's ``train: true``.

    Raises:
        ConfigError: Keras has no initializer of the given name. Only Keras can check that.
    """
    regularizer = message.regularizer
    chosen = regularizer.WhichOneof("regularizer_oneof")
    return ConvHyperparams(
        kernel_initializer=_initializer_factory(message.initializer),
        l1_weight=regularizer.l1_regularizer.weight if chosen == "l1_regularizer" else 0.0,
        l2_weight=regularizer.l2_regularizer.weight * L2_HALF if chosen == "l2_regularizer" else 0.0,
        regularize_depthwise=message.regularize_depthwise,
        activation=_ACTIVATIONS[message.activation],
        batch_norm=_batch_norm(message, freeze_batchnorm),
        force_use_bias=message.force_use_bias,
    )


def _batch_norm(message: pb.Hyperparams, freeze_batchnorm: bool) -> BatchNormHyperparams | None:
    normalizer = message.WhichOneof("normalizer_oneof")
    if normalizer is None:
        return None
    batch_norm = getattr(message, normalizer)
    return BatchNormHyperparams(
        momentum=batch_norm.decay,
        epsilon=batch_norm.epsilon,
        center=batch_norm.center,
        scale=batch_norm.scale,
        train=batch_norm.train and not freeze_batchnorm,
        synchronized=normalizer == "sync_batch_norm",
    )


def _initializer_factory(message: pb.Initializer) -> Callable[[], Any]:
    """Returns a function that makes a new initializer per call. Keras's default is Glorot uniform."""
    branch = message.WhichOneof("initializer_oneof")
    if branch is None:
        return keras.initializers.GlorotUniform
    return _INITIALIZERS[branch](getattr(message, branch))


def _normal(kind: type, message: pb.TruncatedNormalInitializer | pb.RandomNormalInitializer) -> Callable[[], Any]:
    return functools.partial(kind, mean=message.mean, stddev=message.stddev)


def _variance_scaling(message: pb.VarianceScalingInitializer) -> Callable[[], Any]:
    return functools.partial(
        keras.initializers.VarianceScaling,
        scale=message.factor,
        mode=pb.VarianceScalingInitializer.Mode.Name(message.mode).lower(),
        distribution="uniform" if message.uniform else "truncated_normal",
    )


def _by_name(name: str) -> Callable[[], Any]:
    try:
        keras.initializers.get(name)
    except ValueError as error:
        raise ConfigError(
            f"initializer.keras_initializer_by_name: Keras has no initializer {name!r}. Accepted are Keras's names, "
            "such as 'glorot_uniform', 'he_normal', 'truncated_normal'."
        ) from error
    return functools.partial(keras.initializers.get, name)


_INITIALIZERS: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "truncated_normal_initializer": functools.partial(_normal, keras.initializers.TruncatedNormal),
    "random_normal_initializer": functools.partial(_normal, keras.initializers.RandomNormal),
    "variance_scaling_initializer": _variance_scaling,
    "keras_initializer_by_name": _by_name,
}
