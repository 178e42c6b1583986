"""Writes a checkpoint as a SavedModel, a TFLite model or an ONNX model.

from detzoo.tasks.export import export

export("model/pipeline.config", "model", "exported").path
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from detzoo.config.label_map import LabelMap, load_label_map
from detzoo.config.load import to_text
from detzoo.config.problems import is_placeholder
from detzoo.config.stages import knows_classes, reads_proposals
from detzoo.errors import ConfigError, DetzooError, UsageError
from detzoo.extras import require_extras
from detzoo.folders import KEYPOINT_LABEL_MAP_FILE
from detzoo.serving.runtimes import EXPORTED_FILES, LITERT, ONNX_RUNTIME, OPENVINO, TENSORFLOW
from detzoo.tasks import batch_norm
from detzoo.tasks.models import Checkpoint, Pipeline, build_untrained, load_checked, restored, start_tensorflow

SAVED_MODEL, TFLITE, ONNX = "saved_model", "tflite", "onnx"
FORMATS = (SAVED_MODEL, TFLITE, ONNX)
FORMATS_OF_RUNTIMES = {TENSORFLOW: SAVED_MODEL, ONNX_RUNTIME: ONNX, LITERT: TFLITE, OPENVINO: ONNX}
NMS_TENSORFLOW, NMS_PORTABLE = "tensorflow", "portable"
NMS_FORMS = (NMS_TENSORFLOW, NMS_PORTABLE)
DEVICES = ("cpu", "gpu")
# A test compares these with detzoo.serving.served.INPUT_SPECS and detzoo.export.tflite, whose import takes seconds.
INPUT_TYPES = ("image_tensor", "float_image_tensor", "encoded_image_string_tensor", "tf_example")
QUANTIZATIONS = ("none", "float16", "dynamic", "int8")
PIXEL_INPUT_TYPES = ("image_tensor", "float_image_tensor")  # without an image decoder, which other runtimes lack
_TENSORFLOW_RESIZING = ("bicubic", "area")  # methods that other runtimes lack, or compute otherwise
PROPOSAL_NAME = "object"  # the only class of proposals

logger = logging.getLogger(__name__)


class Exported(NamedTuple):
    """An exported model."""

    path: pathlib.Path  # of the SavedModel, or of the .tflite or .onnx file
    step: int  # training step of the checkpoint, 0 if it is unknown
    # Differences to the detector in memory: ParityReport, TfliteReport or OnnxReport; None if they are not compared.
    report: Any
    finds_boxes: bool = True  # False for a classifier of images


def export(
    pipeline: Pipeline,
    trained_checkpoint_dir: Checkpoint,
    output_directory: str | pathlib.Path,
    *,
    overrides: Sequence[str] = (),
    config_override: str = "",
    format: str = SAVED_MODEL,
    input_type: str = "image_tensor",
    optimize_for: str = "cpu",
    recompute_batch_norm: int | None = None,
    quantize: str = "none",
    representative_data: str = "",
    max_detections: int | None = None,
    nms: str = NMS_TENSORFLOW,
    tf1_names: bool = False,
    check: bool = True,
) -> Exported:
    """Exports a checkpoint in the layout of the Object Detection API, or as a TFLite or ONNX model.

    Args:
        pipeline: See ``detzoo.tasks``.
        trained_checkpoint_dir: See ``detzoo.tasks``; or a detector in memory.
        output_directory: Folder for the model, its config, label map and record.
        overrides: See ``detzoo.tasks``.
        config_override: Protobuf text that is merged into the config before ``overrides``.
        format: "saved_model", "tflite" or "onnx".
        input_type: One of ``INPUT_TYPES``, for TFLite and ONNX one of ``PIXEL_INPUT_TYPES``.
        optimize_for: "cpu" or "gpu"; for a SavedModel or ONNX.
        recompute_batch_norm: Number of training batches from which the moving statistics of batch normalization are
            computed; None for the statistics of the checkpoint.
        quantize: One of ``QUANTIZATIONS``; for TFLite.
        representative_data: TFRecords or images (path, folder, glob, or several with commas between) for TFLite: int8
            takes its ranges from them, and the check compares on them.
        max_detections: Detections per image, instead of the config's max_total_detections; for TFLite.
        nms: "tensorflow", or "portable" for a SavedModel without conditionals, with operators that TensorFlow.js and
            OpenVINO have, too.
        tf1_names: Write frozen_inference_graph.pb and a SavedModel for clients of TensorFlow 1, with inputs and outputs
            called ``image_tensor:0``, ``detection_boxes:0`` and so on.
        check: Compare the exported model with the detector in memory; False for weights that are not trained, whose
            detections have no meaning.

    Raises:
        ConfigError: The config has errors, or the format does not support the model.
        DetzooError: The exported model disagrees with the detector; an earlier export stays unchanged.
    """
    loaded = load_checked(pipeline, overrides, merged=config_override)
    message = loaded.message
    if recompute_batch_norm:
        batch_norm.check_recompute(loaded)
    if format == TFLITE:
        _check_tflite(message.model, input_type, quantize, representative_data)
        if max_detections is not None and message.model.HasField("center_net"):
            message.model.center_net.object_center_params.max_box_predictions = max_detections
        elif max_detections is not None:
            message.model.ssd.post_processing.batch_non_max_suppression.max_total_detections = max_detections
    other_runtime = "--format=onnx" if format == ONNX else "--nms=portable" if nms == NMS_PORTABLE else ""
    if other_runtime:
        _check_other_runtime(message.model, input_type, other_runtime)
    if format == ONNX:
        require_extras("--format=onnx", "onnx")
    start_tensorflow()
    if representative_data:
        from detzoo.export.representative import find_files

        find_files(representative_data)  # a wrong path is reported before the model is built
    from detzoo.builders.resize import build_model_resizer
    from detzoo.checkpoints.layout import weights_digest
    from detzoo.export.exporter import SAVED_MODEL_FOLDER, Export, export_detector
    from detzoo.ops.graph_form import GraphForm

    resizer = build_model_resizer(message.model)
    if other_runtime:
        _check_resizing(resizer, other_runtime)
    averages = message.eval_config.use_moving_averages
    detector, step = restored(message.model, trained_checkpoint_dir, "--trained_checkpoint_dir", averages)
    facts = batch_norm.prepare_statistics(detector, message, recompute_batch_norm, step)
    facts = {**facts, "weights": weights_digest(detector.variables)}
    keypoint_text = with_keypoint_label_map(message)
    beside = Export(
        to_text(message),
        label_map_text(message),
        str(trained_checkpoint_dir),
        step,
        GraphForm.PORTABLE if nms == NMS_PORTABLE else GraphForm.TENSORFLOW,
        optimize_for,
        compares=check,
        tf1_names=tf1_names,
        facts=facts,
        keypoint_label_map_text=keypoint_text,
    )
    if format == TFLITE:
        from detzoo.export.tflite import TfliteOptions, export_tflite

        options = TfliteOptions(quantize, input_type, representative_data)
        path, tflite_report = export_tflite(detector, resizer, output_directory, options, beside)
        return Exported(path, step, tflite_report)
    if format == ONNX:
        from detzoo.export.onnx import export_onnx

        path, onnx_report = export_onnx(detector, resizer, output_directory, input_type, beside)
        return Exported(path, step, onnx_report)
    report = export_detector(detector, resizer, output_directory, input_type, beside)
    path = pathlib.Path(output_directory) / SAVED_MODEL_FOLDER
    return Exported(path, step, report, finds_boxes=not message.model.HasField("spp_classifier"))


def export_to_measure(
    message: Any,
    folder: str | pathlib.Path,
    checkpoint: Checkpoint | None = None,
    optimize_for: str = "cpu",
    runtime: str = TENSORFLOW,
) -> pathlib.Path:
    """Exports a model for a measurement: without class names, and with random weights if there is no checkpoint.

    Args:
        message: A checked ``TrainEvalPipelineConfig``; TensorFlow is started.
        folder: Folder of the export.
        checkpoint: Folder with checkpoints, the prefix of one, or a detector in memory; None for random weights.
        optimize_for: "cpu" or "gpu".
        runtime: One of ``serving.runtimes.RUNTIMES``.

    Returns:
        The path of the model, as ``load_exported`` takes it.

    Raises:
        ConfigError: The format of the runtime does not support the model.
        UsageError: A package that writes the format is missing.
    """
    from detzoo.benchmark.random_weights import randomize
    from detzoo.builders.resize import build_model_resizer
    from detzoo.export.exporter import Export, export_detector

    format, resizer = FORMATS_OF_RUNTIMES[runtime], build_model_resizer(message.model)
    if format == TFLITE:
        _check_tflite(message.model, INPUT_TYPES[0], QUANTIZATIONS[0], "")
    elif format == ONNX:
        require_extras(f"the runtime {runtime}", "onnx")
        _check_other_runtime(message.model, INPUT_TYPES[0], f"the runtime {runtime}")
        _check_resizing(resizer, f"the runtime {runtime}")
    weights = f"the weights of {checkpoint}" if checkpoint else "random weights"
    logger.info("building and exporting the detector with %s", weights)
    if checkpoint:
        detector, step = restored(message.model, checkpoint, tf1_averages=message.eval_config.use_moving_averages)
        beside = Export(to_text(message), source=str(checkpoint), step=step, optimize_for=optimize_for)
    else:
        detector = build_untrained(message.model)
        randomize(detector)
        beside = Export(optimize_for=optimize_for, compares=False)
    if format == TFLITE:
        from detzoo.export.tflite import TfliteOptions, export_tflite

        return export_tflite(detector, resizer, folder, TfliteOptions(), beside)[0]
    if format == ONNX:
        from detzoo.export.onnx import export_onnx

        return export_onnx(detector, resizer, folder, INPUT_TYPES[0], beside)[0]
    export_detector(detector, resizer, folder, INPUT_TYPES[0], beside)
    return pathlib.Path(folder) / EXPORTED_FILES[runtime]


def with_keypoint_label_map(message: Any) -> str:
    """Returns the text of the keypoint label map, "" without one; the config then names the file next to it."""
    from detzoo.config.load import read_text

    path = message.model.center_net.keypoint_label_map_path if message.model.HasField("center_net") else ""
    if not path or not message.model.center_net.keypoint_estimation_task:
        return ""
    message.model.center_net.keypoint_label_map_path = KEYPOINT_LABEL_MAP_FILE
    return read_text(path, "keypoint label map")


def label_map_text(message: Any) -> str:
    """Returns the label map that the input readers of a config name, or "" with a warning."""
    label_map = configured_label_map(message, "the export has no class names")
    return "" if label_map is None else label_map.to_text()


def configured_label_map(message: Any, without: str) -> LabelMap | None:
    """Returns the label map that the input readers of a config name; None, with a warning, if there is none.

    Args:
        message: ``TrainEvalPipelineConfig``.
        without: Consequence of a missing label map, for the warning.
    """
    if not knows_classes(message.model):
        return LabelMap({1: PROPOSAL_NAME})
    readers = [*message.eval_input_reader, message.train_input_reader]
    folders = [reader.image_folder_reader.path for reader in readers if reader.HasField("image_folder_reader")]
    if folders and not any(reader.label_map_path for reader in readers):
        from detzoo.config.image_folders import class_folders, label_map_of_folders

        return next((label_map_of_folders(path) for path in folders if class_folders(path)), None)
    paths = [reader.label_map_path for reader in readers if reader.label_map_path]
    path = next((path for path in paths if not is_placeholder(path)), "")
    if not path:
        advice = "--set train_input_reader.label_map_path=FILE gives it one"
        logger.warning("the config names no label map, so %s; %s", without, advice)
        return None
    try:
        return load_label_map(path)
    except UsageError as problem:
        logger.warning("%s: %s", problem, without)
    except DetzooError as problem:
        logger.warning("the label map is not used, so %s: %s", without, problem)
    return None


def _check_pixel_input(input_type: str, flag: str) -> None:
    if input_type not in PIXEL_INPUT_TYPES:
        raise UsageError(
            f"--input_type={input_type} needs an image decoder, and only TensorFlow has one; "
            f"{flag} takes {' or '.join(PIXEL_INPUT_TYPES)}"
        )


def _check_resizing(resizer: Any, flag: str) -> None:
    if resizer.method in _TENSORFLOW_RESIZING:
        raise ConfigError(
            f"{flag}: only TensorFlow has the resize_method {resizer.method.upper()}; train with "
            f"BILINEAR or NEAREST_NEIGHBOR, or export a SavedModel: leave {flag} out"
        )


def _check_other_runtime(model: Any, input_type: str, flag: str) -> None:
    """Refuses options and models that only TensorFlow runs, before anything is built; ``flag`` asks for the runtime."""
    _check_pixel_input(input_type, flag)
    kind = str(model.WhichOneof("model"))
    if kind in ("spp_net", "spp_classifier", "segmentation_proposals") or reads_proposals(model):
        found = "model.faster_rcnn with proposals_from_reader" if kind == "faster_rcnn" else f"model.{kind}"
        raise ConfigError(
            f"{flag} exports one-stage detectors (model.ssd, model.center_net), Faster R-CNN, Mask R-CNN and R-FCN "
            f"(model.faster_rcnn); this config has {found}. It serves as a SavedModel: leave {flag} out"
        )
    chosen = getattr(model, kind)
    for name in ("context_config", "output_final_box_features"):
        if kind == "faster_rcnn" and chosen.HasField(name) and getattr(chosen, name):
            raise ConfigError(
                f"{flag} has neither the memory of a Context R-CNN nor features of boxes; this config has "
                f"model.faster_rcnn.{name}. It serves as a SavedModel: leave {flag} out"
            )
    if kind == "faster_rcnn" and chosen.roi_operation == chosen.MAX_ROI_POOL:
        raise ConfigError(
            f"{flag} has the crops of CROP_AND_RESIZE and ROI_ALIGN; this config has model.faster_rcnn.roi_operation: "
            f"MAX_ROI_POOL, which only TensorFlow runs. It serves as a SavedModel: leave {flag} out"
        )
    path = "post_processing" if kind == "ssd" else "second_stage_post_processing"
    if hasattr(chosen, path):
        suppression = getattr(chosen, path).batch_non_max_suppression
        if suppression.soft_nms_sigma > 0 and not suppression.use_hard_nms:
            raise ConfigError(
                f"{flag} has no soft suppression; add "
                f"--set model.{kind}.{path}.batch_non_max_suppression.soft_nms_sigma=0"
            )


def _check_tflite(model: Any, input_type: str, quantize: str, representative_data: str) -> None:
    """Refuses options and models that TFLite does not support, before anything is built."""
    _check_pixel_input(input_type, "--format=tflite")
    if quantize == "int8" and not representative_data:
        raise UsageError(
            "--quantize=int8 needs --representative_data, TFRecords or images like those that the model will see: "
            "the ranges of the activations are measured on them"
        )
    kind = model.WhichOneof("model")
    if kind not in ("ssd", "center_net"):
        raise ConfigError(
            "--format=tflite exports one-stage detectors (model.ssd, model.center_net); this config has "
            f"model.{kind}. Other models serve as a SavedModel: leave --format out"
        )
    if kind == "center_net":
        _check_fixed_size(model.center_net.image_resizer, "model.center_net")
        return
    _check_fixed_size(model.ssd.image_resizer, "model.ssd")
    suppression = model.ssd.post_processing.batch_non_max_suppression
    if suppression.soft_nms_sigma > 0 and not suppression.use_hard_nms:
        raise ConfigError(
            "--format=tflite: TFLite models have no soft suppression; add "
            "--set model.ssd.post_processing.batch_non_max_suppression.soft_nms_sigma=0"
        )


def _check_fixed_size(resizer: Any, path: str) -> None:
    """Refuses a resizer whose output depends on the image."""
    kind = resizer.WhichOneof("image_resizer_oneof")
    pads = kind == "keep_aspect_ratio_resizer" and resizer.keep_aspect_ratio_resizer.pad_to_max_dimension
    if kind != "fixed_shape_resizer" and not pads:
        raise ConfigError(
            f"--format=tflite needs an input of one size, and the size that {kind} gives depends on the image; add "
            f"--set {path}.image_resizer.keep_aspect_ratio_resizer.pad_to_max_dimension=true, with a "
            "max_dimension that is a multiple of the coarsest stride, or "
            f"--set {path}.image_resizer.fixed_shape_resizer.height=... and .width=..."
        )
