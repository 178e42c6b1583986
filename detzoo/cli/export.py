"""``detzoo export``."""

from __future__ import annotations

from absl import flags

from detzoo.cli.api_flags import check_exporter_flags, define_exporter_flags
from detzoo.cli.flags import CHECKPOINT_HELP, Definer, define_pipeline_flags, define_recompute_flag, values_of
from detzoo.errors import UsageError
from detzoo.tasks.export import (
    DEVICES,
    FORMATS,
    INPUT_TYPES,
    NMS_FORMS,
    NMS_TENSORFLOW,
    ONNX,
    QUANTIZATIONS,
    SAVED_MODEL,
    TFLITE,
    export,
)

SUMMARY = "Write a checkpoint as a SavedModel with the Object Detection API's signature, or for LiteRT or ONNX."
DESCRIPTION = """
The exported model needs only TensorFlow. It is compared with the detector in memory before success is reported.

    detzoo export --pipeline_config_path=model/pipeline.config --trained_checkpoint_dir=model \\
        --output_directory=exported

    import tensorflow as tf
    detect = tf.saved_model.load("exported/saved_model")
    detections = detect(images)     # uint8 [B, H, W, 3], any size

A classifier (model.spp_classifier) returns class_scores [B, K], the mean over the views that its test_view names.
Column k belongs to the class with id k + 1.

Writes saved_model/, checkpoint/, pipeline.config, label_map.pbtxt and export.json. The weights are the moving averages
if the checkpoint has them. --set changes thresholds of the post-processing:

    --set model.ssd.post_processing.batch_non_max_suppression.score_threshold=0.3

A model that classifies given regions (SPP-net, Fast R-CNN) has a second input, proposals: float32 [B, R, 4], fractions
of the image, [ymin, xmin, ymax, xmax]; rows without area are padding.

    detections = detect(images, proposals)

Input types: image_tensor (uint8 [B, H, W, 3]), float_image_tensor (float32, 0..255), encoded_image_string_tensor (JPEG,
PNG, GIF or BMP files), tf_example (serialized examples with image/encoded).

--format=tflite writes model.tflite for LiteRT (TensorFlow Lite). It supports SSD, RetinaNet and CenterNet, for one
image of the config's fixed size. The input is uint8 RGB as it comes from a camera (normalization is part of the model);
the four outputs are those of the Object Detection API's TFLite models. Class names and TFLite Metadata are in the file.
The interpreter runs the file, and its detections are compared with the detector before success is reported. See
docs/tflite.md.

    detzoo export --pipeline_config_path=model/pipeline.config --trained_checkpoint_dir=model \\
        --output_directory=exported --format=tflite --quantize=int8 --representative_data='data/train-*.tfrecord'

--format=onnx writes model.onnx: uint8 images [N, H, W, 3] of any size in, the four outputs (and masks) out, with
resizing and suppression inside. It needs `pip install "detzoo[onnx]"`; running the file needs only onnxruntime. It
supports SSD, RetinaNet, EfficientDet, Faster R-CNN, Mask R-CNN, R-FCN and CenterNet. ONNX Runtime runs the file,
and its results are compared with the detector before success is reported. Class names and config are in the file. See
docs/onnx.md.

    detzoo export --pipeline_config_path=model/pipeline.config --trained_checkpoint_dir=model \\
        --output_directory=exported --format=onnx
    detzoo detect --saved_model=exported/model.onnx --images=photos --output_dir=pictures

--tf1_names is for code of TensorFlow 1 (tf.compat.v1), which runs detection_boxes:0 of frozen_inference_graph.pb with
image_tensor:0 fed, or loads the SavedModel into a session.

A SavedModel with --nms=portable has only operators that OpenVINO and TensorFlow.js have, too, and no conditionals.
"""

TFLITE_ONLY = ("quantize", "representative_data", "max_detections")
SAVED_MODEL_ONLY = ("optimize_for", "nms", "tf1_names")


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags for the checkpoint, the output and its format."""
    define_pipeline_flags(flag_values)
    define = Definer(flag_values)
    define.string("trained_checkpoint_dir", CHECKPOINT_HELP, required=True)
    define.string("output_directory", "Folder for the export.", required=True)
    define.choice("input_type", "Input of the exported model.", INPUT_TYPES, "image_tensor")
    text = (
        "Device that the model will run on. For a CPU, large 3 x 3 convolutions become matrix products (Winograd): up "
        "to twice as fast, a larger file. The model runs on both in either form. For OpenVINO: gpu."
    )
    define.choice("optimize_for", text, DEVICES, "cpu")
    text = (
        "For a SavedModel. With portable, it also converts for OpenVINO and TensorFlow.js: one suppression of the best "
        "1024 or more boxes, without conditionals, and no Winograd convolutions."
    )
    define.choice("nms", text, NMS_FORMS, NMS_TENSORFLOW)
    text = (
        "Write the files of TensorFlow 1: frozen_inference_graph.pb, and a SavedModel with the key inputs. Tensors "
        "have the names image_tensor:0, detection_boxes:0 and so on."
    )
    define.boolean("tf1_names", text)
    define_recompute_flag(flag_values)
    define.choice("format", "Format of the export.", FORMATS, SAVED_MODEL)
    text = (
        "For --format=tflite. With none, all is float32. With float16, weights have 16 bits, half of the size. With "
        "dynamic, weights have 8 bits, a quarter of the size. With int8, weights and activations have 8 bits, which is "
        "fastest, and --representative_data is needed. Boxes and scores stay float32."
    )
    define.choice("quantize", text, QUANTIZATIONS, "none")
    text = (
        "With --format=tflite: TFRecords or images (a path, a folder, a quoted glob, or several, separated by commas) "
        "like those that the model will see. int8 takes its ranges from them; the check compares on them."
    )
    define.string("representative_data", text, "")
    text = "With --format=tflite: detections per image, instead of the config's max_total_detections."
    define.integer("max_detections", text, minimum=1)
    text = (
        "Write the model without comparing it with the detector in memory, to measure the speed of a detector that is "
        "not trained, whose detections have no meaning."
    )
    define.boolean("no_check", text, False)
    define_exporter_flags(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Exports, and prints how closely the exported model follows the detector."""
    check_exporter_flags(flag_values)
    of_others = {
        SAVED_MODEL: TFLITE_ONLY,
        TFLITE: SAVED_MODEL_ONLY,
        ONNX: (*TFLITE_ONLY, "nms", "tf1_names"),
    }
    for name in of_others[flag_values.format]:
        if flag_values[name].present:
            raise UsageError(f"--{name} has no meaning with --format={flag_values.format}; leave it out")
    same = ("config_override", "format", "input_type", "recompute_batch_norm", *SAVED_MODEL_ONLY, *TFLITE_ONLY)
    exported = export(
        flag_values.pipeline_config_path,
        flag_values.trained_checkpoint_dir,
        flag_values.output_directory,
        overrides=flag_values.set,
        **values_of(flag_values, *same),
        check=not flag_values.no_check,
    )
    line = f"{exported.path}: step {exported.step}, input {flag_values.input_type}"
    if flag_values.format != SAVED_MODEL:
        quantize = f", quantize {flag_values.quantize}" if flag_values.format == TFLITE else ""
        print(f"{line}{quantize}, {exported.path.stat().st_size / 1e6:.1f} MB")
        if exported.report is not None:
            print(exported.report.sentence())
        return
    print(line)
    if exported.report is not None:
        boxes = f"boxes within {exported.report.max_box_difference:.1e}, " if exported.finds_boxes else ""
        scores = f"scores within {exported.report.max_score_difference:.1e}"
        print(f"agrees with the detector in memory: {boxes}{scores}")
