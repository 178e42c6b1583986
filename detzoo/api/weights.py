"""Weights and class names of a config, for ``load`` and for a detector that was trained."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

from detzoo.config.label_map import LabelMap
from detzoo.config.load import LoadedPipeline
from detzoo.config.problems import is_placeholder
from detzoo.errors import CheckpointError, OtherModelError

if TYPE_CHECKING:
    from detzoo.tasks.models import InMemory

logger = logging.getLogger(__name__)


def restore_whole(loaded: LoadedPipeline, checkpoint: str) -> InMemory:
    """Builds the model of a config and restores every variable.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or of another model or number of classes.
    """
    from detzoo.tasks.models import InMemory, restored, start_tensorflow

    start_tensorflow()
    model = loaded.message.model
    try:
        detector, step = restored(model, checkpoint, "load", loaded.message.eval_config.use_moving_averages)
    except OtherModelError as problem:
        advice = "; to load the weights that fit, and train the others, give num_classes as well"
        raise CheckpointError(problem.finding + (advice if problem.has_other_classes else "")) from None
    return InMemory(detector, copy.deepcopy(model), step, checkpoint)


def restore_fitting(loaded: LoadedPipeline, checkpoint: str) -> InMemory:
    """Builds the model of a config and restores the variables that fit; a warning names the layers that stay random.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or of another backbone.
    """
    from detzoo.checkpoints.files import latest_prefix
    from detzoo.checkpoints.restore import warm_start
    from detzoo.tasks.models import InMemory, build_untrained, start_tensorflow

    start_tensorflow()
    latest_prefix(checkpoint)  # a wrong path is reported before the model is built
    detector = build_untrained(loaded.message.model)
    report = warm_start(detector, checkpoint)
    if report.new:
        layers = dict.fromkeys(path.rpartition("/")[0] for path in report.new)
        logger.warning(
            "%s: %d of %d variables do not fit and stay random until they are trained: %s",
            *(report.prefix, len(report.new), len(report.new) + len(report.restored), ", ".join(layers)),
        )
    return InMemory(detector, copy.deepcopy(loaded.message.model), source=checkpoint)


def num_classes_of(model: Any) -> int | None:
    """Returns the number of classes of a ``model`` block; None for proposals, which have none."""
    return getattr(getattr(model, str(model.WhichOneof("model"))), "num_classes", None)


def set_label_map(message: Any, path: str | None) -> None:
    """Sets the label map of every input reader of a config; None removes it."""
    for reader in _readers(message):
        reader.ClearField("label_map_path")
        if path is not None:
            reader.label_map_path = path


def label_map_of(message: Any) -> LabelMap | None:
    """Returns the label map of a config; None if no path is set, or, with a warning, if it cannot be read."""
    from detzoo.tasks.export import configured_label_map

    paths = [reader.label_map_path for reader in _readers(message) if reader.label_map_path]
    is_set = not all(map(is_placeholder, paths))
    return configured_label_map(message, "classes are named by their ids") if is_set else None


def _readers(message: Any) -> list[Any]:
    return [message.train_input_reader, *message.eval_input_reader]
