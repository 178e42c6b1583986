"""Exports a detector to a folder in the Object Detection API's layout.

output_directory/
    saved_model/        for serving: a graph without variables of layers, batch normalisation folded
    frozen_inference_graph.pb  with ``tf1_names``: the same graph for clients of TensorFlow 1
    checkpoint/ckpt-0   the weights, as `detzoo train` stores them, without an optimizer
    pipeline.config     the resolved configuration
    label_map.pbtxt     class names, if they are known
    keypoint_label_map.pbtxt    names of the keypoints, if the config names such a file
    export.json         versions, commit, checkpoint, and the differences between SavedModel and detector
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from detzoo.checkpoints.files import EXPORTED_FOLDER
from detzoo.checkpoints.layout import save_weights, variables_by_path
from detzoo.errors import DetzooError
from detzoo.export.freeze import freeze
from detzoo.export.parity import ParityReport, check_parity, example_input, reference_outputs
from detzoo.export.saved_model import write_saved_model
from detzoo.export.tensorflow1 import write_tensorflow1
from detzoo.export.winograd import use_winograd
from detzoo.folders import (
    CONFIG_FILE,
    EXPORT_RECORD,
    FROZEN_GRAPH_FILE,
    KEYPOINT_LABEL_MAP_FILE,
    LABEL_MAP_FILE,
    make_folder,
)
from detzoo.ops.graph_form import GraphForm, tracing_for
from detzoo.provenance import commit, versions
from detzoo.serving.frozen import FrozenGraph
from detzoo.serving.saved_detector import SavedDetector
from detzoo.serving.served import ServingModule

SAVED_MODEL_FOLDER = "saved_model"
CHECKPOINT_FOLDER = EXPORTED_FOLDER

CPU = "cpu"
EXAMPLE_SHAPE = (1, 480, 640)  # batch, height and width of a typical image to serve

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Export:
    """Settings of an export and contents of the files next to the model."""

    config_text: str = ""  # the resolved pipeline.config
    label_map_text: str = ""  # class names as a label map, "" if they are unknown
    source: str = ""  # the checkpoint's path as the user gave it
    step: int = 0  # training steps of the checkpoint
    form: GraphForm = GraphForm.TENSORFLOW  # runtimes that the graph of the SavedModel is traced for
    optimize_for: str = CPU  # "cpu" rewrites large 3 x 3 convolutions, see ``detzoo.export.winograd``; "gpu" does not
    # Compare the SavedModel's detections with the detector's. For random weights, whose detections have no meaning, it
    # would take longer than the export.
    compares: bool = True
    tf1_names: bool = False  # names and files of TensorFlow 1, see ``detzoo.export.tensorflow1``
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # further entries of the record
    keypoint_label_map_text: str = ""

    def files(self) -> dict[str, str]:
        """Returns the text of each file next to the model by its name."""
        texts = {
            CONFIG_FILE: self.config_text,
            LABEL_MAP_FILE: self.label_map_text,
            KEYPOINT_LABEL_MAP_FILE: self.keypoint_label_map_text,
        }
        return {name: text for name, text in texts.items() if text}


def export_detector(
    detector: Any, resizer: Any, output_directory: str | pathlib.Path, input_type: str, beside: Export
) -> ParityReport | None:
    """Writes the folder described above; an earlier export in it is replaced once the new one has passed its check.

    Returns:
        The differences between SavedModel and detector; None if they are not compared.

    Raises:
        UsageError: The folder cannot be written.
        DetzooError: A weight is not finite, or the SavedModel disagrees with the detector; an earlier export is kept.
    """
    started = time.monotonic()
    check_finite(detector)
    serving = ServingModule(detector, resizer, input_type)
    folder = make_folder(output_directory, "--output_directory")
    draft = folder / f".export.{os.getpid()}"
    try:
        logger.info("tracing and freezing the detector")
        with tracing_for(beside.form):
            frozen, num_folded = freeze(ServingModule(detector, resizer, input_type).concrete_function())
        then = "comparing with the detector in memory" if beside.compares else "writing the SavedModel"
        logger.info("folded %d batch normalisations; %s", num_folded, then)
        report, num_winograd = _write_checked(frozen, serving, input_type, draft / SAVED_MODEL_FOLDER, beside)
        save_weights(detector, draft / CHECKPOINT_FOLDER, beside.step)
        record = {
            "input_type": input_type,
            **common_record(detector, beside, started),
            "num_folded_batch_norms": num_folded,
            "optimized_for": beside.optimize_for,
            "graph_form": beside.form.value,
            "tf1_names": beside.tf1_names,
            "num_winograd_convolutions": num_winograd,
            "parity": report._asdict() if report else None,
        }
        for name, text in {**beside.files(), EXPORT_RECORD: json.dumps(record, indent=2) + "\n"}.items():
            (draft / name).write_text(text, encoding="utf-8")
        _replace(folder, draft)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report


def _replace(folder: pathlib.Path, draft: pathlib.Path) -> None:
    """Moves the parts of a finished export into place and removes those of an earlier one."""
    files = (FROZEN_GRAPH_FILE, CONFIG_FILE, LABEL_MAP_FILE, KEYPOINT_LABEL_MAP_FILE, EXPORT_RECORD)
    for name in (SAVED_MODEL_FOLDER, CHECKPOINT_FOLDER, *files):
        earlier = folder / name
        if earlier.is_dir():
            shutil.rmtree(earlier)
        else:
            earlier.unlink(missing_ok=True)
        if (draft / name).exists():
            (draft / name).rename(earlier)


def check_finite(detector: Any) -> None:
    """Checks the weights, because activations may hide a weight that is not finite from the outputs."""
    for path, variable in variables_by_path(detector.variables).items():
        if variable.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(variable))):
            raise DetzooError(f"the weights {path} are not finite: they diverged in training; export an earlier step")


def _write_checked(
    frozen: FrozenGraph, serving: ServingModule, input_type: str, folder: pathlib.Path, beside: Export
) -> tuple[ParityReport | None, int]:
    """Writes the SavedModel, a second time without rewritten convolutions if these cost too much precision.

    Returns:
        The differences to the detector, and the number of rewritten convolutions.
    """
    references = reference_outputs(serving, input_type) if beside.compares else []
    chooses_regions = serving.detector.chooses_regions

    def write(graph: FrozenGraph) -> ParityReport | None:
        if beside.tf1_names:
            write_tensorflow1(graph, serving.input_specs, input_type, folder)
        else:
            write_saved_model(graph, serving.input_specs, folder)
        if not references:
            return None
        detector = SavedDetector(folder.parent / FROZEN_GRAPH_FILE if beside.tf1_names else folder, needs_boxes=False)
        return check_parity(references, detector.outputs, chooses_regions)

    if beside.optimize_for == CPU and beside.form is GraphForm.TENSORFLOW:
        example = example_input(serving, input_type, EXAMPLE_SHAPE)
        rewritten, num_rewritten = use_winograd(frozen, example, chooses_regions)
        if num_rewritten:
            try:
                return write(rewritten), num_rewritten
            except DetzooError as problem:
                logger.warning("%s with faster convolutions, so these are not used", problem)
                shutil.rmtree(folder)
    return write(frozen), 0


def common_record(detector: Any, beside: Export, started: float) -> dict[str, Any]:
    """Returns the entries that the records of all formats have; ``started`` is the time.monotonic() of the start."""
    return {
        "checkpoint": beside.source,
        "step": beside.step,
        **beside.facts,
        "parameters": num_parameters(detector),
        "seconds": round(time.monotonic() - started, 2),
        "versions": versions(),
        "commit": commit(),
    }


def num_parameters(detector: Any) -> int:
    """Counts numbers in the detector's variables, including moving statistics, as papers do, but no seeds."""
    return sum(int(variable.shape.num_elements()) for variable in variables_by_path(detector.variables).values())
