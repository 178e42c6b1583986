"""Recomputing the moving statistics of batch normalization, in ``evaluate`` and ``export``."""

from __future__ import annotations

import logging
from typing import Any

from detzoo.config.batch_norm import HOW_TO_RECOMPUTE, arrival_warning, recomputed_batches, trained_statistics
from detzoo.config.problems import format_problems
from detzoo.config.stages import memory_of
from detzoo.errors import ConfigError
from detzoo.tasks.models import TRAIN_READER, reader_problems

FLAG = "recompute_batch_norm"

logger = logging.getLogger(__name__)


def check_recompute(loaded: Any) -> None:
    """Raises ConfigError if a config has no statistics to recompute, or no training records."""
    if not trained_statistics(loaded.message):
        raise ConfigError(
            f"--{FLAG}: {loaded.path} has no batch normalization whose statistics training moves (none at all, or all "
            "of it is frozen); leave the flag out"
        )
    if problems := reader_problems(loaded, TRAIN_READER):
        raise ConfigError(format_problems(problems, loaded.path))


def prepare_statistics(detector: Any, message: Any, num_batches: int | None, step: int) -> dict[str, Any]:
    """Recomputes the statistics of a restored detector, or warns if they are mostly initial values.

    Args:
        detector: Detector with the weights of a checkpoint.
        message: Its ``TrainEvalPipelineConfig``; ``recompute_batch_norm.num_batches`` is set, so that an export writes
            it.
        num_batches: Number of training batches; None to keep the statistics of the checkpoint.
        step: Training step of the checkpoint, 0 if it is unknown.

    Returns:
        Facts for the record of the result: {"recompute_batch_norm": batches, images and layers}, or {}.
    """
    config = message.train_config
    if num_batches is None:
        momenta = [part.momentum for part in trained_statistics(message)]
        # A published checkpoint does not state its step; its statistics are those of a long training.
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
        context=memory_of(message.model),
    )
    done = BatchNormStatistics(detector, dataset).recompute(num_batches)
    config.recompute_batch_norm.num_batches = num_batches
    logger.info(
        "recomputed %d batch normalizations from %d training batches (%d images)",
        done.num_layers,
        done.num_batches,
        done.num_images,
    )
    return {FLAG: dataclasses.asdict(done)}
