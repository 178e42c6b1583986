"""The files and the table of an evaluation.

metrics.json     metrics by name, then per_class, step, num_images and provenance
detections.json  COCO's results format, pixels of the original images; with masks if these were measured
proposals.npz    class-agnostic proposals, in the format of InputReader.proposals_path
report.html      the page of ``evaluate.analysis``, written by ``tasks.evaluation_report``
groundtruth.json COCO's annotation format, with image/source_id as file name; together with detections.json it
                 suffices for pycocotools and other tools
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detzoo.data.proposals import write_proposals
from detzoo.evaluate.classification import ClassificationResult, format_classification, write_classification
from detzoo.evaluate.coco import MASK_PREFIX, NOTHING_MEASURED, coco_detections, coco_groundtruth
from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.runner import EvaluationResult
from detzoo.folders import METRICS_FILE, PROPOSALS_FILE, write_atomically

DETECTIONS_FILE = "detections.json"
GROUNDTRUTH_FILE = "groundtruth.json"
PER_CLASS_COLUMNS = (
    "AP",
    "AP@.50IOU",
    "mask AP",
    "mask AP@.50IOU",
    "VOC mAP@.50IOU",
    "VOC2007 mAP@.50IOU",
    "OpenImages mAP@.50IOU",
    "OpenImagesChallenge mAP@.50IOU",
    "objects",
)

_DESCRIPTIONS = {
    "mAP": "average precision, IoU .50 to .95",
    "mAP@.50IOU": "at IoU .50",
    "mAP@.75IOU": "at IoU .75",
    "mAP (small)": "objects below 32 x 32 pixels",
    "mAP (medium)": "objects of 32 x 32 to 96 x 96",
    "mAP (large)": "objects above 96 x 96",
    "AR@1": "average recall with 1 detection per image",
    "AR@10": "with 10",
    "AR@100": "with 100",
    "AR@100 (small)": "objects below 32 x 32 pixels",
    "AR@100 (medium)": "objects of 32 x 32 to 96 x 96",
    "AR@100 (large)": "objects above 96 x 96",
    "VOC mAP@.50IOU": "Pascal VOC, area under the curve",
    "VOC2007 mAP@.50IOU": "Pascal VOC 2007, eleven points",
    "OpenImages mAP@.50IOU": "Open Images V2: detections in a group do not count",
    "OpenImagesChallenge mAP@.50IOU": "Open Images Challenge 2018: a group is an object, verified classes only",
}
_PROPOSAL_DESCRIPTIONS = {
    "AR@10": "average recall of all classes' objects with 10 proposals per image, IoU .50 to .95",
    "AR@100": "with 100",
    "AR@1000": "with 1000",
    "AR@1000 (small)": "objects below 32 x 32 pixels",
    "AR@1000 (medium)": "objects of 32 x 32 to 96 x 96",
    "AR@1000 (large)": "objects above 96 x 96",
}


def write_results(
    result: EvaluationResult | ClassificationResult, folder: str | pathlib.Path, facts: Mapping[str, Any]
) -> None:
    """Writes the files; ``facts`` (checkpoint, step, versions) are added to metrics.json.

    metrics.json is written last and atomically, so readers never see metrics of an incomplete evaluation.
    """
    if isinstance(result, ClassificationResult):
        write_classification(result, folder, facts)
        return
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / DETECTIONS_FILE).open("w", encoding="utf-8") as file:
        separator = "["
        for entry in coco_detections(result.images):  # one by one, because COCO has millions of proposals
            file.write(f"{separator}{json.dumps(entry)}")
            separator = ", "
        file.write("]" if separator != "[" else "[]")
    truth = coco_groundtruth(result.images, result.class_names)
    (folder / GROUNDTRUTH_FILE).write_text(json.dumps(truth), encoding="utf-8")
    if result.proposes_only:
        write_proposals_of(result.images, folder / PROPOSALS_FILE)
    numbers = {
        **result.metrics,
        "per_class": result.per_class,
        "num_images": len(result.images),
        "seconds": round(result.seconds, 2),
        **facts,
    }
    write_atomically(folder / METRICS_FILE, json.dumps(numbers, indent=2) + "\n")


def write_proposals_of(images: Sequence[EvaluatedImage], file: str | pathlib.Path) -> None:
    """Writes the detections of a first stage alone in the format of ``InputReader.proposals_path``."""
    boxes_norm = [image.boxes_px / np.array([*image.shape, *image.shape], np.float32) for image in images]
    write_proposals(file, [image.image_id for image in images], boxes_norm, [image.scores for image in images])


def format_table(result: EvaluationResult | ClassificationResult) -> str:
    """Formats the metrics with descriptions, then those of each class; "-" if there was nothing to measure."""
    if isinstance(result, ClassificationResult):
        return format_classification(result)
    width = max(len(name) for name in result.metrics)
    lines = [
        f"{name:<{width}}  {_number(value)}  {describe(name, result.proposes_only)}"
        for name, value in result.metrics.items()
    ]
    columns = [c for c in PER_CLASS_COLUMNS if any(c in values for values in result.per_class.values())]
    if columns:
        names = {name: _shortened(name) for name in result.per_class}
        width = max(len("class"), *(len(name) for name in names.values()))
        lines += ["", "  ".join([f"{'class':<{width}}", *(f"{column:>6}" for column in columns)])]
        for name, values in result.per_class.items():
            cells = [_cell(values.get(column), column) for column in columns]
            lines.append("  ".join([f"{names[name]:<{width}}", *cells]))
    return "\n".join(line.rstrip() for line in lines)


def describe(name: str, proposes_only: bool = False) -> str:
    """Returns the explanation of a metric; "" for an unknown one."""
    descriptions = _PROPOSAL_DESCRIPTIONS if proposes_only else _DESCRIPTIONS
    if name.startswith(MASK_PREFIX):
        return f"by masks: {descriptions.get(name.removeprefix(MASK_PREFIX), '')}"
    return descriptions.get(name, "")


def _number(value: float) -> str:
    return "     -" if value == NOTHING_MEASURED else f"{value:6.3f}"


def _cell(value: float | None, column: str) -> str:
    width = max(6, len(column))
    if value is None or value == NOTHING_MEASURED:
        return f"{'-':>{width}}"
    return f"{value:>{width}d}" if column == "objects" else f"{value:>{width}.3f}"


def _shortened(name: str, longest: int = 40) -> str:
    return name if len(name) <= longest else name[: longest - 3] + "..."
