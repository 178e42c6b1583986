"""Batch normalisation whose statistics can be frozen, and the L2 normalisation of the SSD paper (floor 1).

All normalised convolutions of the library use ``BatchNorm``; ``detzoo.layers.conv`` adds it.

References:
    Ioffe and Szegedy, arXiv:1502.03167 (batch normalisation). Liu et al., arXiv:1512.02325, section 3.1, after
    ParseNet, arXiv:1506.04579 (L2 normalisation of conv4_3 with a learned scale that starts at 20).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import BatchNormHyperparams, Tensor

L2_NORM_INITIAL_SCALE = 20.0  # SSD, section 3.1
L2_NORM_EPSILON = 1e-12  # keeps the gradient finite at a location whose channels are all zero


@keras.saving.register_keras_serializable(package="detzoo")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation over all but the last axis, by TensorFlow's fused kernel.

    With ``train_statistics=False`` the layer always normalises with its moving statistics and never moves them, while
    gamma and beta stay trainable. In the configuration this is ``freeze_batchnorm`` or ``batch_norm { train: false }``.

    The moving variance follows the unbiased variance of the batch (n / (n - 1)), as the fused kernel defines it.
    Keras's layer follows the biased one.

    Args:
        train_statistics: With ``training=True``, uses and moves the statistics of the batch.
        **kwargs: Arguments of ``keras.layers.BatchNormalization``: momentum, epsilon, center, scale, synchronized.

    Attributes:
        observe: Function of every input that is normalised by its own statistics, or None.
    """

    def __init__(self, train_statistics: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.train_statistics = train_statistics
        self.observe: Callable[[Tensor], None] | None = None

    @property
    def moves_statistics(self) -> bool:
        """True if ``training=True`` uses and moves the statistics of the batch."""
        return self.trainable and self.train_statistics

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        """Normalises ``inputs`` [B, ..., C] and, in training, moves the statistics."""
        use_batch_statistics = bool(training) and self.moves_statistics
        if use_batch_statistics and self.observe is not None:
            self.observe(inputs)
        if self._fused_kernel_applies(inputs, mask) and not (use_batch_statistics and self.synchronized):
            return self._call_fused(inputs, use_batch_statistics)
        return super().call(inputs, training=use_batch_statistics, mask=mask)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "train_statistics": self.train_statistics}

    def _fused_kernel_applies(self, inputs: Tensor, mask: Tensor | None) -> bool:
        return mask is None and not self.renorm and len(inputs.shape) == 4 and self.axis in (-1, 3)

    def _call_fused(self, inputs: Tensor, use_batch_statistics: bool) -> Tensor:
        channels = inputs.shape[-1]
        gamma = tf.ones([channels]) if self.gamma is None else tf.convert_to_tensor(self.gamma)
        beta = tf.zeros([channels]) if self.beta is None else tf.convert_to_tensor(self.beta)
        moving_mean = tf.convert_to_tensor(self.moving_mean)
        moving_variance = tf.convert_to_tensor(self.moving_variance)
        no_statistics = tf.zeros([0])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=no_statistics if use_batch_statistics else moving_mean,
            variance=no_statistics if use_batch_statistics else moving_variance,
            epsilon=self.epsilon,
            exponential_avg_factor=1.0,
            is_training=use_batch_statistics,
        )
        if use_batch_statistics:
            self.moving_mean.assign(moving_mean * self.momentum + mean * (1.0 - self.momentum))
            self.moving_variance.assign(moving_variance * self.momentum + variance * (1.0 - self.momentum))
        return outputs


def batch_norm_from(hyperparams: BatchNormHyperparams, name: str) -> BatchNorm:
    """Builds the batch normalisation of ``hyperparams``, with the given layer name."""
    return BatchNorm(
        train_statistics=hyperparams.train,
        momentum=hyperparams.momentum,
        epsilon=hyperparams.epsilon,
        center=hyperparams.center,
        scale=hyperparams.scale,
        synchronized=hyperparams.synchronized,
        name=name,
    )


@keras.saving.register_keras_serializable(package="detzoo")
class L2Norm(keras.layers.Layer):
    """Normalises the channel vector of each location to length 1, then multiplies it by a learned scale per channel.

    Maps [B, H, W, C] to [B, H, W, C]. The sum of squares is computed in float32, so that float16 cannot overflow.
    """

    def __init__(self, initial_scale: float = L2_NORM_INITIAL_SCALE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_scale = initial_scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the scale [C]."""
        initializer = keras.initializers.Constant(self.initial_scale)
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer=initializer, name="scale", autocast=False)

    def call(self, inputs: Tensor) -> Tensor:
        """Normalises the channels of ``inputs``."""
        directions = tf.nn.l2_normalize(tf.cast(inputs, tf.float32), axis=-1, epsilon=L2_NORM_EPSILON)
        return tf.cast(directions * self.scale, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape
