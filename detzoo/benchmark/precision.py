"""Float32, bfloat16 or float16 for any SavedModel, and what precision its kernels ran in.

TensorFlow's graph optimizer turns convolutions and matrix products, with what stands between them, into the lower
precision and leaves what needs range in float32: mixed precision, whoever made the SavedModel. Whether it did so is
read from the graph that ran, for it leaves a graph as it was where it sees no gain or no kernel.
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
# What a graph optimizer is called by precision and device. TensorFlow has one for float16 on CPUs as well; it only
# imitates, in float32, and crashes.
OPTIMIZERS = {
    (BFLOAT16, "CPU"): "auto_mixed_precision_onednn_bfloat16",
    (FLOAT16, "GPU"): "auto_mixed_precision",
}
HEAVY = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "Conv3D")  # in any form: _FusedConv2D, _MklNativeFusedConv2D
NOT_HEAVY = ("Backprop", "SparseTensor")


class Kernels(NamedTuple):
    """Convolutions and matrix products of the graph that ran."""

    total: int
    in_precision: int


def check_precision(precision: str, device: str, jit_compile: bool) -> None:
    """Whether a precision can be had.

    Raises:
        UsageError: not on this device, or not together with XLA.
    """
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
            f"--precision {precision} with --jit_compile: the optimizer that lowers the precision does not reach what "
            f"XLA compiles; give one of the two"
        )


@contextlib.contextmanager
def in_precision(precision: str, device: str) -> Iterator[None]:
    """Functions that run for the first time in here run in that precision."""
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
    """Makes the first call of a function, and counts what the graphs that it made compute with.

    Args:
        first_call: later ones make no graph, so nothing would be found.
        precision: that is looked for.
    """
    context.enable_run_metadata()
    try:
        context.export_run_metadata()  # forgets what was noted earlier
        with quiet_conversion():  # the optimizer tells its work from C++
            first_call()
        metadata = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    return count_kernels((node for graph in metadata.partition_graphs for node in graph.node), precision)


def count_kernels(nodes: Iterable[Any], precision: str) -> Kernels:
    """The convolutions and matrix products among nodes, and those of them that compute in a precision."""
    wanted = tf.as_dtype(precision).as_datatype_enum
    heavy = [
        node
        for node in nodes
        if any(name in node.op for name in HEAVY) and not any(name in node.op for name in NOT_HEAVY)
    ]
    return Kernels(len(heavy), sum(node.attr["T"].type == wanted for node in heavy))


def check_kernels(kernels: Kernels, precision: str, device: str) -> None:
    """Whether the precision was used.

    Raises:
        DetzooError: in no kernel.
    """
    if precision != FLOAT32 and not kernels.in_precision:
        raise DetzooError(
            f"--precision {precision}: none of the {kernels.total} convolutions and matrix products ran in it; this "
            f"{device} or this build of TensorFlow has no fast kernels for it. Nothing was measured"
        )
