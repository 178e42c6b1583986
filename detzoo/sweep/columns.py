"""The columns of results.csv, what a sweep writes and all that its report reads.

A dotted column is a value of ``detzoo benchmark``'s JSON object under the same path; accuracy has the names of
metrics.json. What was not measured is empty, never 0.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from detzoo.sweep.plan.published import PUBLISHED_COLUMNS


class Kind(enum.Enum):
    """How a cell reads."""

    TEXT = "text"
    INTEGER = "a whole number"
    NUMBER = "a number"
    FLAG = "true or false"


class Status(enum.Enum):
    """How a point ended."""

    OK = "ok"
    FAILED = "failed"  # ``reason`` says why; the measured columns that exist are kept


class Column(NamedTuple):
    """One column."""

    name: str
    kind: Kind
    meaning: str  # with its unit


PUBLISHED_SOURCE, PUBLISHED_CONDITIONS = "published.source", "published.conditions"


def published(name: str) -> str:
    """The column of what was published beside a measured one."""
    return f"published.{name}"


_T, _I, _N, _F = Kind.TEXT, Kind.INTEGER, Kind.NUMBER, Kind.FLAG

COLUMNS: tuple[Column, ...] = (
    # The point.
    Column("key", _T, "fingerprint of the resolved config and of how it is measured"),
    Column("name", _T, "short name of the point, unique in its sweep"),
    Column("status", _T, "ok or failed"),
    Column("reason", _T, "of a failure, or why accuracy is missing"),
    Column("meta_architecture", _T, "ssd, faster_rcnn, rfcn, ..."),
    Column("extractor", _T, "mobilenet_v1, resnet101, ..."),
    Column("output_stride", _I, "of the extractor, pixels; of SSD and of a two-stage detector"),
    Column("resolution", _I, "shorter side of the input, pixels"),
    Column("proposals", _I, "of a two-stage detector, an image"),
    Column("axes", _T, "JSON object: path -> value of the other axes"),
    Column("config", _T, "resolved pipeline.config, relative to the folder of results.csv"),
    Column("checkpoint", _T, "what was measured; empty for random weights"),
    Column("command", _T, "that measures this point again"),
    # How it was measured.
    Column("device", _T, "CPU or GPU"),
    Column("precision", _T, "float32, bfloat16 or float16"),
    Column("jit_compile", _F, "compiled by XLA"),
    Column("batch_size", _I, "images a call"),
    # Speed.
    Column("latency.median_ms", _N, "milliseconds a call, median"),
    Column("latency.p10_ms", _N, "10th percentile"),
    Column("latency.p90_ms", _N, "90th percentile"),
    Column("latency.mean_ms", _N, "mean"),
    Column("latency.num_runs", _I, "calls that were timed"),
    Column("latency.repeat_difference", _N, "between two halves of the runs, as a share of the median"),
    Column("images_per_second", _N, "at this batch size, by the median"),
    Column("first_run_seconds", _N, "the first call: compilation, allocation"),
    Column("stages.preprocess_ms", _N, "resizing and normalising, median"),
    Column("stages.network_ms", _N, "all between preprocessing and post-processing"),
    Column("stages.extractor_ms", _N, "of it: the extractor with its neck"),
    Column("stages.first_stage_ms", _N, "of it: up to the proposals, extractor included; two stages only"),
    Column("stages.second_stage_ms", _N, "of it: from proposals to what is in them; two stages only"),
    Column("stages.masks_ms", _N, "of it: masks of what was detected"),
    Column("stages.postprocess_ms", _N, "decoding and suppression of the final boxes"),
    # Size.
    Column("parameters", _I, "numbers in the weights"),
    Column("multiply_adds", _I, "an image"),
    Column("multiply_adds_by_stage.extractor", _I, "of the extractor with its neck"),
    Column("multiply_adds_by_stage.first_stage", _I, "up to the proposals, extractor included; two stages only"),
    Column("multiply_adds_by_stage.second_stage", _I, "from the proposals on; two stages only"),
    Column("memory.total_mib", _N, "all tensors that a call allocates, MiB"),
    Column("memory.peak_mib", _N, "the most that tensors held at one time in a call, weights included, MiB"),
    Column("memory.process_peak_mib", _N, "peak of a fresh process that serves, the framework included, MiB"),
    # Accuracy.
    Column("mAP", _N, "average precision, IoU .50 to .95"),
    Column("mAP@.50IOU", _N, "at IoU .50"),
    Column("mAP@.75IOU", _N, "at IoU .75"),
    Column("mAP (small)", _N, "objects below 32 x 32 pixels"),
    Column("mAP (medium)", _N, "objects of 32 x 32 to 96 x 96"),
    Column("mAP (large)", _N, "objects above 96 x 96"),
    Column("AR@1", _N, "average recall with 1 detection an image"),
    Column("AR@10", _N, "with 10"),
    Column("AR@100", _N, "with 100"),
    Column("AR@1000", _N, "with 1000, of proposals"),
    Column("AR@1000 (small)", _N, "objects below 32 x 32 pixels"),
    Column("AR@1000 (medium)", _N, "objects of 32 x 32 to 96 x 96"),
    Column("AR@1000 (large)", _N, "objects above 96 x 96"),
    Column("mask AR@10", _N, "of the masks of segmentation proposals"),
    Column("mask AR@100", _N, "with 100"),
    Column("mask AR@1000", _N, "with 1000"),
    Column("mask AR@1000 (small)", _N, "objects below 32 x 32 pixels"),
    Column("mask AR@1000 (medium)", _N, "objects of 32 x 32 to 96 x 96"),
    Column("mask AR@1000 (large)", _N, "objects above 96 x 96"),
    Column("num_eval_images", _I, "images that accuracy was measured on"),
    Column("metrics", _T, "metrics.json, relative to the folder of results.csv"),
    Column("eval_records", _T, "that accuracy was measured on; drawn ones relative to the folder of results.csv"),
    # What was published of this point, as the sweep file says.
    Column(PUBLISHED_SOURCE, _T, "where, e.g. a paper's table"),
    Column(PUBLISHED_CONDITIONS, _T, "of what was published: data set, what all rows have in common"),
    *(Column(published(name), _N, f"published: {name}") for name in PUBLISHED_COLUMNS),
    # Where and when.
    Column("environment.cpu", _T, "processor"),
    Column("environment.gpus", _T, "graphics processors, separated by '; '"),
    Column("environment.cores", _I, "cores that the process could use"),
    Column("environment.versions.tensorflow", _T, "version"),
    Column("environment.versions.detzoo", _T, "version"),
    Column("environment.commit", _T, "git commit of detzoo"),
    Column("yardstick_gflops", _N, "speed of a float32 matrix product just then"),
    Column("load.before", _N, "cores that other programs used just before"),
    Column("load.during", _N, "cores that other programs used meanwhile"),
    Column("load.is_quiet", _F, "both small enough for the times to count"),
    Column("started", _T, "UTC, ISO 8601"),
    Column("seconds", _N, "that the point took, training not included"),
)

NAMES: tuple[str, ...] = tuple(column.name for column in COLUMNS)
