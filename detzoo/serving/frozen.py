"""A traced detector as one flat graph of constants, for export and benchmark."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Constants from this size on are better kept in variables. A small constant is a little faster, as its layout for the
# kernel is made once, but the runtime holds four to five copies of it. Memory above the import of TensorFlow: SSD
# MobileNet v2 300 takes 117 MiB with this limit, 179 MiB with 500 kB; ResNet-50 at 640 x 640 takes 1.87 GB with
# constants only, 257 MB with variables. Latency of MobileNet v2 alone: 19.4 ms with this limit, 17.7 ms with 500 kB,
# 16.1 ms with constants only.
MIN_VARIABLE_BYTES = 40_000


class FrozenGraph(NamedTuple):
    """Graph without variables, with inlined functions."""

    graph_def: Any  # tf.compat.v1.GraphDef
    input_name: str  # tensor name of the images
    output_names: dict[str, str]  # output to tensor name
    side_names: tuple[str, ...] = ()  # tensor names of the further inputs: regions, or a memory and its size

    @property
    def input_names(self) -> tuple[str, ...]:
        """Tensor names of all inputs, in the order of the signature."""
        return (self.input_name, *self.side_names)


def to_constants(function: Any) -> FrozenGraph:
    """Inlines a function and replaces variables by constants.

    Args:
        function: Concrete function of images (and side inputs) that returns a dict of tensors.
    """
    with quiet_conversion():
        graph_def, (images, *sides), outputs = _convert(function)
    names = dict(zip(sorted(function.structured_outputs), outputs, strict=True))
    return FrozenGraph(graph_def, images, names, tuple(sides))


def _convert(function: Any) -> tuple[Any, list[str], list[str]]:
    """Returns the converted graph and the tensor names of inputs and outputs.

    The steps are those of TensorFlow's converter without the last one, which makes a function of the graph again and
    takes three quarters of the time. If a TensorFlow lacks these steps, the converter is called.
    """
    from tensorflow.python.eager import context
    from tensorflow.python.framework import convert_to_constants as converter

    try:
        read, replace = converter._FunctionConverterDataInEager, converter._replace_variables_by_constants
    except AttributeError:
        frozen = converter.convert_variables_to_constants_v2(function, lower_control_flow=False)
        inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (frozen.inputs, frozen.outputs))
        return frozen.graph.as_graph_def(), inputs, outputs
    data = read(func=function, lower_control_flow=False, aggressive_inlining=False)
    graph_def, converted = replace(data)
    for function_def in graph_def.library.function:  # bodies of loops and branches, which inlining replaced
        if context.context().has_function(function_def.signature.name):
            context.context().remove_function(function_def.signature.name)
        context.context().add_function_def(function_def)
    captures = {id(function.graph.internal_captures[index]) for index in converted}
    given = [tensor.name for tensor in function.inputs if id(tensor) not in captures]
    return graph_def, given, [tensor.name for tensor in function.outputs]


def take_out_constants(frozen: FrozenGraph) -> tuple[FrozenGraph, dict[str, np.ndarray]]:
    """Returns the graph without its large constants, and these by tensor name, to be fed to ``outputs_of``.

    TensorFlow's runtime holds several copies of a constant, and every graph with it adds one, so large ones are better
    kept in variables.
    """
    import tensorflow as tf

    constants: dict[str, np.ndarray] = {}
    graph_def = tf.compat.v1.GraphDef(versions=frozen.graph_def.versions, library=frozen.graph_def.library)
    for node in frozen.graph_def.node:
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() >= MIN_VARIABLE_BYTES:
            constants[f"{node.name}:0"] = tf.make_ndarray(node.attr["value"].tensor)
        else:
            kept = graph_def.node.add()
            kept.CopyFrom(node)
            kept.attr.pop("_class", None)  # a placement next to an operation that may have been taken out
    return frozen._replace(graph_def=graph_def), constants


def outputs_of(
    frozen: FrozenGraph, inputs: Sequence[Any], weights: Mapping[str, Any] | None = None, scope: str = ""
) -> dict[str, Any]:
    """Adds a graph to the function that is being traced and returns its outputs.

    ``weights`` are variables by the tensor names of the constants that the graph lacks; ``scope`` precedes all names.
    """
    import tensorflow as tf

    read = {name: variable.read_value() for name, variable in (weights or {}).items()}
    tensors = tf.graph_util.import_graph_def(
        frozen.graph_def,
        input_map={**dict(zip(frozen.input_names, inputs, strict=True)), **read},
        return_elements=list(frozen.output_names.values()),
        name=scope,
    )
    return dict(zip(frozen.output_names, tensors))


def reach(inputs: Mapping[str, Sequence[str]], names: Iterable[str]) -> set[str]:
    """Returns the nodes that ``names`` depend on, ``names`` included; ``inputs`` has the input nodes of each node."""
    waiting, reached = list(names), set()
    while waiting:
        name = waiting.pop()
        if name not in reached and name in inputs:
            reached.add(name)
            waiting += inputs[name]
    return reached


def node_of(tensor_name: str) -> str:
    """Returns the node's name in "node:0", "node" or "^node"."""
    return tensor_name.lstrip("^").split(":")[0]


@contextlib.contextmanager
def quiet_conversion() -> Iterator[None]:
    """Suppresses the messages that TensorFlow's converters write from C++ at any log level."""
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
