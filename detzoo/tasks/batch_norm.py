"""``--recompute_batch_norm N`` of ``detzoo evaluate`` and ``detzoo export``."""

from __future__ import annotations

import logging
from typing import Any

from absl import flags

from detzoo.errors import ConfigError, UsageError

FLAG = "recompute_batch_norm"

logger = logging.getLogger(__name__)


def define_recompute_flag(flag_values: flags.FlagValues) -> None:
    """The flag."""
    text = (
        "Compute the moving statistics of batch normalization from this many training batches (train_input_reader, "
        "train_config.batch_size), instead of those in the checkpoint. For short trainings; 100 is plenty."
    )
    flags.DEFINE_integer(FLAG, None, text, lower_bound=1, flag_values=flag_values)


def check_recompute_flag(flag_values: flags.FlagValues, loaded: Any) -> None:
    """Refuses the flag if there are no statistics or no training batches, before anything is built.

    Raises:
        UsageError: The flag goes with a checkpoint alone.
        ConfigError: The model trains no such statistics, or the training records cannot be read.
    """
    if flag_values[FLAG].value is None:
        return
    from detzoo.config.batch_norm import trained_statistics
    from detzoo.config.check.pipeline import check_pipeline
    from detzoo.config.problems import Severity, format_problems

    if "saved_model" in flag_values and flag_values.saved_model:
        raise UsageError(f"--{FLAG} needs a checkpoint: statistics of an exported model are part of its weights")
    if not trained_statistics(loaded.message):
        raise ConfigError(
            f"--{FLAG}: {loaded.path} has no batch normalization whose statistics training moves (none at all, or all "
            "of it is frozen); leave the flag out"
        )
    problems = [
        problem
        for problem in check_pipeline(loaded)
        if problem.severity >= Severity.TO_SET and problem.path.split(".")[0] == "train_input_reader"
    ]
    if problems:
        raise ConfigError(format_problems(problems, loaded.path))


def prepare_statistics(detector: Any, message: Any, num_batches: int | None, step: int) -> dict[str, Any]:
    """Recomputes a restored detector's statistics if the flag asks for it, else warns if they are mostly initial.

    Args:
        detector: With the weights of a checkpoint.
        message: Its ``TrainEvalPipelineConfig``.
        num_batches: The flag.
        step: Training step of the checkpoint, 0 if it is unknown.

    Returns:
        Facts for the record of the result: {"recompute_batch_norm": batches, images and layers}, or {}.

    Raises:
        ConfigError: ``train_config`` does not fit, such as a batch size of 0.
        DataError: The training records give no batch.
    """
    from detzoo.config.batch_norm import HOW_TO_RECOMPUTE, arrival_warning, recomputed_batches, trained_statistics

    config = message.train_config
    if num_batches is None:
        momenta = [part.momentum for part in trained_statistics(message)]
        # A published checkpoint does not state its steps; its statistics are those of a long training.
        warning = arrival_warning(momenta, step) if step and not recomputed_batches(config) else ""
        if warning:
            logger.warning("%s. %s", warning, HOW_TO_RECOMPUTE)
        return {}
    import dataclasses

    from detzoo.builders.inputs import build_dataset
    from detzoo.builders.resize import build_model_resizer
    from detzoo.detectors.batch_norm_statistics import BatchNormStatistics
    from detzoo.train.variables import select_trainable

    select_trainable(detector, config.update_trainable_variables, config.freeze_variables)
    dataset = build_dataset(
        message.train_input_reader,
        build_model_resizer(message.model),
        config,
        training=True,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    done = BatchNormStatistics(detector, dataset).recompute(num_batches)
    config.recompute_batch_norm.num_batches = num_batches  # in the config that an export writes, too
    logger.info(
        "recomputed %d batch normalizations from %d training batches (%d images)",
        done.num_layers,
        done.num_batches,
        done.num_images,
    )
    return {FLAG: dataclasses.asdict(done)}
