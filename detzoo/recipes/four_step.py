"""The 4-step training with shared features: runs the steps of ``four_step_plan`` and merges their results.

Ren et al., arXiv:1506.01497, section 3.2. Each step is an ordinary run of ``train_pipeline`` in a separate folder:

    train 1_rpn -> propose -> train 2_fast_rcnn -> train 3_rpn -> propose -> train 4_fast_rcnn -> merge 3 and 4

The result is one checkpoint of the whole detector: the backbone (and pyramid) of step 2, the proposal head of step 3,
and the remaining layers of the second stage of step 4.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from detzoo.builders.detector import build_detector, without_pretrained
from detzoo.checkpoints.files import latest_prefix
from detzoo.checkpoints.layout import variables_by_path
from detzoo.checkpoints.merge import merge_checkpoints, save_weights
from detzoo.checkpoints.restore import part_of
from detzoo.data.records import CHECKED_RECORDS, ReadOptions, RecordSource, scan_files
from detzoo.errors import CheckpointError, DataError
from detzoo.folders import CONFIG_FILE, PROPOSALS_FILE
from detzoo.recipes.four_step_plan import (
    FIRST_STAGE_PART,
    RECIPE,
    SHARED_PARTS,
    STEPS,
    StageConfigs,
    Step,
    config_of_proposals,
    config_of_step,
    num_proposals,
)
from detzoo.recipes.recipe import FinishedRecipe
from detzoo.train.run_record import read_finished, write_finished
from detzoo.train.session import train_pipeline
from detzoo.train.settings import dtype_policy_of
from detzoo.train.stop import StopNow, StopRequest

# (config of a first stage, folder of the checkpoint, file): writes the proposals for the config's train_input_reader
# and returns the number of images.
WriteProposals = Callable[[Any, pathlib.Path, pathlib.Path], int]

logger = logging.getLogger(__name__)


def train_four_step(
    pipeline: Any,
    model_dir: str | pathlib.Path,
    strategy_name: str,
    stages: StageConfigs,
    write_proposals: WriteProposals,
    stop: StopRequest,
    allow_random_weights: bool = False,
) -> FinishedRecipe | None:
    """Runs the remaining steps and merges; returns None if a signal came first.

    Args:
        pipeline: ``TrainEvalPipelineConfig`` of a whole two-stage detector, passed by ``check_pipeline_for_recipe``
            and ``config.check``.
        model_dir: Folder of the run, passed by ``check_folder``.
        strategy_name: See ``train_pipeline``; one machine only.
        stages: ``pipeline`` for the trainings of each stage.
        write_proposals: Function that writes the proposals for the training set.
        stop: Stop request, entered already.
        allow_random_weights: See ``train_pipeline``.
    """
    folder = pathlib.Path(model_dir)
    RECIPE.check_machine(strategy_name)
    check_image_ids(pipeline.train_input_reader)
    variables = _variables_of(pipeline)
    trains = {path: can_train for path, (_, can_train) in variables.items()}
    configs = {step: config_of_step(step, stages, folder, trains) for step in STEPS}
    if pipeline.train_config.eval_every_n_steps:
        logger.warning("train_config.eval_every_n_steps has no effect here: evaluate the merged model at the end")
    RECIPE.write(folder, {})

    def runner(step: Step) -> Callable[[str], bool]:
        def run(label: str) -> bool:
            gc.collect()  # the detectors of the steps before are in circles of references
            here = folder / step.folder
            if _is_finished(label, here, configs[step].train_config.num_steps):
                return True
            if step.reads_proposals_of and not _propose(label, step, pipeline, folder, write_proposals, stop):
                return False
            logger.info("%s: %s, %d steps: %s", label, step.what, configs[step].train_config.num_steps, step.why)
            if stop.requested:
                return False
            outcome = train_pipeline(
                configs[step], here, strategy_name, None, stop, allow_random_weights=allow_random_weights
            )
            return outcome.finished

        return run

    shapes = {path: shape for path, (shape, _) in variables.items()}
    steps = [(step.folder, runner(step)) for step in STEPS]
    return RECIPE.run(folder, pipeline, steps, lambda: merge_steps(folder, shapes), stop)


def merge_steps(folder: pathlib.Path, shapes: Mapping[str, tuple[int, ...]]) -> FinishedRecipe:
    """Merges the checkpoints of the finished steps 3 and 4 into one of the whole detector, in the run's folder.

    Raises:
        CheckpointError: The backbones of the two are not identical, or variables of ``shapes`` (by path) are missing.
    """
    weights = merge_checkpoints(folder / STEPS[2].folder, folder / STEPS[3].folder, SHARED_PARTS)
    found = {path: value.shape for path, value in weights.items()}
    if found != dict(shapes):
        odd = sorted(set(found.items()) ^ set(shapes.items()))
        raise CheckpointError(
            f"the steps in {folder} do not make the detector of {folder / CONFIG_FILE}: {odd[0][0]} {odd[0][1]} is "
            f"on one side only, and {len(odd) - 1} more. Was the config edited? Use another --model_dir"
        )
    done = {step.folder: read_finished(folder / step.folder) or {} for step in STEPS}
    total = sum(facts.get("step", 0) for facts in done.values())
    prefix = save_weights(folder, total, {path: weights[path] for path in shapes})
    checkpoints = {step.folder: latest_prefix(folder / step.folder) for step in STEPS}
    RECIPE.write(folder, {"steps": done, "checkpoints": checkpoints, "merged": prefix})
    write_finished(folder, total, total, "merged the four steps")
    by_step: dict[int, list[str]] = {2: [], 3: [], 4: []}
    for part in dict.fromkeys(part_of(path) for path in shapes):
        by_step[2 if part in SHARED_PARTS else 3 if part == FIRST_STAGE_PART else 4].append(part)
    sources = ", ".join(f"{' and '.join(parts)} of {number}" for number, parts in by_step.items())
    rows = [(checkpoints[step.folder], step.what) for step in STEPS]
    return FinishedRecipe(prefix, (*rows, (prefix, f"the whole detector: {sources}")))


def check_image_ids(reader: Any) -> None:
    """Raises a DataError if most of the first records lack an ``image/source_id``, by which images find proposals."""
    source = RecordSource(scan_files(list(reader.tf_record_input_reader.input_path)), ReadOptions(), seed=0)
    features = {"image/source_id": tf.io.FixedLenFeature([], tf.string, "")}
    records = source.first_records(CHECKED_RECORDS)
    parsed = records.map(lambda record: tf.io.parse_single_example(record, features)["image/source_id"])
    ids = list(parsed.ignore_errors().as_numpy_iterator())
    missing = sum(not image_id for image_id in ids)
    if 2 * missing > len(ids):
        raise DataError(
            f"{missing} of the first {len(ids)} records of train_input_reader have no image/source_id, by which an "
            "image finds its proposals; write the records with one, as `detzoo dataset` does"
        )


def _is_finished(label: str, folder: pathlib.Path, num_steps: int) -> bool:
    finished = read_finished(folder)
    if finished is None:
        return False
    logger.info("%s: finished already, at step %d", label, finished["step"])
    if finished["num_train_steps"] != num_steps:
        logger.warning("%s was to have %d steps, now %d", label, finished["num_train_steps"], num_steps)
    return True


def _propose(
    label: str,
    step: Step,
    pipeline: Any,
    folder: pathlib.Path,
    write_proposals: WriteProposals,
    stop: StopRequest,
) -> bool:
    """Writes the proposals that a step reads, unless they exist. Returns False if a signal came first."""
    proposer = folder / step.reads_proposals_of
    file = proposer / PROPOSALS_FILE
    if file.is_file():
        return True
    text = "%s: first the proposals of %s for every training image, at most %d of each -> %s"
    logger.info(text, label, step.reads_proposals_of, num_proposals(pipeline), file)
    with contextlib.suppress(StopNow), stop.interruptible():
        num_images = write_proposals(config_of_proposals(pipeline), proposer, file)
        logger.info("proposals of %d images are in %s", num_images, file)
        return True
    return False


def _variables_of(pipeline: Any) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Returns path to (shape, whether the variable is trainable) for the whole detector."""
    detector = build_detector(without_pretrained(pipeline.model), dtype_policy=dtype_policy_of(pipeline.train_config))
    trainable = {variable.path for variable in detector.trainable_variables}
    return {
        path: (tuple(variable.shape), path in trainable)
        for path, variable in variables_by_path(detector.variables).items()
    }
