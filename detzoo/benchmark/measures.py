"""Options of a benchmark and parts of its result.

No TensorFlow in here, so that a wrong flag is reported at once.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

MAX_DIFFERENCE = 0.05  # of the halves of the runs, or of two results; a greater one is reported
COUNTED_STAGES = ("extractor", "heads", "first_stage", "second_stage", "masks")  # of multiply-adds

# Operations that are counted as multiply-adds, and their kinds.
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
    """Settings of a measurement."""

    runs: int = 50
    warmup: int = 5
    batch_size: int = 1
    image_shape: tuple[int, int] | None = None  # (height, width) in pixels; None keeps the sizes of images
    device: str = "CPU"  # "CPU" or "GPU"
    images: str = ""  # folder or pattern of real images; "" for random ones
    precision: str = "float32"  # or "bfloat16", "float16"
    jit_compile: bool = False  # by XLA
    intra_op_threads: int = 0  # 0 for TensorFlow's default, one per core
    inter_op_threads: int = 0
    min_seconds: float = 3.0  # of timed calls, whose number may exceed ``runs``
    num_proposals: int = 1000  # per image, for a detector that classifies given regions
    runtime: str = ""  # one of ``serving.runtimes.RUNTIMES``; "" for the usual one of the model's format


class Latency(NamedTuple):
    """Milliseconds per call, over all runs."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    mean_ms: float
    num_runs: int
    repeat_difference: float | None = None  # |median of the first half - of the second| / median; None for one run


class Stages(NamedTuple):
    """Milliseconds of a call by stage; None for parts that the network lacks.

    Preprocessing, network and post-processing add up to the median of the whole call.
    """

    preprocess_ms: float
    network_ms: float
    postprocess_ms: float
    extractor_ms: float | None = None  # from normalised images to the inputs of the heads, with the neck
    first_stage_ms: float | None = None  # two-stage detectors: from normalised images to proposals
    second_stage_ms: float | None = None  # from proposals to class scores and boxes
    masks_ms: float | None = None  # from boxes to their masks
    one_by_one_ms: float | None = None  # sum of the parts when each is called separately
