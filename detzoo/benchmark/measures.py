"""The nouns of a benchmark: how to measure, and the parts of a result.

No TensorFlow in here, so that a wrong flag is told at once.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

MAX_DIFFERENCE = 0.05  # between two halves of the runs, or two results; above it the numbers say so
COUNTED_STAGES = ("extractor", "heads", "first_stage", "second_stage", "masks")  # of multiply-adds

# What is counted as multiply-adds: the operation -> its kind.
KINDS: dict[str, str] = {
    "Conv2D": "convolution",
    "DepthwiseConv2dNative": "depthwise",
    "MatMul": "dense",
    "BatchMatMulV2": "dense",
    "BatchMatMul": "dense",
    "Conv2DBackpropInput": "transposed",
}


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions:
    """How to measure."""

    runs: int = 50
    warmup: int = 5
    batch_size: int = 1
    image_shape: tuple[int, int] | None = None  # (height, width) in pixels; None: images' own, random ones' usual
    device: str = "CPU"  # "CPU" or "GPU", what the result says; ``auto``, ``cpu`` and ``gpu`` are choices of the flag
    images: str = ""  # folder or pattern of real images; "" for random ones
    precision: str = "float32"  # or "bfloat16", "float16"
    jit_compile: bool = False  # by XLA
    intra_op_threads: int = 0  # 0 for TensorFlow's choice: one a core
    inter_op_threads: int = 0
    min_seconds: float = 3.0  # of timed calls; more than ``runs`` where they take less
    num_proposals: int = 1000  # of an image, for a detector that classifies given regions


class Latency(NamedTuple):
    """Milliseconds a call, over all runs."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    mean_ms: float
    num_runs: int
    repeat_difference: float | None = None  # |median of the first half - of the second| / median; None for one run


class Stages(NamedTuple):
    """The milliseconds of a call by what it does, and those of the network by its parts where it has parts.

    Preprocessing, network and post-processing add up to the median of the whole call.
    """

    preprocess_ms: float
    network_ms: float
    postprocess_ms: float
    extractor_ms: float | None = None  # from normalised images to the maps that heads read, with the neck
    first_stage_ms: float | None = None  # of a detector with two stages: from normalised images to proposals
    second_stage_ms: float | None = None  # from proposals to what is in them
    masks_ms: float | None = None  # of a detector with masks: from boxes to their masks
    one_by_one_ms: float | None = None  # sum of the parts as they were timed, each a call of its own
