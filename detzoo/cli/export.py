"""``detzoo export``."""

from __future__ import annotations

from absl import flags

from detzoo.cli.api_flags import check_exporter_flags, define_exporter_flags
from detzoo.cli.flags import define_pipeline_flags, define_recompute_flag
from detzoo.errors import UsageError
from detzoo.tasks.export import DEVICES, FORMATS, INPUT_TYPES, QUANTIZATIONS, SAVED_MODEL, TFLITE, export

SUMMARY = "Write a checkpoint as a SavedModel with the Object Detection API's signature, or as a TFLite model."
DESCRIPTION = """
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

With --format=tflite it writes model.tflite for LiteRT (TensorFlow Lite) from SSD and RetinaNet, for one image of the
config's fixed size, uint8 RGB as it comes from a camera (normalisation is inside), with the four outputs of the Object
Detection API's TFLite models. The file is run by the interpreter and compared with the detector before success is
reported. See docs/tflite.md.

    detzoo export --pipeline_config_path=model/pipeline.config --trained_checkpoint_dir=model \\
        --output_directory=exported --format=tflite --quantize=int8 --representative_data='data/train-*.tfrecord'
"""
POSITIONAL = ()

TFLITE_ONLY = ("quantize", "representative_data", "max_detections")
SAVED_MODEL_ONLY = ("optimize_for",)


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
    flags.DEFINE_enum("format", SAVED_MODEL, FORMATS, "What to write.", flag_values=flag_values)
    text = (
        "With --format=tflite. none: float32. dynamic: weights of 8 bits, a quarter of the size. int8: weights and "
        "activations of 8 bits, for integer hardware; needs --representative_data. Boxes and scores stay float32."
    )
    flags.DEFINE_enum("quantize", "none", QUANTIZATIONS, text, flag_values=flag_values)
    text = (
        "With --format=tflite: TFRecords or images (a path, a folder, a quoted glob, or several with commas between) "
        "like those that the model will see. int8 takes its ranges from them; the check compares on them."
    )
    flags.DEFINE_string("representative_data", None, text, flag_values=flag_values)
    text = "With --format=tflite: detections of an image, instead of the config's max_total_detections."
    flags.DEFINE_integer("max_detections", None, text, lower_bound=1, flag_values=flag_values)
    define_exporter_flags(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Exports, and prints how closely the exported model follows the detector."""
    check_exporter_flags(flag_values)
    for name in SAVED_MODEL_ONLY if flag_values.format == TFLITE else TFLITE_ONLY:
        if flag_values[name].present:
            raise UsageError(f"--{name} has no meaning with --format={flag_values.format}; leave it out")
    exported = export(
        flag_values.pipeline_config_path,
        flag_values.trained_checkpoint_dir,
        flag_values.output_directory,
        overrides=flag_values.set,
        config_override=flag_values.config_override,
        format=flag_values.format,
        input_type=flag_values.input_type,
        optimize_for=flag_values.optimize_for,
        recompute_batch_norm=flag_values.recompute_batch_norm,
        quantize=flag_values.quantize,
        representative_data=flag_values.representative_data or "",
        max_detections=flag_values.max_detections,
    )
    line = f"{exported.path}: step {exported.step}, input {flag_values.input_type}"
    if flag_values.format == TFLITE:
        print(f"{line}, quantize {flag_values.quantize}, {exported.path.stat().st_size / 1e6:.1f} MB")
        print(exported.report.sentence())
        return
    print(line)
    if exported.report is not None:
        boxes = f"boxes within {exported.report.max_box_difference:.1e}, " if exported.finds_boxes else ""
        scores = f"scores within {exported.report.max_score_difference:.1e}"
        print(f"agrees with the detector in memory: {boxes}{scores}")
