"""A traced detector as one flat graph of constants: what export writes and what benchmark counts and cuts."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple


class FrozenGraph(NamedTuple):
    """A graph without variables, functions inlined."""

    graph_def: Any  # tf.compat.v1.GraphDef
    input_name: str  # tensor name of the only input
    output_names: dict[str, str]  # output -> tensor name


def to_constants(function: Any) -> FrozenGraph:
    """Inlines a function and turns its variables into constants.

    Args:
        function: a concrete function of one tensor that returns a dict of tensors.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with quiet_conversion():
        frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    output_names = dict(zip(sorted(function.structured_outputs), (tensor.name for tensor in frozen.outputs)))
    return FrozenGraph(frozen.graph.as_graph_def(), frozen.inputs[0].name, output_names)


def node_of(tensor_name: str) -> str:
    """The node's name in "node:0", "node" or "^node"."""
    return tensor_name.lstrip("^").split(":")[0]


@contextlib.contextmanager
def quiet_conversion() -> Iterator[None]:
    """Without what TensorFlow's converters write to stderr from C++ whatever the log level."""
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
