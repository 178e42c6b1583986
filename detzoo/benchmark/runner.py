"""A SavedModel -> latency, stages, parameters, multiply-adds, memory, environment."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.benchmark import latency, multiply_adds
from detzoo.benchmark.environment import available_cores, describe_environment
from detzoo.benchmark.process import measure_process
from detzoo.benchmark.yardstick import beside_yardstick
from detzoo.detectors.frozen import FrozenGraph, node_of, to_constants
from detzoo.detectors.saved_detector import EXPORT_RECORD, SavedDetector

BUSY_LOAD = 0.5  # of a core: above this, other programs disturb the measurement

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions:
    """How to measure."""

    runs: int = 50
    warmup: int = 5
    batch_size: int = 1
    image_shape: tuple[int, int] = (480, 640)  # (height, width) in pixels, of random images
    device: str = "CPU"  # "CPU" or "GPU", what the result says; ``auto``, ``cpu`` and ``gpu`` are choices of the flag
    images: str = ""  # folder or pattern of real images; "" for random ones
    precision: str = "float32"  # or "bfloat16", "float16"
    jit_compile: bool = False  # by XLA
    intra_op_threads: int = 0  # 0 for TensorFlow's choice: one a core
    inter_op_threads: int = 0


def benchmark_saved_model(saved_model: str | pathlib.Path, options: BenchmarkOptions, name: str = "") -> dict[str, Any]:
    """Measures a SavedModel.

    Args:
        saved_model: folder with saved_model.pb, or an export's output_directory.
        options: how to measure.
        name: what the result calls it; the folder where empty.

    Returns:
        A JSON object: numbers, ``latency``, ``stages`` (None for a model that does not name its stages), ``process``
        and ``environment``.
    """
    environment = describe_environment()
    if environment["load_average"] > BUSY_LOAD * available_cores():
        logger.warning("the load average is %.1f: other programs make these numbers worse", environment["load_average"])
    detector = SavedDetector(saved_model)
    image = np.random.default_rng(0).integers(0, 256, (*options.image_shape, 3), np.uint8)
    given = detector.as_input(image, options.batch_size)
    logger.info("measuring the yardstick, then %d runs", options.runs)
    whole, gflops = beside_yardstick(
        lambda: latency.time_call(lambda: detector.outputs(given), options.warmup, options.runs)
    )
    frozen = to_constants(detector.function)
    stages = latency.time_stages(frozen, given, options.warmup, max(3, options.runs // 2))
    adds = multiply_adds.count_in_graph_def(frozen.graph_def, frozen.input_name, detector.as_input(image).numpy())
    logger.info("measuring load time and memory in a fresh process")
    process = measure_process(detector.folder, given.numpy())
    return {
        "model": name or str(saved_model),
        "device": options.device,
        "batch_size": options.batch_size,
        "image_height": options.image_shape[0],
        "image_width": options.image_shape[1],
        "latency": _rounded(whole._asdict()),
        "stages": _rounded(stages._asdict() if stages else dict.fromkeys(latency.Stages._fields)),
        "parameters": _parameters(detector.folder, frozen),
        "multiply_adds": sum(adds.values()),
        "multiply_adds_by_kind": {kind: adds.get(kind, 0) for kind in sorted(set(multiply_adds.KINDS.values()))},
        "process": _rounded(process._asdict()),
        "yardstick_gflops": round(gflops, 1),
        "environment": environment,
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}


def _parameters(folder: pathlib.Path, frozen: FrozenGraph) -> int:
    """What the export noted; else the numbers in the weights as they are served, normalisation perhaps folded."""
    try:
        return int(json.loads((folder.parent / EXPORT_RECORD).read_text(encoding="utf-8"))["parameters"])
    except (OSError, ValueError, KeyError, TypeError):
        return served_parameters(frozen)


def served_parameters(frozen: FrozenGraph) -> int:
    """Numbers in the constants that convolutions, matrix products, biases and normalisations read."""
    nodes = {node.name: node for node in frozen.graph_def.node}
    readers = (*multiply_adds.KINDS, "BiasAdd", "FusedBatchNormV3")
    found: dict[str, int] = {}
    for reader in (node for node in frozen.graph_def.node if node.op in readers):
        for name in reader.input:
            source = nodes[node_of(name)]
            while source.op in ("Identity", "Reshape", "Squeeze"):
                source = nodes[node_of(source.input[0])]
            if source.op == "Const" and source.attr["dtype"].type == tf.float32.as_datatype_enum:
                found[source.name] = math.prod(dim.size for dim in source.attr["value"].tensor.tensor_shape.dim)
    return sum(found.values())
