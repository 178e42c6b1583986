"""Measures the memory of the tensors of one call from TensorFlow's record of allocations.

A traced call records each buffer that an operation allocates and when it is freed. ``total`` is the sum of their sizes,
total memory in arXiv:1611.10012, section 4.1.4. ``peak`` is the most that was held at one time, plus the weights.
Outputs and scratch buffers of operations are counted. Operations that write into their inputs' buffers allocate
nothing, and neither does the caller's image. In the traced call operations run one after the other, so the peak is
reproducible. The allocator's reserve, code and the framework's objects are not counted; the peak of the process
contains them.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.benchmark.precision import OPTIMIZERS
from detzoo.serving.frozen import quiet_conversion
from detzoo.serving.given_regions import SIDE_INPUTS
from detzoo.serving.saved_detector import SIGNATURE

_MIB = 2.0**20
_SERVE = "serve"  # tag of the graph for serving in a SavedModel


class TensorMemory(NamedTuple):
    """Memory in bytes."""

    total: int  # of all buffers that a call allocates
    peak: int  # most bytes held at one time, and the weights
    weights: int  # variables and constants


def measure_tensors(
    saved_model: str | pathlib.Path, given: Sequence[np.ndarray], precision: str = "float32", device: str = "CPU"
) -> TensorMemory:
    """Loads a SavedModel, calls it twice and records the second call.

    ``given`` are the inputs of its signature: images, and regions if it takes them.
    """
    config = _config(precision, device)
    with tf.Graph().as_default(), quiet_conversion(), tf.compat.v1.Session(config=config) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, [_SERVE], str(saved_model))
        signature = meta_graph.signature_def[SIGNATURE]
        names = sorted(signature.inputs, key=lambda name: name in SIDE_INPUTS and 1 + SIDE_INPUTS.index(name))
        feed = {signature.inputs[name].name: value for name, value in zip(names, given, strict=True)}
        fetched = [tensor.name for tensor in signature.outputs.values()]
        metadata = trace(session, fetched, feed)
        weights = sum(map(variable_bytes, session.graph.get_operations()))
    weights += sum(constant_bytes(graph) for graph in metadata.partition_graphs)
    total, peak = tally(metadata.step_stats)
    return TensorMemory(total, peak + weights, weights)


def trace(session: Any, fetched: list[str], feed: dict[str, np.ndarray]) -> Any:
    """Returns the record of the second call of a graph; the first one also makes buffers that are kept."""
    session.run(fetched, feed)
    metadata = tf.compat.v1.RunMetadata()
    full = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE, output_partition_graphs=True)
    session.run(fetched, feed, options=full, run_metadata=metadata)
    return metadata


def tally(step_stats: Any) -> tuple[int, int]:
    """Returns the sum of all allocations and the most bytes held at one time."""
    records = [
        (record.alloc_micros, record.alloc_bytes)
        for device in step_stats.dev_stats
        if "stream" not in device.device  # the kernels of a GPU, which repeat its operations
        for node in device.node_stats
        for memory in node.memory
        for record in memory.allocation_records
    ]
    return sum(size for _, size in records if size > 0), peak_of(records)


def peak_of(records: Iterable[tuple[int, int]]) -> int:
    """Returns the most bytes held at one time, from (microsecond, bytes taken or, below 0, given back)."""
    held = peak = 0
    for _, size in sorted(records):
        held += size
        peak = max(peak, held)
    return peak


def variable_bytes(operation: Any) -> int:
    """Returns the size of an operation's variable; 0 for other operations."""
    if operation.type != "VarHandleOp":
        return 0
    return num_bytes(tf.TensorShape(operation.get_attr("shape")), operation.get_attr("dtype"))


def constant_bytes(graph_def: Any) -> int:
    """Returns the size of a graph's constants."""
    constants = [node.attr["value"].tensor for node in graph_def.node if node.op == "Const"]
    return sum(num_bytes(tf.TensorShape(each.tensor_shape), tf.as_dtype(each.dtype)) for each in constants)


def num_bytes(shape: tf.TensorShape, dtype: tf.DType) -> int:
    """Returns the size of a tensor; 0 for text or an unknown shape."""
    return (shape.num_elements() or 0) * dtype.size


def allocator_peak_mib() -> float:
    """Returns the most MiB that the GPU's allocator gave out since ``reset_allocator``, weights included."""
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / _MIB


def reset_allocator() -> None:
    """Resets the peak of the GPU's allocator."""
    tf.config.experimental.reset_memory_stats("GPU:0")


def mib(count: int) -> float:
    """Converts bytes to MiB."""
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
