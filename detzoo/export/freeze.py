"""From a traced function with variables to a graph of constants, batch normalisation folded into convolutions.

The first step of an export. Constants let TensorFlow keep the filters in the layout of its kernels, and a graph without
variables loads without Keras, without a checkpoint and without one Python object for each layer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.serving.frozen import FrozenGraph, node_of, to_constants

_GRADIENT_NAME = "_gradient_op_type"
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_BIAS_ADDS = ("BiasAdd", "AddV2", "Add")
_BATCH_NORMS = ("FusedBatchNormV3", "FusedBatchNormV2", "FusedBatchNorm")
# A filter that several convolutions share (the heads of pyramids) is copied for each of them, up to this many numbers:
# the 1 x 1 of separable convolutions of up to 256 channels, not the 3 x 3 x 256 x 256 of full ones.
_MAX_COPIED_FILTER = 65_536


def freeze(function: Any) -> tuple[FrozenGraph, int]:
    """Turns a function's variables into constants and folds its batch normalisations.

    Args:
        function: a concrete function of images, or of images and regions, that returns a dict of tensors.

    Returns:
        A graph that computes the same, up to rounding, and how many batch normalisations became part of a convolution.
    """
    frozen = to_constants(function)
    outputs = [node_of(name) for name in frozen.output_names.values()]
    graph_def, num_folded = fold_batch_norms(bypass_identities(frozen.graph_def), protected=set(outputs))
    _forget_gradients(graph_def)
    needed = [*map(node_of, frozen.input_names), *outputs]
    return frozen._replace(graph_def=_without_unused(graph_def, needed)), num_folded


def fold_batch_norms(graph_def: Any, protected: set[str] | frozenset[str] = frozenset()) -> tuple[Any, int]:
    """Folds batch normalisation with constant statistics into the convolution (and bias) before it.

    With s = scale / sqrt(variance + epsilon), BN(conv(x, w) + b) = conv(x, w * s) + ((b - mean) * s + offset). Where
    several convolutions share a filter, each gets one of its own if it is small; else their normalisations stay.

    Args:
        graph_def: a frozen GraphDef; its function library is left alone.
        protected: names of nodes that must keep their value, because they are outputs.

    Returns:
        The new GraphDef, and how many batch normalisations went into a convolution. The nodes that nothing needs any
        more are still there.
    """
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph_def)
    nodes = {node.name: node for node in result.node}
    num_readers = Counter(node_of(name) for node in result.node for name in node.input)
    filters = Counter(constant_behind(nodes, n.input[1]).name for n in result.node if _has_constant_filter(nodes, n))
    num_folded = 0
    for norm in [node for node in result.node if node.op in _BATCH_NORMS]:
        chain = _foldable_chain(nodes, norm, num_readers, protected)
        if chain is not None and (filters[chain.filter.name] == 1 or _num_values(chain.filter) <= _MAX_COPIED_FILTER):
            _fold(result, norm, chain)
            num_folded += 1
    return result, num_folded


def bypass_identities(graph_def: Any) -> Any:
    """Rewires consumers around IdentityN, which operations with a custom gradient end with.

    The IdentityN of a swish hides from Grappler that it is one.

    Args:
        graph_def: a frozen GraphDef; its function library is left alone.

    Returns:
        The new GraphDef. The nodes that nothing needs any more are still there.
    """
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph_def)
    nodes = {node.name: node for node in result.node}
    for node in result.node:
        sources = [_source(nodes, name) for name in node.input]
        del node.input[:]
        node.input.extend(sources)
    return result


def _source(nodes: dict[str, Any], name: str) -> str:
    """The input that an input is equal to; control inputs are kept."""
    while not name.startswith("^"):
        base, _, number = name.partition(":")
        node = nodes[base]
        if node.op == "IdentityN":
            name = node.input[int(number or 0)]
        else:
            break
    return name


def _num_values(constant: Any) -> int:
    return math.prod(dim.size for dim in constant.attr["value"].tensor.tensor_shape.dim)


def _without_unused(graph_def: Any, needed: Sequence[str]) -> Any:
    """The nodes that ``needed`` nodes depend on, in their order, with the function library."""
    _drop_waits_for_constants(graph_def)
    inputs = {node.name: [node_of(name) for name in node.input] for node in graph_def.node}
    reached: set[str] = set()
    waiting = list(needed)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += inputs[name]
    result = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    result.node.extend(node for node in graph_def.node if node.name in reached)
    return result


def _forget_gradients(graph_def: Any) -> None:
    """Removes the names of gradients that our operations define: they cannot be saved, and loading warns of them."""
    for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        for node in nodes:
            node.attr.pop(_GRADIENT_NAME, None)


def _drop_waits_for_constants(graph_def: Any) -> None:
    """Removes the control inputs that waited for a variable to be read; its constant has no side effect."""
    nodes = {node.name: node for node in graph_def.node}
    for node in graph_def.node:
        kept = [x for x in node.input if not (x.startswith("^") and constant_behind(nodes, x) is not None)]
        if len(kept) < len(node.input):
            del node.input[:]
            node.input.extend(kept)


class _Chain(NamedTuple):
    """A convolution, perhaps dilated and perhaps with a bias, whose only reader is a batch normalisation."""

    convolution: Any
    last: Any  # node that gives the convolution's result: itself, or what undoes the dilation's rearrangement
    filter: Any  # Const node
    bias: np.ndarray  # [channels], zeros where the convolution has none


def _foldable_chain(nodes: dict[str, Any], norm: Any, num_readers: Counter[str], protected: Any) -> _Chain | None:
    before = nodes[node_of(norm.input[0])]
    parameters = [constant_behind(nodes, name) for name in norm.input[1:5]]
    if norm.attr["is_training"].b or any(parameter is None for parameter in parameters):
        return None
    if norm.name in protected or norm.attr["data_format"].s not in (b"", b"NHWC"):
        return None
    bias = np.zeros(tf.make_ndarray(parameters[0].attr["value"].tensor).shape, np.float32)
    if before.op in _BIAS_ADDS:
        # Keras adds a bias as BiasAdd, or as an addition of [1, 1, 1, C] that Grappler turns into a reshaped BiasAdd.
        constant = constant_behind(nodes, before.input[1], through=("Identity", "Reshape", "Squeeze"))
        if constant is None or num_readers[before.name] != 1 or before.name in protected:
            return None
        value = tf.make_ndarray(constant.attr["value"].tensor)
        if value.size != bias.size:
            return None
        bias, before = value.reshape(bias.shape), nodes[node_of(before.input[0])]
    last = before
    if before.op == "BatchToSpaceND" and num_readers[before.name] == 1 and before.name not in protected:
        before = nodes[node_of(before.input[0])]
    is_private = num_readers[before.name] == num_readers[last.name] == 1
    if not is_private or {before.name, last.name} & set(protected) or not _has_constant_filter(nodes, before):
        return None
    return _Chain(before, last, constant_behind(nodes, before.input[1]), bias)


def _fold(graph_def: Any, norm: Any, chain: _Chain) -> None:
    """Gives the convolution a scaled filter, and makes the batch normalisation's node a BiasAdd."""
    nodes = {node.name: node for node in graph_def.node}
    read = [tf.make_ndarray(constant_behind(nodes, name).attr["value"].tensor) for name in norm.input[1:5]]
    scale, offset, mean, variance = (value.astype(np.float64) for value in read)
    factor = scale / np.sqrt(variance + norm.attr["epsilon"].f)
    kernel = tf.make_ndarray(chain.filter.attr["value"].tensor)
    # A depthwise filter is [H, W, in, multiplier], and its output channels are in * multiplier.
    shape = kernel.shape[2:] if chain.convolution.op == "DepthwiseConv2dNative" else (1, kernel.shape[3])
    scaled = (kernel * factor.reshape(shape)).astype(kernel.dtype)
    bias = ((chain.bias - mean) * factor + offset).astype(kernel.dtype)
    chain.convolution.input[1] = add_constant(graph_def, f"{norm.name}/folded_filter", scaled)
    bias_name = add_constant(graph_def, f"{norm.name}/folded_bias", bias)
    name = norm.name
    norm.Clear()
    norm.name, norm.op = name, "BiasAdd"
    norm.input.extend([chain.last.name, bias_name])
    norm.attr["T"].type = tf.as_dtype(kernel.dtype).as_datatype_enum
    norm.attr["data_format"].s = b"NHWC"


def add_constant(graph_def: Any, name: str, value: np.ndarray) -> str:
    """Adds a Const node to a GraphDef and returns its name."""
    node = graph_def.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return name


def _has_constant_filter(nodes: dict[str, Any], node: Any) -> bool:
    return node.op in _CONVOLUTIONS and constant_behind(nodes, node.input[1]) is not None


def constant_behind(nodes: dict[str, Any], name: str, through: tuple[str, ...] = ("Identity",)) -> Any:
    """The Const node that an input reads, through nodes that keep its values; None where it is computed."""
    node = nodes[node_of(name)]
    while node.op in through:
        node = nodes[node_of(node.input[0])]
    return node if node.op == "Const" else None
