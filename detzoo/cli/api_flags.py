"""Flags of the Object Detection API's programs that belong to another command here, or to none.

Its users have them in scripts, so each is accepted where the API accepts it. One that would change nothing says so; one
that asks for what is not there is an error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from absl import flags

from detzoo.cli.help import API_PREFIX
from detzoo.errors import UsageError

logger = logging.getLogger(__name__)

_EVALUATION_ONLY = (
    "eval_on_train_data",
    "sample_1_of_n_eval_examples",
    "sample_1_of_n_eval_on_train_examples",
    "eval_timeout",
)
_TRAINING_ONLY = ("num_train_steps", "checkpoint_every_n", "num_workers", "record_summaries")
EVAL_ON_TRAIN_SAMPLE = 5  # the trainer's default for --sample_1_of_n_eval_on_train_examples


def define_trainer_flags(flag_values: flags.FlagValues) -> None:
    """What the trainer takes beside ``detzoo train``'s own flags."""
    text = f"{API_PREFIX}it made the trainer evaluate: use `detzoo evaluate`."
    flags.DEFINE_string("checkpoint_dir", None, text, flag_values=flag_values)
    define_evaluation_flags(flag_values, "evaluation only, see `detzoo evaluate`.")
    flags.DEFINE_bool(
        "record_summaries", True, f"{API_PREFIX}write the curves for TensorBoard.", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "num_workers",
        None,
        f"{API_PREFIX}more than one: train on the machines in TF_CONFIG, as --strategy multi_worker does.",
        lower_bound=1,
        flag_values=flag_values,
    )
    _define_tpu_flags(flag_values)


def define_evaluation_flags(flag_values: flags.FlagValues, no_effect: str = "") -> None:
    """What the trainer takes for its evaluation; ``no_effect`` replaces the meanings where they have none."""
    flags.DEFINE_bool(
        "eval_on_train_data",
        None,
        API_PREFIX + (no_effect or "measure on train_input_reader, on every 5th image."),
        flag_values=flag_values,
    )
    for name, meaning in (
        ("sample_1_of_n_eval_examples", "measure on every n-th image."),
        ("sample_1_of_n_eval_on_train_examples", "the same with --eval_on_train_data, there 5 where it is not given."),
    ):
        flags.DEFINE_integer(name, None, API_PREFIX + (no_effect or meaning), lower_bound=1, flag_values=flag_values)
    flags.DEFINE_float(
        "eval_timeout",
        None,
        API_PREFIX + (no_effect or "--timeout_secs under its old name."),
        lower_bound=0.0,
        flag_values=flag_values,
    )


def define_training_flags_of_evaluation(flag_values: flags.FlagValues) -> None:
    """What one command line of the trainer holds that does not matter to its evaluation."""
    flags.DEFINE_string("model_dir", None, f"{API_PREFIX}results go to its folder eval.", flag_values=flag_values)
    for name in _TRAINING_ONLY:
        define = flags.DEFINE_bool if name == "record_summaries" else flags.DEFINE_integer
        define(name, None, f"{API_PREFIX}training only.", flag_values=flag_values)
    _define_tpu_flags(flag_values)


def define_exporter_flags(flag_values: flags.FlagValues) -> None:
    """What the exporter takes beside ``detzoo export``'s own flags."""
    flags.DEFINE_string(
        "config_override",
        "",
        f"{API_PREFIX}protobuf text that is merged into the config; --set changes single fields.",
        flag_values=flag_values,
    )
    flags.DEFINE_bool("use_side_inputs", False, f"{API_PREFIX}Context R-CNN only.", flag_values=flag_values)
    for name in ("side_input_shapes", "side_input_types", "side_input_names"):
        flags.DEFINE_string(name, None, f"{API_PREFIX}Context R-CNN only.", flag_values=flag_values)


def check_trainer_flags(flag_values: flags.FlagValues) -> None:
    """Refuses what is meant for evaluation or a TPU, and tells what has no effect on training.

    Raises:
        UsageError: evaluation, a TPU, or several workers without a cluster are asked for.
    """
    if flag_values.checkpoint_dir is not None:
        raise UsageError(
            "--checkpoint_dir means evaluation, which has a command of its own: detzoo evaluate "
            f"--pipeline_config_path={flag_values.pipeline_config_path} --checkpoint_dir={flag_values.checkpoint_dir} "
            f"--output_dir={flag_values.model_dir}/eval"
        )
    _refuse_tpu(flag_values)
    if (flag_values.num_workers or 1) > 1 and not os.environ.get("TF_CONFIG"):
        raise UsageError(
            f"--num_workers={flag_values.num_workers} needs TF_CONFIG on every machine: the addresses of all, and "
            "which one this is; on one machine all its GPUs train together without it"
        )
    for name in _given(flag_values, _EVALUATION_ONLY):
        logger.info("--%s has no effect on training; `detzoo evaluate` takes it", name)


def check_evaluation_flags(flag_values: flags.FlagValues) -> None:
    """Refuses a TPU, and tells what has no effect on an evaluation.

    Raises:
        UsageError: a TPU is asked for.
    """
    _refuse_tpu(flag_values)
    for name in _given(flag_values, _TRAINING_ONLY):
        logger.info("--%s has no effect on an evaluation", name)


def check_exporter_flags(flag_values: flags.FlagValues) -> None:
    """Refuses side inputs.

    Raises:
        UsageError: they are asked for.
    """
    if flag_values.use_side_inputs:
        raise UsageError("--use_side_inputs is meant for Context R-CNN, which is not supported")


def _given(flag_values: flags.FlagValues, names: Iterable[str]) -> list[str]:
    return [name for name in names if flag_values[name].value is not None]


def _define_tpu_flags(flag_values: flags.FlagValues) -> None:
    flags.DEFINE_bool("use_tpu", False, f"{API_PREFIX}not supported.", flag_values=flag_values)
    flags.DEFINE_string("tpu_name", None, f"{API_PREFIX}no effect without --use_tpu.", flag_values=flag_values)


def _refuse_tpu(flag_values: flags.FlagValues) -> None:
    if flag_values.use_tpu:
        raise UsageError("--use_tpu: TPUs are not supported; detzoo uses the GPUs or the CPU of each machine")
