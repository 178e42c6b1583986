"""One session of a run: builds the objects of a config, resumes or warm-starts, and trains to the end."""

from __future__ import annotations

import contextlib
import copy
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from detzoo.builders.detector import build_detector, without_pretrained
from detzoo.builders.inputs import build_dataset
from detzoo.builders.optimizer import build_optimizer, moving_average_decay
from detzoo.builders.resize import build_model_resizer
from detzoo.checkpoints.restore import BACKBONE, BOX_BACKBONE, part_of, warm_start
from detzoo.config.load import save_pipeline
from detzoo.config.stages import memory_of
from detzoo.errors import DetzooError, UsageError
from detzoo.features.pretrained import MissingWeightsError
from detzoo.folders import CONFIG_FILE, reserved
from detzoo.train.asynchronous import AsynchronousTrainer, serve
from detzoo.train.loop import Outcome, TrainingLoop
from detzoo.train.run_record import RunRecord
from detzoo.train.saving import saved_prefixes
from detzoo.train.settings import dtype_policy_of, fine_tune_type_of, precision_warning, settings_from_config
from detzoo.train.shared_evaluation import SharedEvaluation, own_share
from detzoo.train.stop import StopRequest
from detzoo.train.strategy import PARAMETER_SERVER, create_strategy, is_chief, num_workers, role_among_servers
from detzoo.train.summaries import EVAL, Summaries
from detzoo.train.trainer import DatasetFactory, Trainer
from detzoo.train.workers import check_data_service, check_same_config, check_same_start, report_lost_workers

logger = logging.getLogger(__name__)


def train_pipeline(
    pipeline: Any,
    model_dir: str | pathlib.Path,
    strategy_name: str,
    make_evaluator: Callable[[tf.distribute.InputContext, bool], Any] | None,
    stop: StopRequest,
    record_summaries: bool = True,
    allow_random_weights: bool = False,
) -> Outcome:
    """Trains the model of a config, starting from the newest checkpoint in ``model_dir``.

    Args:
        pipeline: Checked ``TrainEvalPipelineConfig`` with overrides applied.
        model_dir: Folder for checkpoints, events, pipeline.config and run.json.
        strategy_name: One of ``strategy.STRATEGIES``.
        make_evaluator: Factory of the ``Evaluator`` that runs every ``eval_every_n_steps``, from a worker's share of
            the records and a flag for pictures; called once before training, so that problems of the evaluation data
            are reported early.
        stop: Stop request, entered already.
        record_summaries: Write TensorBoard events.
        allow_random_weights: Train from random weights if ImageNet's are not available, instead of raising.
    """
    folder = pathlib.Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if strategy_name == PARAMETER_SERVER and role_among_servers() != "chief":
        serve(stop)
        return Outcome(0, False, "the chief has ended, which has the results")
    strategy = create_strategy(strategy_name)
    with report_lost_workers(strategy), contextlib.ExitStack() as stack:
        refused = None
        if is_chief(strategy):
            try:
                stack.enter_context(reserved(folder, "--model_dir"))
            except DetzooError as problem:
                refused = problem
        check_same_config(strategy, pipeline, folder, refused)
        return _train(
            pipeline,
            folder,
            strategy_name,
            strategy,
            make_evaluator,
            stop,
            record_summaries=record_summaries,
            allow_random_weights=allow_random_weights,
        )


def _train(
    pipeline: Any,
    folder: pathlib.Path,
    strategy_name: str,
    strategy: tf.distribute.Strategy,
    make_evaluator: Callable[[tf.distribute.InputContext, bool], Any] | None,
    stop: StopRequest,
    record_summaries: bool,
    allow_random_weights: bool,
) -> Outcome:
    """Trains in the reserved folder, with one config for all workers."""
    warning = precision_warning(dtype_policy_of(pipeline.train_config), bool(tf.config.list_physical_devices("GPU")))
    if warning:
        logger.warning("%s", warning)
    bare = copy.deepcopy(pipeline)
    bare.model.CopyFrom(without_pretrained(pipeline.model))
    facts = {}
    missing = None
    try:  # a checkpoint replaces every pretrained weight
        trainer = build_trainer(bare if saved_prefixes(folder) else pipeline, strategy)
    except MissingWeightsError as problem:
        if allow_random_weights:
            logger.warning("--allow_random_weights: the backbone starts from random weights. %s", problem)
            facts["random_weights"] = str(problem)
        elif pipeline.train_config.fine_tune_checkpoint:
            missing = problem  # reported if the checkpoint does not have the whole backbone
        else:
            raise
        trainer = build_trainer(bare, strategy)
    chief = is_chief(strategy)
    summaries = Summaries(folder, chief and record_summaries)
    evaluator: Any = None
    step = refused = None

    def evaluate(detector: Any) -> Mapping[str, float]:
        result = evaluator.evaluate(detector)
        if result is None:  # the chief has it
            return {}
        summaries.details(EVAL, int(trainer.step), result)
        return result.metrics

    loop = TrainingLoop(trainer, folder, evaluate if make_evaluator else None, stop, summaries=summaries)
    try:
        if make_evaluator and trainer.settings.eval_every_n_steps:
            evaluator = make_evaluator(own_share(strategy), chief and record_summaries)
            if num_workers(strategy) > 1:
                evaluator = SharedEvaluation(evaluator, strategy, stop)
        check_data_service(pipeline.train_input_reader.data_service)
        step = _start(loop, trainer, pipeline.train_config, folder, missing)
    except DetzooError as problem:
        refused = problem
    check_same_start(trainer, folder, step, refused)
    record = None
    if chief:
        save_pipeline(pipeline, folder / CONFIG_FILE)
        record = RunRecord(folder, **_facts(trainer, strategy_name), **facts)
        summaries.start(pipeline, int(trainer.step), trainer.issue)
    try:
        outcome = loop.run()
    except DetzooError as problem:
        if record is not None:
            with contextlib.suppress(OSError):  # a full disk, which is the problem then
                record.close(last_step=int(trainer.step), ended_by=str(problem))
        raise
    if record is not None:
        record.close(last_step=outcome.step, ended_by=outcome.reason)
    return outcome


def build_trainer(
    pipeline: Any, strategy: tf.distribute.Strategy, make_dataset: DatasetFactory | None = None
) -> Trainer:
    """Builds detector, optimizer and input of a checked config, ready for the first step.

    ``make_dataset`` makes the input; by default it reads ``train_input_reader``.
    """
    config = pipeline.train_config
    settings = settings_from_config(config, moving_average_decay(config.optimizer))
    # Not 0: TensorFlow treats the seeds (0, 0) of data sets as unset, and fails if they are tensors.
    keras.utils.set_random_seed(settings.seed + 1)
    with strategy.scope():
        detector = build_detector(pipeline.model, dtype_policy=dtype_policy_of(config))
        optimizer = build_optimizer(config.optimizer)

    is_asynchronous = isinstance(strategy, tf.distribute.ParameterServerStrategy)

    def read_records(start_record: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
        return build_dataset(
            pipeline.train_input_reader,
            build_model_resizer(pipeline.model),
            config,
            training=True,
            batch_size=settings.batch_size,
            seed=settings.seed,
            start_record=start_record,
            input_context=context,
            issue=trainer.issue,
            context=memory_of(pipeline.model),
        )

    arguments = (detector, make_dataset or read_records, optimizer, strategy, settings)
    if is_asynchronous:
        if pipeline.train_input_reader.proposals_path:
            raise UsageError("--strategy parameter_server does not read train_input_reader.proposals_path")
        trainer = AsynchronousTrainer(tf.distribute.coordinator.ClusterCoordinator(strategy), *arguments)
        trainer.issue.is_remote = True
    else:
        trainer = Trainer(*arguments)
    return trainer


def _start(
    loop: TrainingLoop, trainer: Trainer, config: Any, folder: pathlib.Path, missing: MissingWeightsError | None
) -> int | None:
    """Resumes, or warm-starts a new run. Returns the step of the checkpoint, None without one.

    Raises:
        MissingWeightsError: ``missing``, if the warm start left variables of the backbone without weights.
    """
    step = loop.checkpoints.restore_latest()
    if step is not None:
        logger.info("resuming from step %d of %d in %s", step, trainer.settings.num_steps, folder)
    elif config.fine_tune_checkpoint:
        report = warm_start(trainer.detector, config.fine_tune_checkpoint, fine_tune_type_of(config))
        logger.info("%s", report.describe())
        if missing and any(part_of(name) in (BACKBONE, BOX_BACKBONE) for name in report.new):
            raise missing
        if trainer.average is not None:
            trainer.average.reset()
    return step


def _facts(trainer: Trainer, strategy_name: str) -> dict[str, Any]:
    """Returns facts about this session for run.json."""
    strategy, settings = trainer.strategy, trainer.settings
    facts = {
        "seed": settings.seed,
        "strategy": f"{strategy_name}: {type(strategy).__name__}",
        "replicas": strategy.num_replicas_in_sync,
        "devices": [device.name for device in tf.config.list_physical_devices()],
        "batch_size": settings.batch_size,
        "num_train_steps": settings.num_steps,
        "first_step": int(trainer.step),
        "parameters": sum(int(np.prod(variable.shape)) for variable in trainer.model_variables.values()),
        "trainable_parameters": trainer.num_trainable,
        "recompute_batch_norm_batches": settings.recompute_batch_norm_batches,
    }
    logger.info(
        "%s: %s parameters (%s trainable), %d replica(s), batch of %d images",
        trainer.detector.name,
        f"{facts['parameters']:,}",
        f"{facts['trainable_parameters']:,}",
        facts["replicas"],
        settings.batch_size,
    )
    return facts
