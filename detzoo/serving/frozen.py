"""A traced detector as one flat graph of constants, for export and benchmark."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple


class FrozenGraph(NamedTuple):
    """Graph without variables, with inlined functions."""

    graph_def: Any  # tf.compat.v1.GraphDef
    input_name: str  # tensor name of the images
    output_names: dict[str, str]  # output to tensor name
    proposals_name: str = ""  # tensor name of the regions, "" if images are the only input

    @property
    def input_names(self) -> tuple[str, ...]:
        """Tensor names of all inputs, in the order of the signature."""
        return (self.input_name, self.proposals_name) if self.proposals_name else (self.input_name,)


def to_constants(function: Any) -> FrozenGraph:
    """Inlines a function and replaces variables by constants.

    Args:
        function: Concrete function of images (and regions) that returns a dict of tensors.
    """
    with quiet_conversion():
        graph_def, (images, *regions), outputs = _convert(function)
    names = dict(zip(sorted(function.structured_outputs), outputs, strict=True))
    return FrozenGraph(graph_def, images, names, *regions)


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
