"""A grouped convolution that is fast on CPUs, for ResNeXt.

References:
    Xie et al., arXiv:1611.05431, figure 3 (c): a block as a grouped convolution.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Tensor


@keras.saving.register_keras_serializable(package="detzoo")
class GroupedConv2D(keras.layers.Layer):
    """A "same" convolution without bias, whose input and output channels are split in ``groups`` that do not mix.

    Keras compiles a grouped ``Conv2D`` by XLA on CPUs. Its forward and backward pass were measured 90 to 460 times
    slower than TensorFlow's kernel, which this layer calls. If that kernel has no gradient, each group is convolved
    separately, two to three times slower. The weights are the same.

    Maps [B, H, W, C] to [B, ceil(H / strides), ceil(W / strides), filters]. The kernel is [k, k, C / groups, filters].

    Args:
        filters: Output channels, a multiple of ``groups``.
        kernel_size: Side of the square kernel.
        groups: Number of groups, a divisor of the input channels.
        strides: Step of the kernel in both directions.
        dilation_rate: Spacing of the kernel's taps; 1 if ``strides`` is above 1.
        kernel_initializer: Initializer, as Keras accepts it.
        kernel_regularizer: Regularizer, as Keras accepts it.
        **kwargs: Arguments of ``keras.layers.Layer``.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        groups: int,
        strides: int = 1,
        dilation_rate: int = 1,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.groups = groups
        self.strides = strides
        self.dilation_rate = dilation_rate
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernel."""
        channels = input_shape[-1]
        if channels is None or channels % self.groups or self.filters % self.groups:
            raise ValueError(
                f"{channels} channels and {self.filters} filters must be multiples of {self.groups} groups"
            )
        self.kernel = self.add_weight(
            shape=(self.kernel_size, self.kernel_size, channels // self.groups, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )

    def call(self, inputs: Tensor) -> Tensor:
        """Convolves ``inputs``."""
        kernel = tf.convert_to_tensor(self.kernel)
        if has_native_gradient(inputs.dtype, self.dilation_rate):
            return tf.nn.conv2d(inputs, kernel, self.strides, "SAME", dilations=self.dilation_rate)
        return convolve_each_group(inputs, kernel, self.groups, self.strides, self.dilation_rate)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns [B, ceil(H / strides), ceil(W / strides), filters]."""
        sizes = (None if size is None else -(-size // self.strides) for size in input_shape[1:3])
        return (input_shape[0], *sizes, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "groups": self.groups,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def convolve_each_group(inputs: Tensor, kernel: Tensor, groups: int, strides: int, dilation_rate: int) -> Tensor:
    """Convolves each group of ``inputs`` [B, H, W, C] with its part of ``kernel`` [k, k, C / groups, filters]."""
    parts = zip(tf.split(inputs, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True)
    return tf.concat(
        [tf.nn.convolution(part, weights, strides, "SAME", dilations=dilation_rate) for part, weights in parts], axis=-1
    )


@functools.cache
def has_native_gradient(dtype: tf.DType, dilation_rate: int) -> bool:
    """Returns True if this machine differentiates grouped convolutions.

    GPUs do, and CPUs through oneDNN, for some dtypes. The first call of a process tries it.
    """
    shape, kernel_shape = [1, 4, 4, 4], [3, 3, 2, 4]
    shared = {"strides": [1, 1, 1, 1], "dilations": [1, dilation_rate, dilation_rate, 1], "padding": "SAME"}
    with tf.init_scope():  # tapes stop here, so the operations of the gradients are called
        values, kernel = tf.ones(shape, dtype), tf.ones(kernel_shape, dtype)
        try:
            tf.raw_ops.Conv2DBackpropInput(input_sizes=shape, filter=kernel, out_backprop=values, **shared)
            tf.raw_ops.Conv2DBackpropFilter(input=values, filter_sizes=kernel_shape, out_backprop=values, **shared)
        except tf.errors.OpError:
            return False
    return True
