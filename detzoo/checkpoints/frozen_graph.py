"""Reads the weights that are constants in a frozen graph or a SavedModel of TensorFlow 1."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import graph_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from detzoo.checkpoints.tensorflow1 import LEAVES
from detzoo.errors import CheckpointError

GRAPH_ENDING, SAVED_MODEL_FILE = ".pb", "saved_model.pb"
_VARIABLES = ("Variable", "VariableV2", "VarHandleOp")
INSTEAD = "take the model.ckpt or the frozen_inference_graph.pb of the same archive"
_INTEGERS = (types_pb2.DT_UINT8, types_pb2.DT_QUINT8, types_pb2.DT_INT8, types_pb2.DT_QINT8)
_LEAF = re.compile(rf"({'|'.join(LEAVES)})(_quint8_const|_quantized_const|_const)?")


class Constants:
    """The weights in a graph, with the methods of a checkpoint reader that ``StoredTensors`` needs."""

    def __init__(self, path: str) -> None:
        """Reads the graph in a file.

        Raises:
            CheckpointError: The file is no graph, or holds no weights, or quantized ones.
        """
        graph = read_graph(path)
        nodes = [node for node in graph.node if _LEAF.fullmatch(node.name.rpartition("/")[2])]
        constants = [node for node in nodes if node.op == "Const"]
        quantized = [node for node in constants if node.attr["dtype"].type in _INTEGERS]
        if quantized:
            kind = types_pb2.DataType.Name(quantized[0].attr["dtype"].type).removeprefix("DT_").lower()
            raise CheckpointError(
                f"the weights in {path} are quantized to {kind} ({quantized[0].name}, ...), which loses their exact "
                f"values: {INSTEAD}"
            )
        if not constants:
            found = (
                f"it has the names of {len(nodes)} variables, but not their values"
                if any(node.op in _VARIABLES for node in nodes)
                else f"none of its {len(graph.node)} nodes is a constant .../weights"
            )
            exported = os.path.join(os.path.dirname(path), "checkpoint")  # of `detzoo export --tf1_names`
            instead = f"take {exported}" if tf.io.gfile.isdir(exported) else INSTEAD
            raise CheckpointError(f"the graph {path} holds no weights: {found}; {instead}")
        self._values = {node.name: node.attr["value"].tensor for node in constants}

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Returns name -> shape."""
        return {name: [side.size for side in value.tensor_shape.dim] for name, value in self._values.items()}

    def get_tensor(self, name: str) -> np.ndarray:
        """Returns one value."""
        return tf.make_ndarray(self._values[name])


def read_graph(path: str) -> Any:
    """Returns the tf.compat.v1.GraphDef in the file of a frozen graph or a SavedModel.

    Raises:
        CheckpointError: The file is damaged, or no graph.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    try:
        if path.endswith(SAVED_MODEL_FILE):
            return saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].graph_def
        return graph_pb2.GraphDef.FromString(content)
    except (DecodeError, LookupError):
        raise CheckpointError(f"{path} is damaged, or no graph of TensorFlow: copy it again, or {INSTEAD}") from None
