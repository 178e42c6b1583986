"""Custom gradients that do not keep graphs in memory (floor 0).

Each call of ``tf.custom_gradient`` in a graph registers a gradient that holds the call's tensors, and TensorFlow never
removes it, nor frees the graph. Here a gradient is registered once per function and static arguments, and reads its
tensors from its operation.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Sequence

import tensorflow as tf

# Gradient tapes have no public way to record a gradient; tf.custom_gradient itself calls this.
from tensorflow.python.eager import record


def with_gradient(
    value: tf.Tensor, inputs: Sequence[tf.Tensor], gradient: Callable[..., tf.Tensor], *static: Hashable
) -> tf.Tensor:
    """Returns ``value``, with ``gradient`` as its gradient for the first input.

    Args:
        value: Tensor computed from the inputs; its gradient is replaced.
        inputs: All tensors that the gradient needs. Only the first one gets a gradient.
        gradient: Module-level function of the gradient of ``value``, the inputs and ``static`` that returns the
            gradient of the first input.
        static: Further arguments of ``gradient``, no tensors.
    """
    name = _registered(gradient, static)
    originals = [value, *inputs]
    overridden = {"IdentityN": name}
    in_graph = not tf.executing_eagerly()
    with tf.compat.v1.get_default_graph().gradient_override_map(overridden) if in_graph else contextlib.nullcontext():
        outputs = tf.identity_n(originals)
    record.record_operation(
        name, outputs, originals, lambda *upstream: _gradients(gradient, static, originals, upstream[0])
    )
    return outputs[0]


@functools.cache
def _registered(gradient: Callable[..., tf.Tensor], static: tuple[Hashable, ...]) -> str:
    """Registers a gradient at the first call, and returns its name."""
    name = f"{gradient.__module__}.{gradient.__qualname__}{static}"
    tf.RegisterGradient(name)(lambda op, *upstream: _gradients(gradient, static, op.inputs, upstream[0]))
    return name


def _gradients(
    gradient: Callable[..., tf.Tensor],
    static: tuple[Hashable, ...],
    originals: Sequence[tf.Tensor],
    upstream: tf.Tensor,
) -> list[tf.Tensor | None]:
    """Returns the gradients of the inputs of ``IdentityN``: the value, the first input, the others."""
    return [None, gradient(upstream, *originals[1:], *static), *[None] * (len(originals) - 2)]
