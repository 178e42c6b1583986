"""The 4-step training with shared features: runs the steps of ``four_step_plan``, goes on where it was, and merges.

Ren et al., arXiv:1506.01497, section 3.2. Each step is an ordinary run of ``train_pipeline`` in a folder of its own:

    train 1_rpn -> propose -> train 2_fast_rcnn -> train 3_rpn -> propose -> train 4_fast_rcnn -> merge 3 and 4

The result is one checkpoint of the whole detector: the backbone (and pyramid) of step 2, the proposal head of step 3,
and all that is the second stage's own of step 4.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from detzoo.config.load import save_pipeline
from detzoo.data.records import CHECKED_RECORDS, ReadOptions, RecordSource, scan_files
from detzoo.errors import CheckpointError, DataError, UsageError
from detzoo.recipes.four_step_plan import (
    CONFIG_FILE,
    FIRST_STAGE_PART,
    PROPOSALS_FILE,
    SHARED_PARTS,
    STEPS,
    StageConfigs,
    Step,
    config_of_proposals,
    config_of_step,
    num_proposals,
    write_recipe,
)
from detzoo.train.run_record import RunRecord, read_finished, write_finished
from detzoo.train.session import train_pipeline
from detzoo.train.settings import dtype_policy_of
from detzoo.train.stop import StopNow, StopRequest
from detzoo.train.strategy import workers_of_environment

# (config of a first stage, folder of its checkpoint, file): writes the proposals of the config's train_input_reader and
# gives the number of images.
WriteProposals = Callable[[Any, pathlib.Path, pathlib.Path], int]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class MergedRun:
    """What a whole run made.

    Attributes:
        checkpoint: prefix of the merged checkpoint.
        checkpoints: folder of a step -> prefix of its last checkpoint.
        parts: part of the model -> number of the step that it is of.
    """

    checkpoint: str
    checkpoints: dict[str, str]
    parts: dict[str, int]


def train_four_step(
    pipeline: Any,
    model_dir: str | pathlib.Path,
    strategy_name: str,
    stages: StageConfigs,
    write_proposals: WriteProposals,
    stop: StopRequest,
    allow_random_weights: bool = False,
) -> MergedRun | None:
    """Runs what is left of the four steps, and merges.

    Args:
        pipeline: a ``TrainEvalPipelineConfig`` of a whole two-stage detector that ``check_pipeline_for_recipe`` and
            ``config.check`` passed.
        model_dir: of the run; ``check_folder`` passed it.
        strategy_name: as for ``train_pipeline``, of one machine.
        stages: ``pipeline`` for the trainings of each stage.
        write_proposals: writes the proposals of the training set.
        stop: entered already.
        allow_random_weights: as for ``train_pipeline``.

    Returns:
        What it made; None where a signal came first: the same call goes on.

    Raises:
        DetzooError: what the user can mend.
    """
    folder = pathlib.Path(model_dir)
    if strategy_name == "multi_worker" or workers_of_environment() > 1:
        raise UsageError("the 4-step training runs on one machine: unset TF_CONFIG, use --strategy auto")
    check_image_ids(pipeline.train_input_reader)
    variables = _variables_of(pipeline)
    trains = {path: can_train for path, (_, can_train) in variables.items()}
    configs = {step: config_of_step(step, stages, folder, trains) for step in STEPS}
    if pipeline.train_config.eval_every_n_steps:
        logger.warning("train_config.eval_every_n_steps has no effect here: evaluate the merged model at the end")
    write_recipe(folder, {})
    save_pipeline(pipeline, folder / CONFIG_FILE)
    record = RunRecord(folder, recipe="4-step training")
    for step in STEPS:
        gc.collect()  # the detectors of the steps before are in circles of references
        if not _run(step, configs[step], pipeline, folder, strategy_name, write_proposals, stop, allow_random_weights):
            record.close(
                last_step=step.folder, ended_by=f"stopped by {stop.signal.name if stop.signal else 'a signal'}"
            )
            return None
    shapes = {path: shape for path, (shape, _) in variables.items()}
    merged = merge_steps(folder, shapes)
    record.close(last_step=STEPS[-1].folder, ended_by="merged")
    return merged


def merge_steps(folder: pathlib.Path, shapes: Mapping[str, tuple[int, ...]]) -> MergedRun:
    """Merges the checkpoints of steps 3 and 4 into one of the whole detector, in the run's folder.

    Args:
        folder: of the run, its steps finished.
        shapes: path -> shape of the whole detector's variables.

    Raises:
        CheckpointError: the backbones of the two are not identical, or they lack something of the detector.
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
    write_recipe(folder, {"steps": done, "checkpoints": checkpoints, "merged": prefix})
    write_finished(folder, total, total, "merged the four steps")
    return MergedRun(prefix, checkpoints, {part_of(path): _source_of(part_of(path)) for path in shapes})


def check_image_ids(reader: Any) -> None:
    """Whether images can be told apart: their proposals are found by ``image/source_id``.

    Raises:
        DataError: fewer than half of the first records have one.
    """
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


def _source_of(part: str) -> int:
    """The step that a part of the merged detector is of."""
    return 2 if part in SHARED_PARTS else 3 if part == FIRST_STAGE_PART else 4


def _run(
    step: Step,
    config: Any,
    pipeline: Any,
    folder: pathlib.Path,
    strategy_name: str,
    write_proposals: WriteProposals,
    stop: StopRequest,
    allow_random_weights: bool,
) -> bool:
    """Does what is left of a step; False where a signal came first."""
    name, here = f"[{step.number}/{len(STEPS)}] {step.folder}", folder / step.folder
    finished = read_finished(here)
    if finished is not None:
        logger.info("%s: finished already, at step %d", name, finished["step"])
        if finished["num_train_steps"] != config.train_config.num_steps:
            logger.warning(
                "%s was to have %d steps, now %d", name, finished["num_train_steps"], config.train_config.num_steps
            )
        return True
    if step.reads_proposals_of:
        proposer = folder / step.reads_proposals_of
        file = proposer / PROPOSALS_FILE
        if not file.is_file():
            logger.info(
                "%s: first the proposals of %s for every training image, at most %d of each -> %s",
                name,
                step.reads_proposals_of,
                num_proposals(pipeline),
                file,
            )
            if not _propose(config_of_proposals(pipeline), proposer, file, write_proposals, stop):
                return False
    logger.info("%s: %s, %d steps: %s", name, step.what, config.train_config.num_steps, step.why)
    if stop.requested:
        return False
    return train_pipeline(config, here, strategy_name, None, stop, allow_random_weights=allow_random_weights).finished


def _propose(
    config: Any, proposer: pathlib.Path, file: pathlib.Path, write_proposals: WriteProposals, stop: StopRequest
) -> bool:
    with contextlib.suppress(StopNow), stop.interruptible():
        num_images = write_proposals(config, proposer, file)
        logger.info("proposals of %d images are in %s", num_images, file)
        return True
    return False


def _variables_of(pipeline: Any) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Path -> shape, and whether it can train, of the whole detector's variables."""
    detector = build_detector(without_pretrained(pipeline.model), dtype_policy=dtype_policy_of(pipeline.train_config))
    trainable = {variable.path for variable in detector.trainable_variables}
    return {
        path: (tuple(variable.shape), path in trainable)
        for path, variable in variables_by_path(detector.variables).items()
    }
