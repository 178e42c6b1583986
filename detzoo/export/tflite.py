"""From a one-stage detector to a file for LiteRT (TensorFlow Lite), checked before it is there.

output_directory/
    model.tflite        or model_dynamic.tflite, model_int8.tflite: one image in, four outputs out
    labels.txt          a class name on each line, from class 0; ??? where an id has no name
    label_map.pbtxt     the same as a label map
    pipeline.config     the resolved configuration
    model.json          (of the same stem) versions, commit, checkpoint, and how closely it follows the detector
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
import time
from typing import Any

import numpy as np

from detzoo.config.label_map import load_label_map
from detzoo.data.resize import to_gray
from detzoo.detectors.one_stage import OneStageDetector
from detzoo.errors import DetzooError, UsageError
from detzoo.export.exporter import CONFIG_FILE, LABEL_MAP_FILE, Export, num_parameters
from detzoo.export.parity import textured_images
from detzoo.export.representative import representative_images
from detzoo.export.tflite_graph import (
    INPUT_DTYPES,
    INT8,
    NONE,
    QUANTIZATIONS,
    convert_network,
    convert_postprocessing,
    operation_attributes,
)
from detzoo.export.tflite_join import complete, join
from detzoo.export.tflite_parity import TfliteReport, check_float, check_postprocessing, check_quantized
from detzoo.folders import make_folder, write_atomically
from detzoo.provenance import commit, versions
from detzoo.serving.served import FIRST_CLASS_ID
from detzoo.serving.tflite_detector import SUFFIX, TfliteDetector

LABELS_FILE = "labels.txt"
UNNAMED = "???"  # what TensorFlow's own label files have at the place of an id without a class
NUM_CHECKED_FLOAT, NUM_CHECKED_QUANTIZED = 4, 24

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TfliteOptions:
    """What the file is like.

    Attributes:
        quantize: "none", "dynamic" (weights of 8 bits) or "int8" (weights and activations).
        input_type: "image_tensor" (uint8) or "float_image_tensor" (float32), RGB, 0..255 both.
        representative_data: records or images, see ``representative.find_files``; "" for none. int8 takes its ranges
            from them, and every check compares on them.
    """

    quantize: str = NONE
    input_type: str = "image_tensor"
    representative_data: str = ""


def export_tflite(
    detector: Any, resizer: Any, output_directory: str | pathlib.Path, options: TfliteOptions, beside: Export
) -> tuple[pathlib.Path, TfliteReport]:
    """Writes the files described above; an earlier file is replaced once the new one has passed its check.

    Args:
        detector: with the weights to export.
        resizer: of the detector's configuration.
        output_directory: created where it does not exist.
        options: what the file is like.
        beside: what goes beside it.

    Returns:
        The file, and how closely it follows the detector.

    Raises:
        UsageError: the options are wrong, or the folder cannot be written.
        DataError: the representative data cannot be read.
        DetzooError: the detector has no form in TFLite, or the file disagrees with it; nothing that was there before
            is changed.
    """
    started = time.monotonic()
    _check(detector, options)
    images = None
    if options.representative_data:
        images = representative_images(options.representative_data, resizer)
        logger.info("representative data: %d images", len(images))
    folder = make_folder(output_directory, "--output_directory")
    gray = bool(getattr(resizer, "convert_to_grayscale", False))
    logger.info("converting the detector to TFLite")
    network, num_folded = convert_network(detector, options.input_type, options.quantize, images, gray)
    attributes = operation_attributes(detector.dense_detections, detector.num_classes)
    postprocessing = complete(convert_postprocessing(detector), attributes)
    logger.info("running it, and comparing with the detector in memory")
    check_postprocessing(detector, postprocessing)
    content = join(network, postprocessing)
    report = check(detector, content, options.quantize, images, gray)
    path = folder / file_name(options.quantize)
    write_atomically(path, content)
    _write_texts(folder, beside, detector.num_classes)
    record = {
        "quantize": options.quantize,
        "input_type": options.input_type,
        "input_shape": [1, *detector.input_shape_px, 3],
        "representative_data": options.representative_data,
        "checkpoint": beside.source,
        "step": beside.step,
        **beside.facts,
        "num_folded_batch_norms": num_folded,
        "parameters": num_parameters(detector),
        "postprocessing": attributes,
        "agreement": report._asdict(),
        "seconds": round(time.monotonic() - started, 2),
        "versions": versions(),
        "commit": commit(),
    }
    write_atomically(path.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())
    if getattr(resizer, "pad_to_max_dimension", False):
        logger.warning("boxes are fractions of the padded input: whoever pads the image divides by its part of it")
    return path, report


def _check(detector: Any, options: TfliteOptions) -> None:
    if not isinstance(detector, OneStageDetector):
        raise UsageError(f"TFLite is written from one-stage detectors (SSD, RetinaNet), not {type(detector).__name__}")
    if options.quantize not in QUANTIZATIONS:
        raise UsageError(f"quantize is {options.quantize!r}; accepted: {', '.join(QUANTIZATIONS)}")
    if options.input_type not in INPUT_DTYPES:
        raise UsageError(f"input_type is {options.input_type!r}; for TFLite: {', '.join(INPUT_DTYPES)}")
    if options.quantize == INT8 and not options.representative_data:
        raise UsageError("int8 needs representative data")
    if detector.static_anchors_norm is None:
        raise UsageError("TFLite needs an input of fixed size: choose an image_resizer that gives one")


def check(
    detector: OneStageDetector, content: bytes, quantize: str, images: np.ndarray | None, convert_to_grayscale: bool
) -> TfliteReport:
    """Runs a TFLite model in the interpreter, against the detector.

    Args:
        detector: in memory.
        content: of the file.
        quantize: how it was made.
        images: uint8 [N, H, W, 3] of the user's data, None for soft blobs.
        convert_to_grayscale: the resizer's.

    Raises:
        DetzooError: it does not run, or detects something else.
    """
    textured = textured_images((NUM_CHECKED_FLOAT // 2, *detector.input_shape_px), seed=1)  # type: ignore[arg-type]
    try:
        runner = TfliteDetector(content)
    except UsageError as problem:
        raise DetzooError(f"the interpreter refuses what the converter made: {problem}") from problem

    def prepare(image: np.ndarray) -> np.ndarray:
        return to_gray(image).numpy() if convert_to_grayscale else image.astype(np.float32)

    if quantize == NONE:
        own = textured if images is None else np.concatenate([textured, images[: NUM_CHECKED_FLOAT // 2]])
        return check_float(detector, prepare, runner.outputs, own)
    return check_quantized(
        detector, prepare, runner.outputs, textured if images is None else images[:NUM_CHECKED_QUANTIZED]
    )


def file_name(quantize: str) -> str:
    """Each quantisation has a file of its own, so that they can be compared."""
    return f"model{SUFFIX}" if quantize == NONE else f"model_{quantize}{SUFFIX}"


def _write_texts(folder: pathlib.Path, beside: Export, num_classes: int) -> None:
    if beside.config_text:
        write_atomically(folder / CONFIG_FILE, beside.config_text)
    if beside.label_map_text:
        write_atomically(folder / LABEL_MAP_FILE, beside.label_map_text)
        names = load_label_map(folder / LABEL_MAP_FILE).display_names
        lines = [names.get(number + FIRST_CLASS_ID, UNNAMED) for number in range(num_classes)]
        write_atomically(folder / LABELS_FILE, "\n".join(lines) + "\n")
