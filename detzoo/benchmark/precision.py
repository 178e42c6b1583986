"""Runs a SavedModel in float32, bfloat16 or float16, and counts the kernels that ran in that precision.

TensorFlow's graph optimizer converts convolutions, matrix products and operations between them to the lower precision
and keeps float32 for operations that need range: mixed precision for any SavedModel. It leaves a graph unchanged if it
sees no gain or no kernel, so the graph that ran is inspected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.eager import context

from detzoo.errors import DetzooError, UsageError
from detzoo.serving.frozen import quiet_conversion

FLOAT32, BFLOAT16, FLOAT16 = "float32", "bfloat16", "float16"
# Names of graph optimizers by precision and device. TensorFlow's float16 for CPUs only imitates it in float32, and
# crashes.
OPTIMIZERS = {
    (BFLOAT16, "CPU"): "auto_mixed_precision_onednn_bfloat16",
    (FLOAT16, "GPU"): "auto_mixed_precision",
}
HEAVY = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "Conv3D")  # in any form: _FusedConv2D, _MklNativeFusedConv2D
NOT_HEAVY = ("Backprop", "SparseTensor")


class Kernels(NamedTuple):
    """Numbers of convolutions and matrix products in the graph that ran."""

    total: int
    in_precision: int


def check_precision(precision: str, device: str, jit_compile: bool) -> None:
    """Raises a UsageError if a precision is not available on a device, or not together with XLA."""
    if precision == FLOAT32:
        return
    if (precision, device) not in OPTIMIZERS:
        accepted = [name for name in (FLOAT32, BFLOAT16, FLOAT16) if name == FLOAT32 or (name, device) in OPTIMIZERS]
        raise UsageError(
            f"--precision {precision}: TensorFlow has no kernels for a detector in {precision} on a {device}; "
            f"accepted there: {', '.join(accepted)}"
        )
    if jit_compile:
        raise UsageError(
            f"--precision {precision} with --jit_compile: the optimizer that lowers the precision does not change "
            f"graphs that XLA compiles; give one of the two"
        )


@contextlib.contextmanager
def in_precision(precision: str, device: str) -> Iterator[None]:
    """Applies a precision to functions whose first run is in this context."""
    if precision == FLOAT32:
        yield
        return
    optimizer = OPTIMIZERS[precision, device]
    tf.config.optimizer.set_experimental_options({optimizer: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({optimizer: False})


def kernels_of(first_call: Callable[[], Any], precision: str) -> Kernels:
    """Makes the first call of a function, and counts the kernels of its graphs. Later calls make no graph."""
    context.enable_run_metadata()
    try:
        context.export_run_metadata()  # drops earlier graphs
        with quiet_conversion():  # the optimizer writes messages from C++
            first_call()
        metadata = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    return count_kernels((node for graph in metadata.partition_graphs for node in graph.node), precision)


def count_kernels(nodes: Iterable[Any], precision: str) -> Kernels:
    """Counts convolutions and matrix products among nodes, and those that compute in a precision."""
    wanted = tf.as_dtype(precision).as_datatype_enum
    heavy = [
        node
        for node in nodes
        if any(name in node.op for name in HEAVY) and not any(name in node.op for name in NOT_HEAVY)
    ]
    return Kernels(len(heavy), sum(node.attr["T"].type == wanted for node in heavy))


def check_kernels(kernels: Kernels, precision: str, device: str) -> None:
    """Raises a DetzooError if no kernel uses the precision."""
    if precision != FLOAT32 and not kernels.in_precision:
        raise DetzooError(
            f"--precision {precision}: none of the {kernels.total} convolutions and matrix products ran in it; this "
            f"{device} or this build of TensorFlow has no fast kernels for it. Nothing was measured"
        )
