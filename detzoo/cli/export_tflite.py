"""``detzoo export --format tflite``: its flags, what is refused before anything is built, and the run."""

from __future__ import annotations

from typing import Any

from absl import flags

from detzoo.errors import ConfigError, UsageError

SAVED_MODEL, TFLITE = "saved_model", "tflite"
FORMATS = (SAVED_MODEL, TFLITE)
# Kept in step with detzoo.export.tflite by a test: --help must not import TensorFlow.
QUANTIZATIONS = ("none", "dynamic", "int8")
TFLITE_INPUT_TYPES = ("image_tensor", "float_image_tensor")
TFLITE_ONLY = ("quantize", "representative_data", "max_detections")
SAVED_MODEL_ONLY = ("optimize_for",)

DESCRIPTION = """
With --format=tflite it writes model.tflite for LiteRT (TensorFlow Lite) from SSD and RetinaNet, for one image of the
config's fixed size, uint8 RGB as it comes from a camera (normalisation is inside), with the four outputs of the Object
Detection API's TFLite models. The file is run by the interpreter and compared with the detector before success is
reported. See docs/tflite.md.

    detzoo export --pipeline_config_path=model/pipeline.config --trained_checkpoint_dir=model \\
        --output_directory=exported --format=tflite --quantize=int8 --representative_data='data/train-*.tfrecord'
"""


def define_flags(flag_values: flags.FlagValues) -> None:
    """--format, --quantize, --representative_data, --max_detections."""
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


def check_flags(flag_values: flags.FlagValues, model: Any) -> None:
    """Refuses what cannot be exported, before anything is built.

    Args:
        flag_values: of ``detzoo export``.
        model: the config's ``model`` block.

    Raises:
        UsageError: flags that do not go together.
        ConfigError: a model that TFLite's post-processing has no form for.
    """
    is_tflite = flag_values.format == TFLITE
    for name in SAVED_MODEL_ONLY if is_tflite else TFLITE_ONLY:
        if flag_values[name].present:
            raise UsageError(f"--{name} has no meaning with --format={flag_values.format}; leave it out")
    if not is_tflite:
        return
    if flag_values.input_type not in TFLITE_INPUT_TYPES:
        raise UsageError(
            f"--input_type={flag_values.input_type} needs an image decoder, which TFLite has not; "
            f"--format=tflite takes {' or '.join(TFLITE_INPUT_TYPES)}"
        )
    if flag_values.quantize == "int8" and not flag_values.representative_data:
        raise UsageError(
            "--quantize=int8 needs --representative_data, TFRecords or images like those that the model will see: "
            "the ranges of the activations are measured on them"
        )
    _check_model(model)


def _check_model(model: Any) -> None:
    if model.WhichOneof("model") != "ssd":
        raise ConfigError(
            "--format=tflite exports one-stage detectors (model.ssd); this config has "
            f"model.{model.WhichOneof('model')}. Other models serve as a SavedModel: leave --format out"
        )
    if model.ssd.box_coder.WhichOneof("box_coder_oneof") != "faster_rcnn_box_coder":
        raise ConfigError(
            "--format=tflite: TFLite's post-processing decodes the boxes of faster_rcnn_box_coder only; "
            f"model.ssd.box_coder has {model.ssd.box_coder.WhichOneof('box_coder_oneof')}"
        )
    suppression = model.ssd.post_processing.batch_non_max_suppression
    if suppression.soft_nms_sigma > 0 and not suppression.use_hard_nms:
        raise ConfigError(
            "--format=tflite: TFLite's post-processing has no soft suppression; add "
            "--set model.ssd.post_processing.batch_non_max_suppression.soft_nms_sigma=0"
        )
    resizer = model.ssd.image_resizer
    kind = resizer.WhichOneof("image_resizer_oneof")
    pads = kind == "keep_aspect_ratio_resizer" and resizer.keep_aspect_ratio_resizer.pad_to_max_dimension
    if kind != "fixed_shape_resizer" and not pads:
        raise ConfigError(
            f"--format=tflite needs an input of one size, and the size that {kind} gives depends on the image; add "
            "--set model.ssd.image_resizer.keep_aspect_ratio_resizer.pad_to_max_dimension=true, with a "
            "max_dimension that is a multiple of the coarsest stride, or "
            "--set model.ssd.image_resizer.fixed_shape_resizer.height=... and .width=..."
        )


def check_data(flag_values: flags.FlagValues) -> None:
    """Finds the representative data; to be called once TensorFlow runs.

    Raises:
        DataError: a pattern matches nothing.
    """
    if flag_values.representative_data:
        from detzoo.export.representative import find_files

        find_files(flag_values.representative_data)


def apply_max_detections(flag_values: flags.FlagValues, model: Any) -> None:
    """Writes --max_detections into the config, so that the file beside the model says it too."""
    if flag_values.max_detections is not None:
        suppression = model.ssd.post_processing.batch_non_max_suppression
        suppression.max_total_detections = flag_values.max_detections


def run(flag_values: flags.FlagValues, detector: Any, resizer: Any, beside: Any) -> None:
    """Exports a restored detector, and says how closely the file follows it."""
    from detzoo.export.tflite import TfliteOptions, export_tflite

    options = TfliteOptions(
        quantize=flag_values.quantize,
        input_type=flag_values.input_type,
        representative_data=flag_values.representative_data or "",
    )
    path, report = export_tflite(detector, resizer, flag_values.output_directory, options, beside)
    size = path.stat().st_size / 1e6
    print(f"{path}: step {beside.step}, input {flag_values.input_type}, quantize {options.quantize}, {size:.1f} MB")
    print(report.sentence())
