"""Flags of the Object Detection API's programs that belong to another command here, or to none.

Its users have them in scripts, so each flag is accepted where the API accepts it. A flag without effect is reported; a
flag that asks for a missing feature is an error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from absl import flags

from detzoo.cli.flags import Definer
from detzoo.cli.help import API_PREFIX
from detzoo.errors import UsageError

logger = logging.getLogger(__name__)

_EVALUATION_ONLY = (
    "eval_on_train_data",
    "sample_1_of_n_eval_examples",
    "sample_1_of_n_eval_on_train_examples",
    "eval_timeout",
)
_TRAINING_ONLY = ("num_train_steps", "checkpoint_every_n", "num_workers")
EVAL_ON_TRAIN_SAMPLE = 5  # the trainer's default for --sample_1_of_n_eval_on_train_examples


def define_trainer_flags(flag_values: flags.FlagValues) -> None:
    """Defines the trainer's flags that are not ``detzoo train``'s own."""
    define = Definer(flag_values, API_PREFIX)
    define.string("checkpoint_dir", "it made the trainer evaluate: use `detzoo evaluate`.")
    _define_evaluation_flags(define, *["evaluation only, see `detzoo evaluate`."] * 4)
    define.boolean("record_summaries", "write TensorBoard's events.", True)
    text = "more than one: train on the machines in TF_CONFIG, as --strategy multi_worker does."
    define.integer("num_workers", text, minimum=1)
    _define_tpu_flags(define)


def define_evaluation_flags(flag_values: flags.FlagValues) -> None:
    """Defines the trainer's flags that ``detzoo evaluate`` accepts: those for evaluations, and those without effect."""
    define = Definer(flag_values, API_PREFIX)
    _define_evaluation_flags(
        define,
        "measure on train_input_reader, on every 5th image.",
        "measure on every n-th image.",
        "the same with --eval_on_train_data, 5 by default.",
        "--timeout_secs under its old name.",
    )
    define.string("model_dir", "results go to its folder eval.")
    define.boolean("record_summaries", "write TensorBoard's events.", True)
    for name in _TRAINING_ONLY:
        define.integer(name, "training only.")
    _define_tpu_flags(define)


def define_exporter_flags(flag_values: flags.FlagValues) -> None:
    """Defines the exporter's flags that are not ``detzoo export``'s own."""
    define = Definer(flag_values, API_PREFIX)
    define.string("config_override", "protobuf text that is merged into the config; --set changes single fields.", "")
    text = "No effect: a model with context_config always has the inputs context_features and valid_context_size."
    define.boolean("use_side_inputs", text)
    for name in ("side_input_shapes", "side_input_types", "side_input_names"):
        define.string(name, text)


def check_trainer_flags(flag_values: flags.FlagValues) -> None:
    """Refuses flags for evaluation or a TPU, and reports flags without effect on training.

    Raises:
        UsageError: The flags ask for evaluation, a TPU, or several workers without a cluster.
    """
    if flag_values.checkpoint_dir is not None:
        raise UsageError(
            "--checkpoint_dir means evaluation, which has its own command: detzoo evaluate "
            f"--pipeline_config_path={flag_values.pipeline_config_path} --checkpoint_dir={flag_values.checkpoint_dir} "
            f"--output_dir={flag_values.model_dir}/eval"
        )
    _refuse_tpu(flag_values)
    if (flag_values.num_workers or 1) > 1 and not os.environ.get("TF_CONFIG"):
        raise UsageError(
            f"--num_workers={flag_values.num_workers} needs TF_CONFIG on every machine: the addresses of all machines, "
            "and the index of this one; on one machine all its GPUs train together without it"
        )
    for name in _given(flag_values, _EVALUATION_ONLY):
        logger.info("--%s has no effect on training; `detzoo evaluate` takes it", name)


def check_evaluation_flags(flag_values: flags.FlagValues) -> None:
    """Refuses a TPU, and reports flags without effect on an evaluation.

    Raises:
        UsageError: The flags ask for a TPU.
    """
    _refuse_tpu(flag_values)
    for name in _given(flag_values, _TRAINING_ONLY):
        logger.info("--%s has no effect on an evaluation", name)


def check_exporter_flags(flag_values: flags.FlagValues) -> None:
    """Reports flags without effect on an export."""
    if flag_values.use_side_inputs:
        logger.info(
            "--use_side_inputs has no effect: a model with context_config always has the inputs context_features and "
            "valid_context_size, other models have none"
        )


def _given(flag_values: flags.FlagValues, names: Iterable[str]) -> list[str]:
    return [name for name in names if flag_values[name].value is not None]


def _define_evaluation_flags(
    define: Definer, on_train_data: str, sample: str, sample_on_train_data: str, timeout: str
) -> None:
    define.boolean("eval_on_train_data", on_train_data, None)
    define.integer("sample_1_of_n_eval_examples", sample, minimum=1)
    define.integer("sample_1_of_n_eval_on_train_examples", sample_on_train_data, minimum=1)
    define.number("eval_timeout", timeout)


def _define_tpu_flags(define: Definer) -> None:
    define.boolean("use_tpu", "not supported.")
    define.string("tpu_name", "no effect without --use_tpu.")


def _refuse_tpu(flag_values: flags.FlagValues) -> None:
    if flag_values.use_tpu:
        raise UsageError("--use_tpu: TPUs are not supported; detzoo uses the GPUs or the CPU of each machine")
