"""Starting TensorFlow, reading configs, and loading detectors: the beginning of every task."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.load import LoadedPipeline, load_pipeline
from detzoo.config.override import apply_override
from detzoo.config.problems import Severity, format_problems
from detzoo.errors import ConfigError, DetzooError, UsageError
from detzoo.folders import CONFIG_FILE, EXPORT_RECORD, find_config, read_record

if TYPE_CHECKING:
    from detzoo.serving.image_detector import ImageDetector

ONE_STAGE_BATCH = 8
ONE_STAGE_MODELS = ("ssd", "center_net")  # fields of ``model``
DEFAULT_TILE_OVERLAP = 0.2
TRAIN_READER, EVAL_READER = "train_input_reader", "eval_input_reader[0]"
# Path or name of a pipeline.config (see config.library), or a loaded config. A task never changes what it is given.
Pipeline: TypeAlias = str | os.PathLike | LoadedPipeline

logger = logging.getLogger(__name__)


def load_checked(
    pipeline: Pipeline, overrides: Sequence[str] = (), reads: str = "", merged: str = ""
) -> LoadedPipeline:
    """Loads a config and checks its model before anything is built.

    Args:
        pipeline: Path or name of the config, or a loaded config, which is copied.
        overrides: Changes of single fields, ``path=value`` each.
        reads: The input reader whose files must exist, ``TRAIN_READER`` or ``EVAL_READER``; "" for none.
        merged: Protobuf text that is merged into the config before the overrides.
    """
    problems = []
    overrides = [overrides] if isinstance(overrides, str) else overrides
    if isinstance(pipeline, LoadedPipeline):
        loaded = copy.deepcopy(pipeline)
        for assignment in overrides:
            problems += apply_override(loaded.message, assignment, loaded.lines)
        loaded = dataclasses.replace(loaded, overrides=(*loaded.overrides, *overrides))
    else:
        loaded = load_pipeline(str(pipeline), overrides, merged)
    problems += [
        problem
        for problem in check_pipeline(loaded, files=False)
        if problem.severity is Severity.ERROR and problem.path.split(".")[0] == "model"
    ]
    if reads:
        problems += reader_problems(loaded, reads)
    if problems:
        raise ConfigError(format_problems(problems, loaded.path))
    return loaded


def reader_problems(loaded: LoadedPipeline, reads: str) -> list[Any]:
    """Returns the errors and placeholders of one input reader of a config."""
    return [
        problem
        for problem in check_pipeline(loaded)
        if problem.severity >= Severity.TO_SET and problem.path.split(".")[0] == reads
    ]


def start_tensorflow() -> None:
    """Starts TensorFlow without messages that do not concern the user of a command."""
    import tensorflow as tf

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    with contextlib.suppress(RuntimeError):  # a Python program has started TensorFlow already
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    _disable_memory_optimizer()


def _disable_memory_optimizer() -> None:
    """Disables the graph optimizer that estimates the cost of every operation, before the first graph is made.

    Its cost estimate of a crop fails if the number of boxes is not static, and each such operation then logs half a
    page that no log level silences. No graph of detzoo needs its swapping and recomputation. TensorFlow has no public
    switch for it.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import rewriter_config_pb2
    from tensorflow.python.eager import context

    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.memory_optimization = rewriter_config_pb2.RewriterConfig.NO_MEM_OPT
    if getattr(context.context(), "_config", config) is None:
        context.context()._config = config


def build_untrained(model: Any) -> Any:
    """Builds the detector of a ``model`` block with random weights; pretrained weights are not downloaded."""
    from detzoo.builders.detector import build_detector, without_pretrained

    return build_detector(without_pretrained(model))


class InMemory(NamedTuple):
    """A detector with its weights, which a task takes in place of the path of a checkpoint."""

    detector: Any
    model: Any  # ``model`` block that it was built from
    step: int = 0  # of the training, 0 if it is unknown
    source: str = "memory"  # of the weights, for records

    def __str__(self) -> str:
        return self.source


Checkpoint: TypeAlias = str | pathlib.Path | InMemory


def restored(model: Any, checkpoint: Checkpoint, flag: str = "", tf1_averages: bool = False) -> tuple[Any, int]:
    """Builds a detector and restores a checkpoint.

    Args:
        model: ``model`` block of a config.
        checkpoint: Folder with checkpoints, of which the newest is used, or the prefix of one; or a detector, which is
            used itself if its ``model`` block is the same.
        flag: Flag that names a checkpoint; a warning names the better checkpoint of the run, if there is one. "" for
            no warning.
        tf1_averages: Uses the moving averages in a checkpoint of TensorFlow 1 (``eval_config.use_moving_averages``).

    Returns:
        The detector, and the training step of the checkpoint, 0 if it is unknown.
    """
    from detzoo.checkpoints import restore_for_inference
    from detzoo.checkpoints.files import best_instead, latest_prefix
    from detzoo.checkpoints.restore import copy_weights

    if isinstance(checkpoint, InMemory):
        if checkpoint.model == model:
            return checkpoint.detector, checkpoint.step
        detector = build_untrained(model)
        copy_weights(checkpoint.detector, detector)
        return detector, checkpoint.step
    latest_prefix(checkpoint)  # a wrong path is reported before the model is built
    detector = build_untrained(model)
    step = restore_for_inference(detector, checkpoint, tf1_averages=tf1_averages)
    if flag and (better := best_instead(checkpoint, step, flag)):
        logger.warning("this is step %d; %s", step, better)
    return detector, step


def build_test_dataset(message: Any, reader: Any, **options: Any) -> Any:
    """Returns the images of an input reader in their order, once and without augmentation, as a tf.data.Dataset."""
    from detzoo.builders.inputs import build_dataset
    from detzoo.builders.resize import build_model_resizer
    from detzoo.config.stages import memory_of

    resizer, batch_size = build_model_resizer(message.model), max(1, message.eval_config.batch_size)
    options["context"] = memory_of(message.model)
    return build_dataset(reader, resizer, None, training=False, batch_size=batch_size, seed=0, **options)


def load_exported(
    path: str | pathlib.Path | ImageDetector,
    model: Any = None,
    *,
    runtime: str = "",
    num_threads: int | None = None,
    precision: str = "float32",
) -> Any:
    """Loads an exported model as a function: image uint8 [H, W, 3] -> ImageDetections.

    The pipeline.config next to it gives the edges between keypoints.

    Args:
        path: A SavedModel, .tflite or .onnx file of `detzoo export` or of the Object Detection API; or a loaded model,
            which is returned. An .onnx file is loaded without TensorFlow, a .tflite file too if the package
            ai-edge-litert is installed.
        model: ``model`` block of the config, whose resizer a TFLite model needs; None for the one in the
            pipeline.config next to the file.
        runtime: Runtime to use, of those that run this kind of file; "" for the usual one.
        num_threads: Threads of LiteRT, ONNX Runtime or OpenVINO; None for their defaults.
        precision: Precision of OpenVINO's layers, "float32" or "bfloat16".

    Raises:
        UsageError: The runtime is not installed, or does not run this kind of file.
    """
    from detzoo.config.stages import keypoint_edges
    from detzoo.serving.image_detector import ImageDetector

    if isinstance(path, ImageDetector):
        return path
    detector = _load_file(path, model, runtime, num_threads, precision)
    if config := find_config(detector.folder):
        with contextlib.suppress(DetzooError):  # only pictures read it, and a stranger's may be of another program
            detector.keypoint_edges = keypoint_edges(load_pipeline(config).message.eval_config)
    return detector


def _load_file(path: str | pathlib.Path, model: Any, runtime: str, num_threads: int | None, precision: str) -> Any:
    from detzoo.serving.runtimes import LITERT, ONNX_RUNTIME, OPENVINO, require_runtime, runtime_of

    runtime = runtime_of(path, runtime)
    require_runtime(runtime)
    if runtime == ONNX_RUNTIME:
        from detzoo.serving.onnx_detector import OnnxDetector

        return OnnxDetector(path, num_threads)
    if runtime == OPENVINO:
        from detzoo.serving.openvino_detector import OpenvinoDetector

        return OpenvinoDetector(path, num_threads, precision)
    if runtime == LITERT:
        from detzoo.serving.tflite_detector import TfliteDetector

        return TfliteDetector(path, _padding_resizer(path, model), num_threads)
    start_tensorflow()
    from detzoo.serving.saved_detector import SavedDetector

    detector = SavedDetector(path)
    _name_best(detector.folder)
    return detector


def _padding_resizer(path: str | pathlib.Path, model: Any) -> Any:
    """Returns the resizer of a TFLite model that keeps the aspect ratio of images; None for one that stretches them."""
    config = pathlib.Path(path).parent / CONFIG_FILE
    if model is None and config.is_file():
        model = load_pipeline(str(config)).message.model
    kind = None if model is None else model.WhichOneof("model")
    if kind not in ONE_STAGE_MODELS:
        return None
    resizer = getattr(model, kind).image_resizer
    # 0 is BILINEAR; grayscale is a part of the model.
    if resizer.HasField("fixed_shape_resizer") and resizer.fixed_shape_resizer.resize_method == 0:
        return None
    start_tensorflow()
    from detzoo.builders.resize import build_model_resizer

    return build_model_resizer(model)


def export_record(exported: pathlib.Path) -> dict[str, Any]:
    """Returns the record that `detzoo export` wrote next to a SavedModel or a file; {} for another model."""
    return read_record(exported.with_suffix(".json")) or read_record(exported.parent / EXPORT_RECORD)


class Tiling(NamedTuple):
    """The tiles in which a detector gets large images, see ``detzoo.ensemble.tiles``."""

    tile: int  # side in pixels
    tile_overlap: float  # least overlap of neighbouring tiles, as a share of the side


def tiling_of(tile: int | None, tile_overlap: float | None) -> Tiling | None:
    """Returns the tiles of the flags --tile and --tile_overlap (None for 0.2); None for whole images.

    Raises:
        UsageError: There is an overlap without tiles.
    """
    if tile is not None:
        return Tiling(tile, DEFAULT_TILE_OVERLAP if tile_overlap is None else tile_overlap)
    if tile_overlap is not None:
        raise UsageError("--tile_overlap goes with --tile: give the side of the tiles in pixels, such as --tile=640")
    return None


def tiled(detector: ImageDetector, tiling: Tiling | None, batch_size: int) -> ImageDetector:
    """Returns a detector that gets large images in tiles, some at a time; the detector itself without tiles."""
    if not tiling:
        return detector
    from detzoo.ensemble.tiles import TiledDetector  # loads TensorFlow

    return TiledDetector(detector, *tiling, batch_size)


def usual_batch_size(model: Any) -> int:
    """Returns the number of images that run together. Detectors with two stages need much memory for each.

    Args:
        model: ``model`` block of the config; None if it is unknown.
    """
    return ONE_STAGE_BATCH if model is not None and model.WhichOneof("model") in ONE_STAGE_MODELS else 1


def _name_best(exported: pathlib.Path) -> None:
    """Warns if the training that a model was exported from has a better checkpoint."""
    from detzoo.checkpoints.files import best_instead

    record = export_record(exported)
    try:
        source, step = str(record["checkpoint"]), int(record["step"])
    except (ValueError, LookupError, TypeError):
        return  # the run is unknown
    if better := best_instead(source, step, "--trained_checkpoint_dir"):
        logger.warning("%s is of step %d; %s (of `detzoo export`)", exported, step, better)
