"""A traced function as a graph of constants."""

from __future__ import annotations

import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python import framework
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from detzoo.serving.frozen import to_constants


class Network(tf.Module):
    """A variable, a captured constant, and a loop."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable([2.0, 3.0])
        self.captured = tf.constant([1.0, 1.0])

    @tf.function(input_signature=[tf.TensorSpec([None, 2])])
    def detect(self, x):
        rows = tf.map_fn(lambda row: row * self.weight, x)
        return {"sum": tf.reduce_sum(rows, axis=1), "added": rows + self.captured}


def run(frozen, x):
    def outputs(given):
        names = list(frozen.output_names.values())
        return tf.graph_util.import_graph_def(frozen.graph_def, {frozen.input_name: given}, names, name="")

    tensors = tf.compat.v1.wrap_function(outputs, [tf.TensorSpec([None, 2])])(tf.constant(x))
    return {name: tensor.numpy() for name, tensor in zip(frozen.output_names, tensors, strict=True)}


@pytest.mark.parametrize("lacks_the_steps", [False, True])
def test_variables_become_constants(monkeypatch, lacks_the_steps):
    if lacks_the_steps:  # of TensorFlow's converter, which are not part of its interface
        whole = types.SimpleNamespace(convert_variables_to_constants_v2=convert_variables_to_constants_v2)
        monkeypatch.setattr(framework, "convert_to_constants", whole)
    network = Network()
    frozen = to_constants(network.detect.get_concrete_function())
    assert not any(node.op in ("VarHandleOp", "ReadVariableOp") for node in frozen.graph_def.node)
    network.weight.assign([0.0, 0.0])
    found = run(frozen, [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(found["sum"], [8.0, 18.0])
    np.testing.assert_array_equal(found["added"], [[3.0, 7.0], [7.0, 13.0]])
