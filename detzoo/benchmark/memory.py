"""What the tensors of one call take, from TensorFlow's own record of allocations.

A traced call notes each buffer that an operation allocates and when it is given back. ``total`` is the sum of their
sizes, what arXiv:1611.10012, section 4.1.4 calls total memory; ``peak`` is the most that was held at one time, plus the
weights. Counted are outputs and scratch buffers of operations; an operation that writes into its input's buffer
allocates nothing, and neither does the image that the caller gives. Operations run one after the other in the traced
call, so that the peak does not depend on chance. What an allocator keeps in reserve, code and the framework's own
objects are not counted: the peak of the process contains these.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.benchmark.precision import OPTIMIZERS
from detzoo.serving.frozen import quiet_conversion
from detzoo.serving.given_regions import INPUT_NAME as REGIONS_NAME
from detzoo.serving.saved_detector import SIGNATURE

_MIB = 2.0**20
_SERVE = "serve"  # the tag of what is in a SavedModel to be served


class TensorMemory(NamedTuple):
    """Bytes."""

    total: int  # of all buffers that a call allocates
    peak: int  # the most of them that were held at one time, and the weights
    weights: int  # variables and constants, which stay


def measure_tensors(
    saved_model: str | pathlib.Path, given: Sequence[np.ndarray], precision: str = "float32", device: str = "CPU"
) -> TensorMemory:
    """Loads a SavedModel once more, calls it twice and records the second call.

    Args:
        saved_model: folder with saved_model.pb.
        given: the inputs of its signature: images, and regions where it takes them.
        precision: see ``detzoo.benchmark.precision``.
        device: "CPU" or "GPU", where it runs.
    """
    config = _config(precision, device)
    with tf.Graph().as_default(), quiet_conversion(), tf.compat.v1.Session(config=config) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, [_SERVE], str(saved_model))
        signature = meta_graph.signature_def[SIGNATURE]
        names = sorted(signature.inputs, key=lambda name: name == REGIONS_NAME)
        feed = {signature.inputs[name].name: value for name, value in zip(names, given, strict=True)}
        fetched = [tensor.name for tensor in signature.outputs.values()]
        metadata = trace(session, fetched, feed)
        weights = sum(map(variable_bytes, session.graph.get_operations()))
    weights += sum(constant_bytes(graph) for graph in metadata.partition_graphs)
    total, peak = tally(metadata.step_stats)
    return TensorMemory(total, peak + weights, weights)


def trace(session: Any, fetched: list[str], feed: dict[str, np.ndarray]) -> Any:
    """The record of the second call of a graph: the first one also makes what is kept."""
    session.run(fetched, feed)
    metadata = tf.compat.v1.RunMetadata()
    full = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE, output_partition_graphs=True)
    session.run(fetched, feed, options=full, run_metadata=metadata)
    return metadata


def tally(step_stats: Any) -> tuple[int, int]:
    """(Sum of all allocations, most bytes held at one time) of a recorded call."""
    records = [
        (record.alloc_micros, record.alloc_bytes)
        for device in step_stats.dev_stats
        if "stream" not in device.device  # a GPU's kernels, listed beside its operations
        for node in device.node_stats
        for memory in node.memory
        for record in memory.allocation_records
    ]
    return sum(size for _, size in records if size > 0), peak_of(records)


def peak_of(records: Iterable[tuple[int, int]]) -> int:
    """The most bytes held at one time, from (microsecond, bytes taken or, below 0, given back)."""
    held = peak = 0
    for _, size in sorted(records):
        held += size
        peak = max(peak, held)
    return peak


def variable_bytes(operation: Any) -> int:
    """The size of the variable that an operation stands for; 0 for another operation."""
    if operation.type != "VarHandleOp":
        return 0
    return num_bytes(tf.TensorShape(operation.get_attr("shape")), operation.get_attr("dtype"))


def constant_bytes(graph_def: Any) -> int:
    """The size of a graph's constants."""
    sizes = 0
    for node in graph_def.node:
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            sizes += num_bytes(tf.TensorShape(tensor.tensor_shape), tf.as_dtype(tensor.dtype))
    return sizes


def num_bytes(shape: tf.TensorShape, dtype: tf.DType) -> int:
    """The size of a tensor; 0 where its shape is not known, and of text."""
    return (shape.num_elements() or 0) * dtype.size


def allocator_peak_mib() -> float:
    """The most that the GPU's allocator gave out since ``reset_allocator``, weights included, MiB."""
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / _MIB


def reset_allocator() -> None:
    """Starts the GPU allocator's peak anew."""
    tf.config.experimental.reset_memory_stats("GPU:0")


def mib(count: int) -> float:
    """Bytes in MiB."""
    return count / _MIB


def _config(precision: str, device: str) -> Any:
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=1)
    config.gpu_options.allow_growth = True
    if device == "CPU":
        config.device_count["GPU"] = 0
    rewrites = config.graph_options.rewrite_options
    rewrites.memory_optimization = rewrites.NO_MEM_OPT
    if (precision, device) in OPTIMIZERS:
        setattr(rewrites, OPTIMIZERS[precision, device], rewrites.ON)
    return config
