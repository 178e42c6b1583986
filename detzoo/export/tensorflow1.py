"""Writes a frozen graph under the tensor names of the Object Detection API's exporter for TensorFlow 1.

Code of ``tf.compat.v1`` imports frozen_inference_graph.pb, or loads the SavedModel into a session, and runs
``detection_boxes:0`` with ``image_tensor:0`` fed.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import tensorflow as tf

from detzoo.errors import DetzooError
from detzoo.export.freeze import without_unused
from detzoo.export.saved_model import quiet_saver
from detzoo.folders import FROZEN_GRAPH_FILE
from detzoo.serving.frozen import FrozenGraph, outputs_of
from detzoo.serving.saved_detector import SIGNATURE

_SCOPE = "detector"  # of all nodes but the inputs and outputs
_KEYS = ("inputs", "proposals")  # of the inputs in the signature


def write_tensorflow1(
    frozen: FrozenGraph, input_specs: Sequence[tf.TensorSpec], input_type: str, folder: pathlib.Path
) -> None:
    """Writes the graph next to ``folder``, and into ``folder`` as a SavedModel without variables.

    Args:
        frozen: The exported graph.
        input_specs: Shape, type and name of each input, the images first.
        input_type: Name of the images' node, such as "image_tensor".
        folder: Folder of the SavedModel.

    Raises:
        DetzooError: The graph has more than 2 GB, which no file of a graph can have.
    """
    names = [input_type, *(spec.name for spec in input_specs[1:])]
    with tf.Graph().as_default() as graph:
        given = [tf.compat.v1.placeholder(spec.dtype, spec.shape, name) for spec, name in zip(input_specs, names)]
        outputs = {
            name: tf.identity(output, name).name for name, output in outputs_of(frozen, given, scope=_SCOPE).items()
        }
        try:
            graph_def = without_unused(graph.as_graph_def(), [*names, *outputs])
            content = graph_def.SerializeToString()
        except ValueError as problem:
            raise DetzooError(f"--tf1_names: the graph is too large for one file: {problem}") from problem
    folder.parent.mkdir(parents=True, exist_ok=True)
    (folder.parent / FROZEN_GRAPH_FILE).write_bytes(content)
    save_graph(FrozenGraph(graph_def, given[0].name, outputs, tuple(tensor.name for tensor in given[1:])), folder)


def save_graph(frozen: FrozenGraph, folder: str | pathlib.Path) -> None:
    """Writes a SavedModel without variables, for sessions and for ``tf.saved_model.load``."""
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session, quiet_saver():
        tf.graph_util.import_graph_def(frozen.graph_def, name="")
        inputs, outputs = (
            {
                key: tf.compat.v1.saved_model.build_tensor_info(graph.get_tensor_by_name(name))
                for key, name in names.items()
            }
            for names in (dict(zip(_KEYS, frozen.input_names)), frozen.output_names)
        )
        signature = tf.compat.v1.saved_model.build_signature_def(inputs, outputs, tf.saved_model.PREDICT_METHOD_NAME)
        builder = tf.compat.v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], {SIGNATURE: signature})
        builder.save()
