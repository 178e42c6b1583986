"""Memory of a call: graphs whose tensors are known, and records worked by hand."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from detzoo.benchmark import memory

MIB = 2**20
COUNT = MIB // 4  # float32 numbers in one MiB


def recorded(build):
    """(total, peak) of a graph of one input of 1 MiB."""
    with tf.Graph().as_default(), tf.compat.v1.Session(config=memory._config("float32", "CPU")) as session:
        given = tf.compat.v1.placeholder(tf.float32, [None], name="given")
        result = build(given)
        metadata = memory.trace(session, [result.name], {given.name: np.ones(COUNT, np.float32)})
        return memory.tally(metadata.step_stats)


def close(found, expected_mib):
    return abs(found - expected_mib * MIB) < 0.001 * MIB  # a sum or a shape takes a few bytes


def test_tensors_of_known_size():
    def build(given):
        tiled = tf.tile(given, [4])  # 4 MiB
        more = tiled + 1.0  # in the same buffer
        doubled = tf.concat([more, more], 0)  # 8 MiB, while the 4 are still held
        return tf.reduce_sum(doubled)

    total, peak = recorded(build)
    assert close(total, 12)
    assert close(peak, 12)


def test_what_was_given_back_does_not_count_again():
    def build(given):
        eight = tf.tile(given, [8])  # 8 MiB
        two = tf.reshape(tf.reduce_sum(tf.reshape(eight, [-1, 4]), 1), [-1])  # 2 MiB while the 8 are held
        return tf.reduce_sum(tf.concat([two, two, two], 0))  # 6 MiB while the 2 are held: 8, less than 10

    total, peak = recorded(build)
    assert close(total, 16)
    assert close(peak, 10)


def test_peak_of_records():
    # 5 taken, 3 taken, 5 given back, 4 taken: 8 at most. At the same microsecond, giving back comes first.
    assert memory.peak_of([(1, 5), (2, 3), (3, -5), (4, 4)]) == 8
    assert memory.peak_of([(1, 5), (2, -5), (2, 6)]) == 6
    assert memory.peak_of([]) == 0


def test_constants_and_variables_have_their_size():
    graph = tf.Graph()
    with graph.as_default():
        tf.constant(np.ones([3, 5], np.float32) * np.arange(5, dtype=np.float32))
        tf.constant(7.0, shape=[10, 10], dtype=tf.float16)  # stored as one number, computed with as a hundred
        tf.constant([b"text"])
        variable = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[4, 8])
    sizes = 4 * 15 + 2 * 100
    assert memory.constant_bytes(graph.as_graph_def()) == sizes
    assert memory.variable_bytes(variable.op) == 4 * 32
    assert memory.variable_bytes(graph.get_operations()[0]) == 0


class Doubler(tf.Module):
    """A served model with one variable of 2 MiB, whose product with the input takes 2 MiB."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(0).normal(size=[2, COUNT]).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([1], tf.float32, name="given")])
    def __call__(self, given):
        return {"sum": tf.reduce_sum(self.weights * given, 1)}


def test_a_saved_model_has_its_weights_in_the_peak(tmp_path):
    module = Doubler()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    found = memory.measure_tensors(tmp_path, (np.ones([1], np.float32),))
    assert close(found.weights, 2)
    assert close(found.total, 2)
    assert close(found.peak, 4)
