"""``detzoo export``."""

from __future__ import annotations

import logging
from typing import Any

from absl import flags

from detzoo.cli import export_tflite
from detzoo.cli.api_flags import check_exporter_flags, define_exporter_flags
from detzoo.cli.flags import define_pipeline_flags, load_pipeline_from_flags
from detzoo.errors import DetzooError, UsageError
from detzoo.tasks.batch_norm import check_recompute_flag, define_recompute_flag, prepare_statistics

SUMMARY = "Write a checkpoint as a SavedModel with the Object Detection API's signature, or as a TFLite model."
DESCRIPTION = (
    """
The result needs nothing but TensorFlow, and is checked against the detector in memory before success is reported.

    detzoo export --pipeline_config_path=model/pipeline.config --trained_checkpoint_dir=model \\
        --output_directory=exported

    import tensorflow as tf
    detect = tf.saved_model.load("exported/saved_model")
    detections = detect(images)     # uint8 [B, H, W, 3], any size

A classifier (model.spp_classifier) gives class_scores [B, K], column k of the class with id k + 1: the mean over the
views that its test_view names.

Writes saved_model/, checkpoint/, pipeline.config, label_map.pbtxt and export.json. The weights are their moving
averages where the checkpoint has them. Thresholds of the post-processing can be changed on the way:

    --set model.ssd.post_processing.batch_non_max_suppression.score_threshold=0.3

A model that classifies given regions (SPP-net, Fast R-CNN) has a second input, proposals: float32 [B, R, 4], fractions
of the image, [ymin, xmin, ymax, xmax]; rows without area are padding.

    detections = detect(images, proposals)

Input types: image_tensor (uint8 [B, H, W, 3]), float_image_tensor (float32, 0..255), encoded_image_string_tensor (JPEG,
PNG, GIF or BMP files), tf_example (serialized examples with image/encoded).
"""
    + export_tflite.DESCRIPTION
)
POSITIONAL = ()

# Kept in step with detzoo.serving.served.INPUT_SPECS by a test: --help must not import TensorFlow.
INPUT_TYPES = ("image_tensor", "float_image_tensor", "encoded_image_string_tensor", "tf_example")

DEVICES = ("cpu", "gpu")
PROPOSAL_NAME = "object"  # the one class of proposals

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """Which checkpoint, where to, and what is written."""
    define_pipeline_flags(flag_values)
    flags.DEFINE_string(
        "trained_checkpoint_dir",
        None,
        "Folder with checkpoints (the newest is used), or the prefix of one, e.g. model/ckpt-1000.",
        flag_values=flag_values,
        required=True,
    )
    flags.DEFINE_string("output_directory", None, "Where to write.", flag_values=flag_values, required=True)
    flags.DEFINE_enum("input_type", "image_tensor", INPUT_TYPES, "What callers send.", flag_values=flag_values)
    flags.DEFINE_enum(
        "optimize_for",
        "cpu",
        DEVICES,
        "Where it will run. For a CPU, large 3 x 3 convolutions become matrix products (Winograd): up to twice as "
        "fast, a larger file. The model runs on both in either form.",
        flag_values=flag_values,
    )
    define_recompute_flag(flag_values)
    export_tflite.define_flags(flag_values)
    define_exporter_flags(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Builds, restores, writes and checks."""
    check_exporter_flags(flag_values)
    loaded = load_pipeline_from_flags(flag_values, merged=flag_values.config_override)
    check_recompute_flag(flag_values, loaded)
    export_tflite.check_flags(flag_values, loaded.message.model)
    export_tflite.apply_max_detections(flag_values, loaded.message.model)
    from detzoo.builders.resize import build_model_resizer
    from detzoo.checkpoints import restore_for_inference
    from detzoo.checkpoints.files import best_instead, latest_prefix
    from detzoo.config.load import to_text
    from detzoo.export.exporter import SAVED_MODEL_FOLDER, Export, export_detector
    from detzoo.tasks.models import build_untrained, start_tensorflow

    start_tensorflow()
    latest_prefix(flag_values.trained_checkpoint_dir)  # a wrong path is told before the model is built
    export_tflite.check_data(flag_values)
    detector = build_untrained(loaded.message.model)
    step = restore_for_inference(detector, flag_values.trained_checkpoint_dir)
    if better := best_instead(flag_values.trained_checkpoint_dir, step, "--trained_checkpoint_dir"):
        logger.warning("this is step %d; %s", step, better)
    recomputed = prepare_statistics(detector, loaded.message, flag_values.recompute_batch_norm, step)
    beside = Export(
        to_text(loaded.message),
        _label_map_text(loaded.message),
        flag_values.trained_checkpoint_dir,
        step,
        flag_values.optimize_for,
        facts=recomputed,
    )
    resizer = build_model_resizer(loaded.message.model)
    if flag_values.format == export_tflite.TFLITE:
        export_tflite.run(flag_values, detector, resizer, beside)
        return
    folder = flag_values.output_directory
    report = export_detector(detector, resizer, folder, flag_values.input_type, beside)
    print(f"{folder}/{SAVED_MODEL_FOLDER}: step {step}, input {flag_values.input_type}")
    if report is None:
        return
    boxes = "" if loaded.message.model.HasField("spp_classifier") else f"boxes within {report.max_box_difference:.1e}, "
    print(f"agrees with the detector in memory: {boxes}scores within {report.max_score_difference:.1e}")


def _label_map_text(message: Any) -> str:
    """The label map that the config's readers name, or "" with a warning."""
    from detzoo.config.label_map import LabelMap, load_label_map
    from detzoo.config.problems import is_placeholder
    from detzoo.config.stages import knows_classes

    if not knows_classes(message.model):
        return LabelMap({1: PROPOSAL_NAME}).to_text()
    readers = [*message.eval_input_reader, message.train_input_reader]
    folders = [reader.image_folder_reader.path for reader in readers if reader.HasField("image_folder_reader")]
    if folders and not any(reader.label_map_path for reader in readers):
        from detzoo.config.image_folders import class_folders, label_map_of_folders

        return next((label_map_of_folders(path).to_text() for path in folders if class_folders(path)), "")
    path = next((reader.label_map_path for reader in readers if reader.label_map_path), "")
    if not path or is_placeholder(path):
        advice = "--set train_input_reader.label_map_path=FILE gives it one"
        logger.warning("the config names no label map, so the export has no class names; %s", advice)
        return ""
    try:
        return load_label_map(path).to_text()
    except UsageError as problem:
        logger.warning("%s: the export has no class names", problem)
    except DetzooError as problem:
        logger.warning("the label map is not exported: %s", problem)
    return ""
