"""Counts multiply-adds of a graph: convolutions (also grouped, dilated, depthwise) and matrix products.

One multiply-add is one multiplication with its addition; papers call it a FLOP of a network. As in the papers, biases,
normalisation, activations, resizing and pooling are not counted. A convolution that the export turned into matrix
products counts as the original convolution.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.benchmark.measures import KINDS

# Names of operations made by ``detzoo.export.winograd``.
WINOGRAD_SCOPE, WINOGRAD_PRODUCT = "winograd", "winograd_product"


class Operation(NamedTuple):
    """An operation of a graph."""

    kind: str  # a value of ``KINDS``
    multiply_adds: int  # per image


def count_in_function(function: Any) -> dict[str, int]:
    """Counts multiply-adds of one image by kind, from a concrete function with inlined calls, as Keras layers are.

    Raises:
        ValueError: A shape but that of the batch depends on the image; use ``count_in_graph_def``.
    """

    def static_shape(tensor: Any) -> tuple[int, ...]:
        shape = tensor.shape.as_list()
        if None in shape[1:]:
            raise ValueError(f"the shape of {tensor.name} is {shape}: give the function an input of static shape")
        return (1 if shape[0] is None else shape[0], *shape[1:])

    counts = by_kind(_count(function.graph.get_operations(), static_shape))
    batch_size = function.inputs[0].shape[0] or 1
    return {kind: count // batch_size for kind, count in counts.items()}


def count_in_graph_def(graph_def: Any, input_name: str, image: np.ndarray) -> dict[str, int]:
    """Counts multiply-adds of one image by kind, from a frozen graph of images alone."""
    return by_kind(count_operations(graph_def, (input_name,), (image,)))


def by_kind(operations: Mapping[str, Operation]) -> dict[str, int]:
    """Sums the operations of each kind."""
    counts: Counter[str] = Counter()
    for operation in operations.values():
        counts[operation.kind] += operation.multiply_adds
    return dict(counts)


def count_operations(
    graph_def: Any,
    input_names: Sequence[str],
    inputs: Sequence[np.ndarray],
    weights: Mapping[str, Any] | None = None,
) -> dict[str, Operation]:
    """Counts multiply-adds of one image by operation; a frozen graph runs once to find all shapes.

    ``weights`` are variables by the tensor names of the constants that the graph lacks.
    """
    operations: list[Any] = []

    def shapes_of(*values: Any) -> dict[str, Any]:
        known = {name: variable.read_value() for name, variable in (weights or {}).items()}
        input_map = {**dict(zip(input_names, values, strict=True)), **known}
        tf.graph_util.import_graph_def(graph_def, input_map=input_map, name="")
        operations.extend(op for op in tf.compat.v1.get_default_graph().get_operations() if op.type in KINDS)
        tensors = [t for op in operations for t in (*op.inputs, *op.outputs, *_undone(op))]
        return {tensor.name: tf.shape(tensor) for tensor in tensors}

    given = [tf.constant(value) for value in inputs]
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in given]
    found = tf.function(shapes_of, autograph=False).get_concrete_function(*specs)(*given)
    return _count(operations, lambda tensor: tuple(found[tensor.name].numpy().tolist()))


def _count(operations: list[Any], shape_of: Callable[[Any], tuple[int, ...]]) -> dict[str, Operation]:
    return {
        operation.name: Operation(KINDS[operation.type], _count_one(operation, shape_of))
        for operation in operations
        if operation.type in KINDS
    }


def _count_one(operation: Any, shape_of: Callable[[Any], tuple[int, ...]]) -> int:
    if f"/{WINOGRAD_SCOPE}/" in operation.name and operation.type == "MatMul":
        return 0  # a transformation of tiles, not a product with a filter
    if operation.type == "MatMul":
        rows, columns = shape_of(operation.outputs[0])
        left = shape_of(operation.inputs[0])
        return rows * columns * left[0 if operation.get_attr("transpose_a") else 1]
    if operation.name.rsplit("/", 1)[-1] == WINOGRAD_PRODUCT:
        points, tiles, channels = shape_of(operation.inputs[0])
        outputs = (math.isqrt(points) - 2) ** 2  # of a tile, whose window is one pixel larger on each side
        return tiles * outputs * 9 * channels * shape_of(operation.outputs[0])[-1]
    if operation.type.startswith("BatchMatMul"):
        left = shape_of(operation.inputs[0])
        return math.prod(shape_of(operation.outputs[0])) * left[-2 if operation.get_attr("adj_x") else -1]
    kernel = shape_of(operation.inputs[1])
    if operation.type == "Conv2DBackpropInput":
        # Every input pixel meets the whole filter [h, w, out, in].
        return math.prod(shape_of(operation.inputs[2])) * math.prod(kernel[:3])
    # Dilation by rearrangement also computes on padding. The layer's output is what remains after undoing it.
    output = next(iter(_undone(operation)), operation.outputs[0])
    per_output = math.prod(kernel[:2]) * (1 if operation.type == "DepthwiseConv2dNative" else kernel[2])
    return math.prod(shape_of(output)) * per_output


def _undone(operation: Any) -> list[Any]:
    """Returns the output of the BatchToSpaceND that undoes a dilation by rearrangement, or []."""
    readers = operation.outputs[0].consumers()
    return [reader.outputs[0] for reader in readers if reader.type == "BatchToSpaceND"][:1]
