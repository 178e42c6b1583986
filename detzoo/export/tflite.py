"""Exports a one-stage detector to LiteRT (TensorFlow Lite); the file is checked before it is written.

output_directory/
    model.tflite        or model_float16.tflite, model_dynamic.tflite, model_int8.tflite: one image in, four outputs
    labels.txt          one class name per line, from class 0; ??? for an id without a name
    label_map.pbtxt     the same as a label map
    pipeline.config     the resolved configuration
    model.json          (same stem as the model) versions, commit, checkpoint, and differences to the detector
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
import time
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.config.label_map import UNNAMED, parse_label_map
from detzoo.data.resize import to_gray
from detzoo.detectors.center_net import CenterNet
from detzoo.detectors.one_stage import OneStageDetector
from detzoo.errors import DetzooError, UsageError
from detzoo.export.exporter import Export, num_parameters
from detzoo.export.parity import textured_images
from detzoo.export.representative import representative_images
from detzoo.export.tflite_graph import (
    INPUT_DTYPES,
    INT8,
    NONE,
    QUANTIZATIONS,
    attach,
    convert_center_net,
    convert_network,
    convert_postprocessing,
    join,
)
from detzoo.export.tflite_metadata import add_labels, metadata
from detzoo.export.tflite_parity import TfliteReport, check_float, check_postprocessing, check_quantized
from detzoo.folders import LABEL_MAP_FILE, make_folder, write_atomically
from detzoo.provenance import commit, versions
from detzoo.serving.image_detector import FIRST_CLASS_ID
from detzoo.serving.tflite_detector import SUFFIX, TfliteDetector

LABELS_FILE = "labels.txt"
NUM_CHECKED_FLOAT, NUM_CHECKED_QUANTIZED = 4, 24

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TfliteOptions:
    """Settings of the file."""

    # or "float16" (weights of 16 bits), "dynamic" (weights of 8 bits) or "int8" (weights and activations)
    quantize: str = NONE
    input_type: str = "image_tensor"  # uint8, or "float_image_tensor" for float32; RGB, 0..255 for both
    # Records or images, see ``representative.find_files``; "" for none. int8 takes its ranges from them, and every
    # check uses them.
    representative_data: str = ""


def export_tflite(
    detector: Any, resizer: Any, output_directory: str | pathlib.Path, options: TfliteOptions, beside: Export
) -> tuple[pathlib.Path, TfliteReport | None]:
    """Writes the files described above; an earlier file is replaced once the new one has passed its check.

    Returns:
        The file, and the differences to the detector; None if they are not compared.

    Raises:
        UsageError: The options are wrong, or the folder cannot be written.
        DataError: The representative data cannot be read.
        DetzooError: TFLite cannot express the detector, or the file disagrees with it; earlier files are kept.
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
    postprocessing, limits = b"", {}
    if isinstance(detector, CenterNet):
        content, num_folded = convert_center_net(detector, options.input_type, options.quantize, images, gray)
        for name, is_lost in (("masks", detector.learns_masks), ("keypoints", detector.has_keypoints)):
            if is_lost:
                logger.warning("the file has no %s: TFLite models have boxes, classes, scores and a count", name)
    else:
        network, num_folded = convert_network(detector, options.input_type, options.quantize, images, gray)
        postprocessing, limits = convert_postprocessing(detector), dataclasses.asdict(detector.dense_detections.limits)
        content = join(network, postprocessing)
    labels = _labels(beside, detector.num_classes)
    has_byte_input = INPUT_DTYPES[options.input_type] == tf.uint8
    about = metadata(f"{detector.name} of detzoo", has_byte_input, LABELS_FILE if labels else "")
    content = attach(content, about)
    content = add_labels(content, LABELS_FILE, labels) if labels else content
    report = None
    if beside.compares:
        logger.info("running it, and comparing with the detector in memory")
        if postprocessing:
            check_postprocessing(detector, postprocessing)
        report = _compare(detector, content, options.quantize, images, gray)
    path = folder / file_name(options.quantize)
    write_atomically(path, content)
    for name, text in {**beside.files(), **({LABELS_FILE: labels} if labels else {})}.items():
        write_atomically(folder / name, text)
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
        "postprocessing": limits,
        "agreement": report._asdict() if report else None,
        "seconds": round(time.monotonic() - started, 2),
        "versions": versions(),
        "commit": commit(),
    }
    write_atomically(path.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())
    if getattr(resizer, "pad_to_max_dimension", False):
        logger.warning("boxes are fractions of the padded input; divide them by the share of it that the image covers")
    return path, report


def _check(detector: Any, options: TfliteOptions) -> None:
    if not isinstance(detector, OneStageDetector | CenterNet):
        raise UsageError(f"TFLite is written from one-stage detectors (SSD, RetinaNet), not {type(detector).__name__}")
    if options.quantize not in QUANTIZATIONS:
        raise UsageError(f"quantize is {options.quantize!r}; accepted: {', '.join(QUANTIZATIONS)}")
    if options.input_type not in INPUT_DTYPES:
        raise UsageError(f"input_type is {options.input_type!r}; for TFLite: {', '.join(INPUT_DTYPES)}")
    if options.quantize == INT8 and not options.representative_data:
        raise UsageError("int8 needs representative data")
    if None in detector.input_shape_px:
        raise UsageError("TFLite needs an input of fixed size: choose an image_resizer that gives one")


def _compare(
    detector: OneStageDetector, content: bytes, quantize: str, images: np.ndarray | None, convert_to_grayscale: bool
) -> TfliteReport:
    """Compares the content of a TFLite file in the interpreter with the detector.

    Images are uint8 [N, H, W, 3] of the user's data, None for soft blobs.

    Raises:
        DetzooError: The model does not run, or its detections differ.
    """
    textured = textured_images((NUM_CHECKED_FLOAT // 2, *detector.input_shape_px), seed=1)  # type: ignore[arg-type]
    try:
        runner = TfliteDetector(content)
    except UsageError as problem:
        raise DetzooError(f"the interpreter refuses the converted model: {problem}") from problem

    def prepare(image: np.ndarray) -> np.ndarray:
        return to_gray(image).numpy() if convert_to_grayscale else image.astype(np.float32)

    if quantize == NONE:
        own = textured if images is None else np.concatenate([textured, images[: NUM_CHECKED_FLOAT // 2]])
        return check_float(detector, prepare, runner.outputs, own)
    own = textured if images is None else images[:NUM_CHECKED_QUANTIZED]
    return check_quantized(detector, prepare, runner.outputs, own)


def file_name(quantize: str) -> str:
    """Returns the name of the file, which differs between quantisations."""
    return f"model{SUFFIX}" if quantize == NONE else f"model_{quantize}{SUFFIX}"


def _labels(beside: Export, num_classes: int) -> str:
    """Returns the class names, one per line, "" if they are unknown."""
    if not beside.label_map_text:
        return ""
    names = parse_label_map(beside.label_map_text, LABEL_MAP_FILE).display_names
    return "".join(names.get(number + FIRST_CLASS_ID, UNNAMED) + "\n" for number in range(num_classes))
