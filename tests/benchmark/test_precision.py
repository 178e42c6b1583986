"""Precision: what is refused, and what is read from the graph that ran."""

from __future__ import annotations

import pytest
import tensorflow as tf

from detzoo.benchmark import precision
from detzoo.errors import DetzooError, UsageError


def node(op, dtype):
    made = tf.compat.v1.NodeDef(op=op)
    made.attr["T"].type = dtype.as_datatype_enum
    return made


def test_kernels_are_counted_in_any_form():
    nodes = [
        node("_MklNativeFusedConv2D", tf.bfloat16),
        node("_FusedConv2D", tf.float32),
        node("DepthwiseConv2dNative", tf.bfloat16),
        node("BatchMatMulV2", tf.float32),
        node("Relu", tf.bfloat16),
    ]
    assert precision.count_kernels(nodes, "bfloat16") == precision.Kernels(4, 2)
    assert precision.count_kernels(nodes, "float32") == precision.Kernels(4, 2)
    assert precision.count_kernels(nodes, "float16") == precision.Kernels(4, 0)


def test_what_ran_is_seen():
    filters = tf.Variable(tf.random.normal([3, 3, 4, 4]))

    @tf.function
    def network(x):
        return tf.nn.relu(tf.nn.conv2d(x, filters, 1, "SAME"))

    found = precision.kernels_of(lambda: network(tf.ones([1, 8, 8, 4])), "float32")
    assert found == precision.Kernels(1, 1)


def test_the_precision_ends_with_its_block():
    with precision.in_precision("bfloat16", "CPU"):
        assert tf.config.optimizer.get_experimental_options()["auto_mixed_precision_onednn_bfloat16"] is True
    assert tf.config.optimizer.get_experimental_options()["auto_mixed_precision_onednn_bfloat16"] is False


def test_what_cannot_be_had_is_refused():
    precision.check_precision("float32", "CPU", jit_compile=True)
    precision.check_precision("bfloat16", "CPU", jit_compile=False)
    precision.check_precision("float16", "GPU", jit_compile=False)
    with pytest.raises(UsageError, match="float16 on a CPU; accepted there: float32, bfloat16"):
        precision.check_precision("float16", "CPU", jit_compile=False)
    with pytest.raises(UsageError, match="bfloat16 on a GPU; accepted there: float32, float16"):
        precision.check_precision("bfloat16", "GPU", jit_compile=False)
    with pytest.raises(UsageError, match="give one of the two"):
        precision.check_precision("bfloat16", "CPU", jit_compile=True)


def test_a_precision_that_nothing_ran_in_is_no_result():
    precision.check_kernels(precision.Kernels(5, 1), "bfloat16", "CPU")
    precision.check_kernels(precision.Kernels(5, 0), "float32", "CPU")
    with pytest.raises(DetzooError, match="none of the 5 convolutions"):
        precision.check_kernels(precision.Kernels(5, 0), "bfloat16", "CPU")
