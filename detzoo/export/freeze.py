"""Turns a traced function into a graph of constants, with batch normalisation folded into convolutions.

The first step of an export. With constants, TensorFlow keeps filters in the layout of its kernels. A graph without
variables loads without Keras, without a checkpoint and without one Python object per layer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.serving.frozen import FrozenGraph, node_of, reach, to_constants

_GRADIENT_NAME = "_gradient_op_type"
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_BIAS_ADDS = ("BiasAdd", "AddV2", "Add")
_BATCH_NORMS = ("FusedBatchNormV3", "FusedBatchNormV2", "FusedBatchNorm")
# Filters that several convolutions share (in heads on pyramids) are copied up to this many numbers: 1 x 1 filters of
# separable convolutions with up to 256 channels, but not 3 x 3 x 256 x 256 filters of full convolutions.
_MAX_COPIED_FILTER = 65_536


def freeze(function: Any) -> tuple[FrozenGraph, int]:
    """Turns variables into constants and folds batch normalisations, in a concrete function of images (and regions).

    Returns:
        A graph with the same results up to rounding, and the number of folded batch normalisations.
    """
    frozen = to_constants(function)
    outputs = [node_of(name) for name in frozen.output_names.values()]
    graph_def = frozen.graph_def  # changed in place, because weights of large networks are copied with it
    bypass_identities(graph_def)
    num_folded = fold_batch_norms(graph_def, protected=set(outputs))
    _forget_gradients(graph_def)
    needed = [*map(node_of, frozen.input_names), *outputs]
    return frozen._replace(graph_def=without_unused(graph_def, needed)), num_folded


def fold_batch_norms(graph_def: Any, protected: set[str] | frozenset[str] = frozenset()) -> int:
    """Folds batch normalisation with constant statistics into the preceding convolution (and bias).

    With s = scale / sqrt(variance + epsilon), BN(conv(x, w) + b) = conv(x, w * s) + ((b - mean) * s + offset). A small
    filter that several convolutions share is copied for each of them; normalisations after large ones are kept. So are
    nodes of ``protected`` names, because they are outputs. Nodes that are no longer needed stay in the GraphDef.

    Returns:
        The number of folded normalisations.
    """
    nodes = {node.name: node for node in graph_def.node}
    num_readers = Counter(node_of(name) for node in graph_def.node for name in node.input)
    filters = Counter(constant_behind(nodes, n.input[1]).name for n in graph_def.node if _has_constant_filter(nodes, n))
    num_folded = 0
    for norm in [node for node in graph_def.node if node.op in _BATCH_NORMS]:
        chain = _foldable_chain(nodes, norm, num_readers, protected)
        if chain is not None and (filters[chain.filter.name] == 1 or _num_values(chain.filter) <= _MAX_COPIED_FILTER):
            _fold(graph_def, norm, chain)
            num_folded += 1
    return num_folded


def bypass_identities(graph_def: Any) -> None:
    """Rewires consumers around IdentityN, the last operation of functions with a custom gradient.

    With the IdentityN of a swish, Grappler does not recognise the swish. The function library is not changed, and nodes
    that are no longer needed stay in the GraphDef.
    """
    nodes = {node.name: node for node in graph_def.node}
    for node in graph_def.node:
        node.input[:] = [_source(nodes, name) for name in node.input]


def _source(nodes: dict[str, Any], name: str) -> str:
    """Follows an input back through all IdentityN; control inputs stay."""
    while not name.startswith("^"):
        base, _, number = name.partition(":")
        if nodes[base].op != "IdentityN":
            break
        name = nodes[base].input[int(number or 0)]
    return name


def _num_values(constant: Any) -> int:
    return math.prod(dim.size for dim in constant.attr["value"].tensor.tensor_shape.dim)


def without_unused(graph_def: Any, needed: Iterable[str]) -> Any:
    """Returns the nodes that ``needed`` nodes depend on, in their order, with the function library."""
    _drop_waits_for_constants(graph_def)
    reached = reach({node.name: [node_of(name) for name in node.input] for node in graph_def.node}, needed)
    result = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    result.node.extend(node for node in graph_def.node if node.name in reached)
    return result


def _forget_gradients(graph_def: Any) -> None:
    """Removes the names of custom gradients, which cannot be saved and cause warnings when loaded."""
    for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        for node in nodes:
            node.attr.pop(_GRADIENT_NAME, None)


def _drop_waits_for_constants(graph_def: Any) -> None:
    """Removes control inputs that wait for the reading of a variable; its constant has no side effect."""
    nodes = {node.name: node for node in graph_def.node}
    for node in graph_def.node:
        node.input[:] = [x for x in node.input if not x.startswith("^") or constant_behind(nodes, x) is None]


class _Chain(NamedTuple):
    """A convolution, optionally dilated or with a bias, whose only reader is a batch normalisation."""

    convolution: Any
    last: Any  # node with the result: the convolution, or the operation that undoes a dilation's rearrangement
    filter: Any  # Const node
    bias: np.ndarray  # [channels], zeros if there is none


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
    """Scales the convolution's filter and turns the node of the batch normalisation into a BiasAdd."""
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
    """Returns the Const node that an input reads through no-op nodes; None if the input is computed."""
    node = nodes[node_of(name)]
    while node.op in through:
        node = nodes[node_of(node.input[0])]
    return node if node.op == "Const" else None
