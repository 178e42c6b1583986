"""Columns of results.csv, which a sweep writes and its report reads.

A dotted column is a value of ``detzoo benchmark``'s JSON object under the same path. Accuracies have the names of
metrics.json. A value that was not measured is an empty cell, never 0.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Kind(enum.Enum):
    """Type of a column's cells, in the words of a message."""

    TEXT = "text"
    INTEGER = "a whole number"
    NUMBER = "a number"
    FLAG = "true or false"


class Status(enum.Enum):
    """Outcome of a point."""

    OK = "ok"
    FAILED = "failed"  # ``reason`` has the cause; columns that were measured before are kept
    SKIPPED = "skipped"  # the runtime is not installed, or does not support the detector; ``reason`` says which


class Column(NamedTuple):
    """One column."""

    name: str
    kind: Kind
    meaning: str  # with its unit


LATENCY = "latency.median_ms"
HARDWARE = ("environment.cpu", "environment.gpus", "environment.cores")  # rows that differ in it do not compare
PUBLISHED_SOURCE, PUBLISHED_CONDITIONS = "published.source", "published.conditions"
_T, _I, _N, _F = Kind.TEXT, Kind.INTEGER, Kind.NUMBER, Kind.FLAG


def _by_size(metric: str) -> dict[str, str]:
    sizes = {"small": "below 32 x 32 pixels", "medium": "of 32 x 32 to 96 x 96", "large": "above 96 x 96"}
    return {f"{metric} ({size})": f"objects {words}" for size, words in sizes.items()}


_ACCURACIES = {
    "mAP": "average precision, IoU .50 to .95",
    "mAP@.50IOU": "at IoU .50",
    "mAP@.75IOU": "at IoU .75",
    **_by_size("mAP"),
    "AR@1": "average recall with 1 detection per image",
    "AR@10": "with 10",
    "AR@100": "with 100",
    "AR@1000": "with 1000, of proposals",
    **_by_size("AR@1000"),
    "mask AR@10": "of the masks of segmentation proposals",
    "mask AR@100": "with 100",
    "mask AR@1000": "with 1000",
    **_by_size("mask AR@1000"),
}
ACCURACIES = tuple(_ACCURACIES)
# A sweep file may give published values of these.
PUBLISHED_COLUMNS = (*(name for name in ACCURACIES if name != "AR@1"), LATENCY)


def published(name: str) -> str:
    """Returns the column of the published value that belongs to a measured column."""
    return f"published.{name}"


COLUMNS: tuple[Column, ...] = (
    # The point.
    Column("key", _T, "fingerprint of the resolved config and of how it is measured"),
    Column("name", _T, "short name of the point, unique in its sweep"),
    Column("status", _T, "ok, failed or skipped"),
    Column("reason", _T, "cause of a failure or of a missing accuracy"),
    Column("meta_architecture", _T, "ssd, faster_rcnn, rfcn, ..."),
    Column("extractor", _T, "mobilenet_v1, resnet101, ..."),
    Column("output_stride", _I, "of the extractor, pixels; of SSD and of a two-stage detector"),
    Column("resolution", _I, "shorter side of the input, pixels"),
    Column("proposals", _I, "of a two-stage detector, per image"),
    Column("axes", _T, "JSON object: path -> value of the other axes"),
    Column("config", _T, "resolved pipeline.config, relative to the folder of results.csv"),
    Column("checkpoint", _T, "checkpoint that was measured; empty for random weights"),
    Column("command", _T, "shell command that measures this point again"),
    # The measurement.
    Column("runtime", _T, "tensorflow, onnxruntime, litert or openvino"),
    Column("device", _T, "CPU or GPU"),
    Column("precision", _T, "float32, bfloat16 or float16"),
    Column("jit_compile", _F, "compiled by XLA"),
    Column("batch_size", _I, "images per call"),
    # Speed.
    Column("latency.median_ms", _N, "milliseconds per call, median"),
    Column("latency.p10_ms", _N, "10th percentile"),
    Column("latency.p90_ms", _N, "90th percentile"),
    Column("latency.mean_ms", _N, "mean"),
    Column("latency.num_runs", _I, "calls that were timed"),
    Column("latency.repeat_difference", _N, "between two halves of the runs, as a share of the median"),
    Column("images_per_second", _N, "at this batch size, by the median"),
    Column("first_run_seconds", _N, "the first call: compilation, allocation"),
    Column("stages.preprocess_ms", _N, "resizing and normalising, median"),
    Column("stages.network_ms", _N, "everything between preprocessing and post-processing"),
    Column("stages.extractor_ms", _N, "of it: the extractor with its neck"),
    Column("stages.first_stage_ms", _N, "of it: up to the proposals, extractor included; two stages only"),
    Column("stages.second_stage_ms", _N, "of it: from proposals to their classes and boxes; two stages only"),
    Column("stages.masks_ms", _N, "of it: masks of the detections"),
    Column("stages.postprocess_ms", _N, "decoding and suppression of the final boxes"),
    # Size.
    Column("parameters", _I, "number of weights"),
    Column("multiply_adds", _I, "per image"),
    Column("multiply_adds_by_stage.extractor", _I, "of the extractor with its neck"),
    Column("multiply_adds_by_stage.first_stage", _I, "up to the proposals, extractor included; two stages only"),
    Column("multiply_adds_by_stage.second_stage", _I, "from the proposals on; two stages only"),
    Column("memory.total_mib", _N, "all tensors that a call allocates, MiB"),
    Column("memory.peak_mib", _N, "peak of the tensors during a call, weights included, MiB"),
    Column("memory.process_peak_mib", _N, "peak of a fresh process that serves, the framework included, MiB"),
    # Accuracy.
    *(Column(name, _N, meaning) for name, meaning in _ACCURACIES.items()),
    Column("num_eval_images", _I, "images that accuracy was measured on"),
    Column("metrics", _T, "metrics.json, relative to the folder of results.csv"),
    Column("eval_records", _T, "records of the accuracy; drawn ones relative to the folder of results.csv"),
    # Published values of this point, from the sweep file.
    Column(PUBLISHED_SOURCE, _T, "source of the published values, e.g. a table of a paper"),
    Column(PUBLISHED_CONDITIONS, _T, "conditions that all published values share, e.g. the data set"),
    *(Column(published(name), _N, f"published: {name}") for name in PUBLISHED_COLUMNS),
    # Machine, versions and time.
    Column("environment.cpu", _T, "processor"),
    Column("environment.gpus", _T, "graphics processors, separated by '; '"),
    Column("environment.cores", _I, "cores that the process could use"),
    Column("environment.versions.tensorflow", _T, "version"),
    Column("environment.versions.detzoo", _T, "version"),
    Column("environment.commit", _T, "git commit of detzoo"),
    Column("yardstick_gflops", _N, "speed of a float32 matrix product at that time"),
    Column("load.before", _N, "cores that other programs used just before"),
    Column("load.during", _N, "cores that other programs used meanwhile"),
    Column("load.is_quiet", _F, "both small enough for the times to count"),
    Column("started", _T, "UTC, ISO 8601"),
    Column("seconds", _N, "duration of the point, without training"),
)

NAMES: tuple[str, ...] = tuple(column.name for column in COLUMNS)
# Columns that files of earlier versions lack, and the values that their rows have.
ADDED = {"runtime": "tensorflow"}
EARLIER_NAMES = tuple(name for name in NAMES if name not in ADDED)
