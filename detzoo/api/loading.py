"""``detzoo.load``: source -> config and weights -> ``LoadedDetector``."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from detzoo.api.detector import LoadedDetector
from detzoo.api.messages import named_arguments
from detzoo.api.source import Kind, Source, find_source
from detzoo.api.weights import label_map_of, num_classes_of, restore_fitting, restore_whole, set_label_map
from detzoo.config.label_map import LabelMap, load_label_map
from detzoo.config.load import LoadedPipeline, load_pipeline
from detzoo.config.zoo import PREFIX
from detzoo.errors import UsageError
from detzoo.folders import CONFIG_FILE, LABEL_MAP_FILE

RANDOM, IMAGENET, ZOO = "random", "imagenet", "zoo"  # values of ``weights``

logger = logging.getLogger(__name__)


def load(
    source: Any,
    num_classes: int | None = None,
    weights: str | pathlib.Path | None = None,
    *,
    label_map: str | pathlib.Path | None = None,
    overrides: Sequence[str] = (),
) -> LoadedDetector:
    """Loads a detector.

    Args:
        source: One of

            - the folder of a project of `detzoo new`: its best checkpoint, else its newest, or its config before that;
            - the model_dir of a training, or the prefix of one of its checkpoints: the newest checkpoint. A log message
              names the best one if it is another; ``model_dir/best`` loads it;
            - a config: its name in model_configs/, its path, or a ``TrainEvalPipelineConfig``;
            - an export: the folder that `detzoo export` wrote, its saved_model, or a .tflite or .onnx file, also of
              the Object Detection API;
            - the ensemble.json of `detzoo ensemble`;
            - "zoo://NAME", published weights with their config.
        num_classes: Number of classes of the model; None for that of the config. With another number, the weights that
            fit are loaded as for fine-tuning, and a warning names the parts that stay random.
        weights: Weights for a config or a run:

            - None: those of the source. A config alone has random weights, with a warning;
            - "zoo": the published weights of this config of model_configs/, or "zoo://NAME";
            - the path of a checkpoint: a model_dir, or a prefix;
            - "imagenet": only the backbone, with the ``pretrained_weights`` that the config names;
            - "random": random weights, without a warning.
        label_map: Path of a label map; None for the one that the config names or that lies next to an export.
        overrides: Changes of single config fields, such as "model.ssd.num_classes=3".

    Returns:
        The detector. A checkpoint is read at once; a model without weights is built when it is needed.

    Raises:
        UsageError: The source or an argument is unknown; the message lists the nearest names.
        ConfigError: The config has errors, which are all listed.
        CheckpointError: The checkpoint is missing, damaged, or of another model or number of classes.
    """
    from detzoo.tasks.start import start_in_python

    start_in_python()
    with named_arguments():
        found = find_source(source)
        if found.kind in (Kind.CONFIG, Kind.CHECKPOINT):
            return _load_config(found, num_classes, weights, label_map, overrides)
        given = {"num_classes": num_classes, "weights": weights, "overrides": overrides or None}
        for name, value in given.items():
            if value is not None:
                raise UsageError(f"{name} goes with a config or a checkpoint; {found.path} has its weights and classes")
        return _load_exported(found, label_map)


def _load_exported(found: Source, label_map_file: str | pathlib.Path | None) -> LoadedDetector:
    from detzoo.serving.onnx_detector import OnnxDetector
    from detzoo.tasks.detect import load_ensemble_file, load_with_label_map

    given = load_label_map(label_map_file) if label_map_file else None
    if found.kind is Kind.ENSEMBLE:
        exported, label_map = load_ensemble_file(found.path)
        return LoadedDetector(found.path, found.kind, None, given or label_map, exported=exported)
    exported, label_map = load_with_label_map(found.path)
    if isinstance(exported, OnnxDetector):
        return LoadedDetector(found.path, found.kind, exported.pipeline, given or label_map, exported=exported)
    config = exported.folder.parent / CONFIG_FILE
    pipeline = load_pipeline(str(config)) if config.is_file() else None
    return LoadedDetector(found.path, found.kind, pipeline, given or label_map, exported=exported)


def _load_config(
    found: Source,
    num_classes: int | None,
    weights: str | pathlib.Path | None,
    label_map_file: str | pathlib.Path | None,
    overrides: Sequence[str],
) -> LoadedDetector:
    from detzoo.tasks.models import load_checked

    loaded = load_checked(found.config, overrides)
    is_changed = num_classes is not None and num_classes != num_classes_of(loaded.message.model)
    if is_changed:
        loaded = load_checked(loaded, [f"model.{loaded.message.model.WhichOneof('model')}.num_classes={num_classes}"])
        set_label_map(loaded.message, None)  # it names other classes
    if label_map_file is not None:
        set_label_map(loaded.message, str(label_map_file))
    label_map = load_label_map(label_map_file) if label_map_file else label_map_of(loaded.message)
    checkpoint = _checkpoint(found, loaded, weights)
    memory = None
    if checkpoint:
        if label_map is None and not is_changed:
            label_map = _label_map_near(pathlib.Path(checkpoint))
        memory = (restore_whole if num_classes is None else restore_fitting)(loaded, checkpoint)
    elif weights is None:
        logger.warning(
            "%s has random weights, so its detections have no meaning before it is trained; load(..., weights=...) "
            "takes published or trained ones",
            found.path,
        )
    return LoadedDetector(found.path, found.kind, loaded, label_map, memory=memory, pretrained=str(weights) == IMAGENET)


def _label_map_near(checkpoint: pathlib.Path) -> LabelMap | None:
    """Returns the label map of an export or an archive of the zoo, which lies above the folder of its checkpoint."""
    places = (checkpoint / LABEL_MAP_FILE, checkpoint.parent / LABEL_MAP_FILE)
    return next((load_label_map(place) for place in places if place.is_file()), None)


def _checkpoint(found: Source, loaded: LoadedPipeline, weights: str | pathlib.Path | None) -> str:
    """Returns the path of the checkpoint to load, "" for none."""
    if weights is None:
        return found.checkpoint
    text = str(weights)
    if text in (RANDOM, IMAGENET):
        return ""
    if text == ZOO or text.startswith(PREFIX):
        from detzoo.checkpoints import zoo

        if text == ZOO:
            name = pathlib.Path(loaded.path).stem
            archive = zoo.archive_of(name)
            if archive is None:
                raise UsageError(
                    f"no published weights are known for the config {name}; `detzoo weights list` shows all, and "
                    f"weights='{PREFIX}NAME' takes one of them"
                )
            text = PREFIX + archive
        return zoo.local(text)
    return text
