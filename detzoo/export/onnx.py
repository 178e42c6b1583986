"""Exports a detector to ONNX; the file is checked in ONNX Runtime before it is written.

output_directory/
    model.onnx          from images uint8 [N, H, W, 3] of any size to detections; class names and config are inside
    label_map.pbtxt     class names, if they are known
    pipeline.config     the resolved configuration
    model.json          versions, commit, checkpoint, and differences to the detector
"""

from __future__ import annotations

import json
import logging
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detzoo.errors import DetzooError, UsageError
from detzoo.export.exporter import CPU, EXAMPLE_SHAPE, Export, check_finite, common_record
from detzoo.export.freeze import freeze
from detzoo.export.onnx_graph import OPSET, convert, keep_outputs, set_metadata
from detzoo.export.parity import ABSOLUTE_TOLERANCE, Reference, check_parity, example_input, reference_outputs
from detzoo.export.winograd import use_winograd
from detzoo.folders import make_folder, write_atomically
from detzoo.ops.graph_form import GraphForm, tracing_for
from detzoo.serving.frozen import FrozenGraph
from detzoo.serving.image_detector import OPTIONAL_OUTPUTS
from detzoo.serving.onnx_detector import OUTPUTS, SUFFIX, OnnxDetector
from detzoo.serving.served import ServingModule

MODEL_FILE = f"model{SUFFIX}"
# Of the detections; ties may be decided differently. Proposals that differ by less than the rounding may replace each
# other, so a detector of two stages may have a few others.
MIN_SAME, MIN_SAME_OF_REGIONS = 0.98, 0.9

logger = logging.getLogger(__name__)


class OnnxReport(NamedTuple):
    """The differences between an ONNX model and its detector.

    The first two are the largest differences of boxes (in fractions of the input) and of scores, over all anchors. Of
    the detector's ``num_detections`` on ``num_images`` images the share ``same`` is found by both.
    """

    max_box_difference: float
    max_score_difference: float
    num_images: int
    num_detections: int
    same: float

    def sentence(self) -> str:
        """Describes the differences for the user."""
        found = f"{self.same:.1%} of {self.num_detections} detections" if self.num_detections else "no detections"
        return (
            f"agrees with the detector in memory on {self.num_images} images: boxes within "
            f"{self.max_box_difference:.1e}, scores within {self.max_score_difference:.1e}, {found} in both"
        )


def export_onnx(
    detector: Any, resizer: Any, output_directory: str | pathlib.Path, input_type: str, beside: Export
) -> tuple[pathlib.Path, OnnxReport | None]:
    """Writes the files described above; an earlier file is replaced once the new one has passed its check.

    Returns:
        The file, and the differences to the detector; None if they are not compared.

    Raises:
        UsageError: The folder cannot be written.
        DetzooError: ONNX cannot express the detector, or the file disagrees with it; earlier files are kept.
    """
    started = time.monotonic()
    check_finite(detector)
    folder = make_folder(output_directory, "--output_directory")
    logger.info("converting the detector to ONNX")
    serving = ServingModule(detector, resizer, input_type)
    with tracing_for(GraphForm.ONNX):
        frozen, num_folded = freeze(serving.concrete_function())
    texts = beside.files()
    metadata = {**texts, "checkpoint": beside.source, "step": str(beside.step)}
    references: list[Reference] = []
    if beside.compares:
        references = reference_outputs(ServingModule(detector, resizer, input_type), input_type)
    num_winograd, rewritten = 0, frozen
    if beside.optimize_for == CPU:
        example = example_input(serving, input_type, EXAMPLE_SHAPE)
        rewritten, num_winograd = use_winograd(frozen, example, detector.chooses_regions)
    try:
        content, report = _convert_checked(rewritten, metadata, references, detector.chooses_regions)
    except DetzooError as problem:
        if not num_winograd:
            raise
        logger.warning("%s with faster convolutions, so these are not used", problem)
        num_winograd = 0
        content, report = _convert_checked(frozen, metadata, references, detector.chooses_regions)
    path = folder / MODEL_FILE
    write_atomically(path, content)
    for name, text in texts.items():
        write_atomically(folder / name, text)
    record = {
        "input_type": input_type,
        "opset": OPSET,
        **common_record(detector, beside, started),
        "num_folded_batch_norms": num_folded,
        "optimized_for": beside.optimize_for,
        "num_winograd_convolutions": num_winograd,
        "agreement": report._asdict() if report else None,
    }
    write_atomically(path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
    return path, report


def _convert_checked(
    frozen: FrozenGraph, metadata: Mapping[str, str], references: Sequence[Reference], chooses_regions: bool
) -> tuple[bytes, OnnxReport | None]:
    """Returns the content of the file, and its differences to the references, None if there are none."""
    whole = convert(frozen)
    model = keep_outputs(whole, [name for name in (*OUTPUTS, *OPTIONAL_OUTPUTS) if name in frozen.output_names])
    set_metadata(model, metadata)
    content = model.SerializeToString()
    if not references:
        return content, None
    logger.info("running the file, and comparing with the detector in memory")
    return content, _compare(references, whole.SerializeToString(), content, chooses_regions)


def _compare(references: Sequence[Reference], whole: bytes, content: bytes, chooses_regions: bool) -> OnnxReport:
    """Compares boxes and scores of every anchor, from the ``whole`` model, and the detections of the file's content.

    Raises:
        DetzooError: A model does not run, or its results differ.
    """
    try:
        raw, file = OnnxDetector(whole), OnnxDetector(content)
        differences = check_parity(
            references, lambda images: raw.outputs(np.asarray(images)), chooses_regions, "the ONNX model"
        )
        num_detections, num_same = 0, 0
        for what, given, expected in references:
            found = file.outputs(np.asarray(given))
            if not all(np.all(np.isfinite(values)) for values in found.values()):
                raise DetzooError(f"the ONNX model's detections are not finite on {what}")
            of_both = [_num_same(expected, found, image) for image in range(len(found[OUTPUTS[0]]))]
            counts = np.maximum(expected["num_detections"], found["num_detections"])
            num_same, num_detections = num_same + sum(of_both), num_detections + int(counts.sum())
    except (UsageError, ValueError) as problem:
        raise DetzooError(f"ONNX Runtime does not run the converted model: {problem}") from problem
    same = num_same / num_detections if num_detections else 1.0
    if same < (MIN_SAME_OF_REGIONS if chooses_regions else MIN_SAME):
        raise DetzooError(f"{1 - same:.0%} of the ONNX model's {num_detections} detections differ from the detector's")
    return OnnxReport(*differences, sum(len(each.expected[OUTPUTS[0]]) for each in references), num_detections, same)


def _num_same(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], image: int) -> int:
    """Counts the detections of an image that have an equal in class, score, box (and mask) among the detector's."""
    rows, columns = (int(each["num_detections"][image]) for each in (found, expected))
    is_same = np.ones([rows, columns], bool)
    for name in set(found) - {"num_detections"}:
        ours, theirs = (
            each[name][image, :count].reshape([count, -1]) for each, count in ((found, rows), (expected, columns))
        )
        difference = np.abs(ours[:, np.newaxis] - theirs).max(axis=-1, initial=0.0)
        is_same &= difference <= 2 * ABSOLUTE_TOLERANCE
    return int(is_same.any(axis=1).sum())
