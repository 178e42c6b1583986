"""The accuracy of one point of a sweep, and the proposals that others read: parts of the process of a point."""

from __future__ import annotations

import copy
import json
import logging
import pathlib
from typing import Any

logger = logging.getLogger(__name__)


def is_measured_as_exported(message: Any) -> bool:
    """Whether what serves takes images alone and gives boxes with classes; else the checkpoint itself is measured.

    Args:
        message: a ``TrainEvalPipelineConfig``.
    """
    from detzoo.config.stages import has_second_stage

    if message.model.HasField("ssd"):
        return True
    region = message.model.faster_rcnn
    return message.model.HasField("faster_rcnn") and has_second_stage(region) and not region.proposals_from_reader


def measure_checkpoint(message: Any, checkpoint: str) -> Any:
    """The EvaluationResult of a checkpoint on a config's first eval_input_reader, as of ``detzoo evaluate``."""
    from detzoo.checkpoints import restore_for_inference
    from detzoo.tasks.evaluate import make_evaluator
    from detzoo.tasks.models import build_untrained

    detector = build_untrained(message.model)
    restore_for_inference(detector, checkpoint)
    return make_evaluator(message).evaluate(detector)


def measure_two_networks(message: Any, training: str, folder: pathlib.Path) -> Any:
    """The EvaluationResult of the first two steps of a training in four: nothing is shared yet.

    Args:
        message: the whole detector's config.
        training: folder of the training.
        folder: for the proposals of the first step.
    """
    from detzoo.evaluate.report import PROPOSALS_FILE
    from detzoo.recipes.four_step_plan import STEPS

    proposing, classifying = STEPS[:2]
    number = message.model.faster_rcnn.first_stage_max_proposals
    file = folder / PROPOSALS_FILE
    propose(message, message.eval_input_reader[0], str(pathlib.Path(training) / proposing.folder), number, file)
    changed = copy.deepcopy(message)
    changed.model.faster_rcnn.proposals_from_reader = True
    changed.eval_input_reader[0].proposals_path = str(file)
    changed.eval_input_reader[0].max_number_of_proposals = number
    return measure_checkpoint(changed, str(pathlib.Path(training) / classifying.folder))


def propose(message: Any, reader: Any, checkpoint: str, number: int, file: pathlib.Path) -> None:
    """Writes the proposals of a first stage for every image of a reader, as they are.

    Args:
        message: config of the first stage, or of a detector that has it.
        reader: the images'.
        checkpoint: of the first stage.
        number: of an image, at most.
        file: the proposals.npz.
    """
    from detzoo.recipes.four_step_plan import config_of_proposals
    from detzoo.tasks.propose import write_training_proposals

    asked = copy.deepcopy(message)
    asked.train_input_reader.CopyFrom(reader)
    asked.model.faster_rcnn.first_stage_max_proposals = number
    asked.model.faster_rcnn.ClearField("first_stage_max_proposals_in_training")
    count = write_training_proposals(config_of_proposals(asked), pathlib.Path(checkpoint), file)
    logger.info("proposals of %d images are in %s", count, file)


def write_all_proposals(folder: pathlib.Path) -> int:
    """Writes what the point.json of a folder asks for; 0, the exit code."""
    from detzoo.config.load import load_pipeline
    from detzoo.sweep.plan.proposals import EVAL_FILE, TRAIN_FILE
    from detzoo.sweep.run.point_files import PIPELINE_FILE, POINT_FILE
    from detzoo.tasks.models import start_tensorflow

    spec = json.loads((folder / POINT_FILE).read_text(encoding="utf-8"))
    message = load_pipeline(str(folder / PIPELINE_FILE)).message
    start_tensorflow()
    readers = {TRAIN_FILE: message.train_input_reader, EVAL_FILE: message.eval_input_reader[0]}
    for name, number in spec["files"].items():
        if not (folder / name).is_file():
            propose(message, readers[name], spec["checkpoint"], number, folder / name)
    return 0
