"""Gradients of our own that keep no graph (floor 0).

``tf.custom_gradient`` registers a new gradient for ever at each call in a graph, and that gradient holds the call's
tensors. So no graph that has such a call is ever freed. Here a gradient is registered once per function and static
arguments, and takes its tensors from the operation that it is called for.
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
    """Returns ``value``, whose gradient for the first input is computed by ``gradient``.

    Args:
        value: A tensor, computed from the inputs; its own gradient is not used.
        inputs: All tensors that the gradient needs. Those after the first one get no gradient.
        gradient: A function of a module, called with the gradient of ``value``, the inputs and ``static``; returns the
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
    """The name under which graphs find a gradient, which is registered at the first call."""
    name = f"{gradient.__module__}.{gradient.__qualname__}{static}"
    tf.RegisterGradient(name)(lambda op, *upstream: _gradients(gradient, static, op.inputs, upstream[0]))
    return name


def _gradients(
    gradient: Callable[..., tf.Tensor],
    static: tuple[Hashable, ...],
    originals: Sequence[tf.Tensor],
    upstream: tf.Tensor,
) -> list[tf.Tensor | None]:
    """The gradients of what went through ``IdentityN``: the value, the first input, the others."""
    return [None, gradient(upstream, *originals[1:], *static), *[None] * (len(originals) - 2)]
