"""What commands start with: TensorFlow without its chatter, and a detector for inference from a config."""

from __future__ import annotations

import json
import logging
import pathlib
from typing import Any

CONFIG_FILE = "pipeline.config"  # beside a run's checkpoints and beside an exported model

logger = logging.getLogger(__name__)


def start_tensorflow() -> None:
    """Starts TensorFlow without the messages that say nothing to the user of a command."""
    import tensorflow as tf

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    _leave_out_memory_optimizer()


def _leave_out_memory_optimizer() -> None:
    """Switches off the one graph optimizer that estimates what every operation costs, before the first graph is made.

    Its estimate of a crop fails wherever the number of boxes is not known beforehand, with half a page of warning for
    each such operation that no log level silences; and none of our graphs needs what it does (swapping, recomputing).
    TensorFlow has no public switch for it.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import rewriter_config_pb2
    from tensorflow.python.eager import context

    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.memory_optimization = rewriter_config_pb2.RewriterConfig.NO_MEM_OPT
    if getattr(context.context(), "_config", config) is None:
        context.context()._config = config


def build_untrained(model: Any) -> Any:
    """The detector of a ``model`` block with random weights: nothing is downloaded that a checkpoint would replace."""
    from detzoo.builders.detector import build_detector, without_pretrained

    return build_detector(without_pretrained(model))


def _name_best(exported: pathlib.Path) -> None:
    """Warns if the run that a model was exported from has a better checkpoint; an unknown run is no problem."""
    from detzoo.checkpoints.files import best_instead
    from detzoo.serving.saved_detector import EXPORT_RECORD

    try:
        record = json.loads((exported.parent / EXPORT_RECORD).read_text(encoding="utf-8"))
        source, step = str(record["checkpoint"]), int(record["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return
    if better := best_instead(source, step, "--trained_checkpoint_dir"):
        logger.warning("%s is of step %d; %s (of `detzoo export`)", exported, step, better)


def load_exported(path: str, model: Any = None) -> Any:
    """What `detzoo export` wrote, a SavedModel or a .tflite file: image uint8 [H, W, 3] -> ImageDetections.

    Args:
        path: the flag --saved_model.
        model: the config's ``model`` block, whose resizer a TFLite model needs; None for the one beside the file.

    Raises:
        UsageError: there is no such model.
        ConfigError: the pipeline.config beside a TFLite model cannot be read.
    """
    from detzoo.serving.saved_detector import SavedDetector
    from detzoo.serving.tflite_detector import TfliteDetector, is_tflite

    if not is_tflite(path):
        detector = SavedDetector(path)
        _name_best(detector.folder)
        return detector
    _name_best(pathlib.Path(path))
    from detzoo.builders.resize import build_model_resizer
    from detzoo.config.load import load_pipeline

    config = pathlib.Path(path).parent / CONFIG_FILE
    if model is None and config.is_file():
        model = load_pipeline(str(config)).message.model
    return TfliteDetector(path, None if model is None else build_model_resizer(model))
