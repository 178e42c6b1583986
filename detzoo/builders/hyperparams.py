"""From ``Hyperparams`` messages to ``ConvHyperparams`` (floor 4).

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

L2_HALF = 0.5  # the configuration's L2 loss is w * sum(x**2) / 2, Keras's is l2 * sum(x**2)

_ACTIVATIONS: dict[int, str | Callable[[Tensor], Tensor] | None] = {
    pb.Hyperparams.NONE: None,
    pb.Hyperparams.RELU: "relu",
    pb.Hyperparams.RELU_6: "relu6",
    pb.Hyperparams.SWISH: swish,
}


def build_hyperparams(message: pb.Hyperparams, freeze_batchnorm: bool = False) -> ConvHyperparams:
    """The hyperparameters of a part.

    Args:
        message: pb.Hyperparams.
        freeze_batchnorm: The detector's ``freeze_batchnorm``: never train batch normalisation statistics, whatever the
            message says.

    Returns:
        What ``detzoo.layers.conv`` reads.

    Raises:
        ConfigError: Group normalisation, or an initializer that Keras does not know.
    """
    l1_weight, l2_weight = _regularizer_weights(message.regularizer)
    return ConvHyperparams(
        kernel_initializer=_initializer_factory(message.initializer),
        l1_weight=l1_weight,
        l2_weight=l2_weight,
        regularize_depthwise=message.regularize_depthwise,
        activation=_ACTIVATIONS[message.activation],
        batch_norm=_batch_norm(message, freeze_batchnorm),
        force_use_bias=message.force_use_bias,
    )


def _batch_norm(message: pb.Hyperparams, freeze_batchnorm: bool) -> BatchNormHyperparams | None:
    normalizer = message.WhichOneof("normalizer_oneof")
    if normalizer is None:
        return None
    if normalizer == "group_norm":
        raise ConfigError(
            "conv_hyperparams.group_norm is not supported. Use batch_norm, or sync_batch_norm for statistics over all "
            "replicas."
        )
    batch_norm = getattr(message, normalizer)
    return BatchNormHyperparams(
        momentum=batch_norm.decay,
        epsilon=batch_norm.epsilon,
        center=batch_norm.center,
        scale=batch_norm.scale,
        train=batch_norm.train and not freeze_batchnorm,
        synchronized=normalizer == "sync_batch_norm",
    )


def _regularizer_weights(message: pb.Hyperparams) -> tuple[float, float]:
    """(l1, l2) as Keras counts them."""
    branch = message.WhichOneof("regularizer_oneof")
    l1_weight = message.l1_regularizer.weight if branch == "l1_regularizer" else 0.0
    l2_weight = message.l2_regularizer.weight * L2_HALF if branch == "l2_regularizer" else 0.0
    return l1_weight, l2_weight


def _initializer_factory(message: pb.Initializer) -> Callable[[], Any]:
    """A function that makes a fresh initializer; Glorot uniform, Keras's default, where none is configured."""
    branch = message.WhichOneof("initializer_oneof")
    if branch is None:
        return keras.initializers.GlorotUniform
    return _INITIALIZERS[branch](getattr(message, branch))


def _truncated_normal(message: pb.TruncatedNormalInitializer) -> Callable[[], Any]:
    return functools.partial(keras.initializers.TruncatedNormal, mean=message.mean, stddev=message.stddev)


def _random_normal(message: pb.RandomNormalInitializer) -> Callable[[], Any]:
    return functools.partial(keras.initializers.RandomNormal, mean=message.mean, stddev=message.stddev)


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
    "truncated_normal_initializer": _truncated_normal,
    "random_normal_initializer": _random_normal,
    "variance_scaling_initializer": _variance_scaling,
    "keras_initializer_by_name": _by_name,
}
