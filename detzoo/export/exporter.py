"""From a detector to a folder in the Object Detection API's layout.

output_directory/
    saved_model/        what serves: a graph without variables of layers, batch normalisation folded
    checkpoint/ckpt-0   the weights, as `detzoo train` stores them, without an optimizer
    pipeline.config     the resolved configuration
    label_map.pbtxt     class names, where they are known
    export.json         versions, commit, checkpoint, and how closely the SavedModel follows the detector
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import shutil
import time
from typing import Any

import tensorflow as tf

from detzoo.checkpoints.layout import make_checkpoint, variables_by_path
from detzoo.detectors.serving import ServingModule
from detzoo.export.freeze import freeze
from detzoo.export.parity import ParityReport, check_parity
from detzoo.export.saved_model import write_saved_model
from detzoo.folders import make_folder
from detzoo.provenance import commit, versions

SAVED_MODEL_FOLDER = "saved_model"
CHECKPOINT_FOLDER = "checkpoint"
CONFIG_FILE = "pipeline.config"
LABEL_MAP_FILE = "label_map.pbtxt"
RECORD_FILE = "export.json"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Export:
    """What is written beside the SavedModel.

    Attributes:
        config_text: the resolved pipeline.config.
        label_map_text: class names as a label map, "" where they are unknown.
        source: the checkpoint's path as the user named it.
        step: training steps of the checkpoint.
    """

    config_text: str = ""
    label_map_text: str = ""
    source: str = ""
    step: int = 0


def export_detector(
    detector: Any, resizer: Any, output_directory: str | pathlib.Path, input_type: str, beside: Export
) -> ParityReport:
    """Writes the folder described above; an earlier export in it is replaced once the new one has passed its check.

    Args:
        detector: with the weights to export.
        resizer: of the detector's configuration.
        output_directory: created where it does not exist.
        input_type: a key of ``serving.INPUT_SPECS``.
        beside: what goes beside the SavedModel.

    Returns:
        How closely the SavedModel follows the detector.

    Raises:
        UsageError: the folder cannot be written.
        DetzooError: the SavedModel disagrees with the detector; nothing that was there before is changed.
    """
    started = time.monotonic()
    serving = ServingModule(detector, resizer, input_type)
    folder = make_folder(output_directory, "--output_directory")
    draft = folder / f".{SAVED_MODEL_FOLDER}.{os.getpid()}"
    try:
        logger.info("tracing and freezing the detector")
        frozen, num_folded = freeze(serving.concrete_function())
        write_saved_model(frozen, serving.input_spec, draft)
        logger.info("folded %d batch normalisations; comparing with the detector in memory", num_folded)
        report = check_parity(serving, tf.saved_model.load(str(draft)), input_type)
        shutil.rmtree(folder / SAVED_MODEL_FOLDER, ignore_errors=True)
        draft.rename(folder / SAVED_MODEL_FOLDER)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _write_checkpoint(detector, folder / CHECKPOINT_FOLDER, beside.step)
    _write_texts(folder, beside)
    record = {
        "input_type": input_type,
        "checkpoint": beside.source,
        "step": beside.step,
        "num_folded_batch_norms": num_folded,
        "parameters": num_parameters(detector),
        "parity": report._asdict(),
        "seconds": round(time.monotonic() - started, 2),
        "versions": versions(),
        "commit": commit(),
    }
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return report


def num_parameters(detector: Any) -> int:
    """Numbers in the detector's variables, moving statistics included, as papers count them; seeds are none."""
    return sum(int(variable.shape.num_elements()) for variable in variables_by_path(detector.variables).values())


def _write_checkpoint(detector: Any, folder: pathlib.Path, step: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    steps = tf.Variable(step, dtype=tf.int64, trainable=False)
    checkpoint = make_checkpoint(steps, model=variables_by_path(detector.variables))
    tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=1).save(checkpoint_number=0)


def _write_texts(folder: pathlib.Path, beside: Export) -> None:
    for name, text in ((CONFIG_FILE, beside.config_text), (LABEL_MAP_FILE, beside.label_map_text)):
        if text:
            (folder / name).write_text(text, encoding="utf-8")
        else:
            (folder / name).unlink(missing_ok=True)
