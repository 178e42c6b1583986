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
_WAITING = ("run_once", "max_eval_retries")  # of an evaluation that waits for checkpoints
_TRAINING_ONLY = ("num_train_steps", "checkpoint_every_n", "num_workers")
_WITHOUT_EFFECT = "no effect: "
_ONE_CONFIG = "--pipeline_config_path, one file with the blocks model, train_config, train_input_reader, ..."
_NMS = "--set model.ssd.post_processing.batch_non_max_suppression."
_TPU_ONLY = "nothing, because TPUs are not supported"
_DETECT = (
    "detzoo detect --saved_model=... --images=..., or detzoo evaluate --saved_model=..., which reads records; both "
)
# Flags of the API's programs without a meaning here -> their replacement.
_INSTEAD = {
    **dict.fromkeys(("train_config_path", "input_config_path", "model_config_path", "eval_config_path"), _ONE_CONFIG),
    "inference_graph_path": "--output_directory and --tf1_names, which writes frozen_inference_graph.pb into it",
    "additional_output_tensor_names": "nothing, because `detzoo export` has the outputs of the API and no others",
    "train_batch_size": "--set train_config.batch_size=...",
    "detections_per_class": f"{_NMS}max_detections_per_class=...",
    "use_regular_nms": f"nothing, because it is always on; {_NMS}use_class_agnostic_nms=true turns it off",
    "add_postprocessing_op": "nothing, because `detzoo export --format=tflite` always adds it",
    "max_classes_per_detection": "nothing, because each box has one class",
    **dict.fromkeys(("mode", "gcp_project", "tpu_zone", "num_shards", "iterations_per_loop"), _TPU_ONLY),
    **dict.fromkeys(
        ("inference_graph", "input_tfrecord_paths", "output_tfrecord_path", "discard_image_pixels"),
        f"{_DETECT}write detections.json",
    ),
}
EVAL_ON_TRAIN_SAMPLE = 5  # the trainer's default for --sample_1_of_n_eval_on_train_examples


def define_trainer_flags(flag_values: flags.FlagValues) -> None:
    """Defines the trainer's flags that are not ``detzoo train``'s own."""
    define = Definer(flag_values, API_PREFIX)
    define.string("checkpoint_dir", "it made the trainer evaluate: use `detzoo evaluate`.")
    _define_evaluation_flags(define, *["evaluation only, see `detzoo evaluate`."] * 4)
    define.boolean("record_summaries", "write TensorBoard's events.", True)
    text = "more than one: train on the machines in TF_CONFIG, as --strategy multi_worker does."
    define.integer("num_workers", text, minimum=1)
    define.alias("worker_replicas", "num_workers")
    define.alias("train_dir", "model_dir")
    define.integer("ps_tasks", "number of parameter servers: --strategy=parameter_server.", 0)
    for name in ("task", "num_clones"):
        define.integer(name, _WITHOUT_EFFECT + "TF_CONFIG has the index of a machine, and all its GPUs train together.")
    define.string("master", _WITHOUT_EFFECT + "TF_CONFIG has the addresses.")
    define.boolean("clone_on_cpu", _WITHOUT_EFFECT + "CUDA_VISIBLE_DEVICES=-1 hides the GPUs.", None)
    define.boolean("eval_training_data", "evaluation only.", None)
    _define_waiting_flags(define, "evaluation only.")
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
    define.alias("eval_training_data", "eval_on_train_data")
    define.alias("eval_dir", "output_dir")
    _define_waiting_flags(define, _WITHOUT_EFFECT + "one checkpoint is measured without --continuous.")
    define.string("model_dir", "results go to its folder eval.")
    define.boolean("record_summaries", "write TensorBoard's events.", True)
    for name in _TRAINING_ONLY:
        define.integer(name, "training only.")
    _define_tpu_flags(define)


def define_exporter_flags(flag_values: flags.FlagValues) -> None:
    """Defines the exporter's flags that are not ``detzoo export``'s own."""
    define = Definer(flag_values, API_PREFIX)
    for name in ("trained_checkpoint_prefix", "checkpoint_path"):
        define.alias(name, "trained_checkpoint_dir")
    define.string("input_shape", _WITHOUT_EFFECT + "the model takes images of any size, some at a time.")
    define.boolean("write_inference_graph", _WITHOUT_EFFECT + "--tf1_names writes the frozen graph.", None)
    define.string("config_override", "protobuf text that is merged into the config; --set changes single fields.", "")
    text = _WITHOUT_EFFECT + "a model with context_config always has context_features and valid_context_size."
    define.boolean("use_side_inputs", text, None)
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
    if flag_values.ps_tasks:
        raise UsageError(
            f"--ps_tasks={flag_values.ps_tasks}: --strategy=parameter_server trains on the parameter servers that "
            "TF_CONFIG names"
        )
    _report_unused(flag_values, ("task", "num_clones", "master", "clone_on_cpu"))
    for name in _given(flag_values, (*_EVALUATION_ONLY, "eval_training_data", *_WAITING)):
        logger.info("--%s has no effect on training; `detzoo evaluate` takes it", name)


def check_evaluation_flags(flag_values: flags.FlagValues) -> None:
    """Refuses a TPU, and reports flags without effect on an evaluation.

    Raises:
        UsageError: The flags ask for a TPU.
    """
    _refuse_tpu(flag_values)
    for name in _given(flag_values, _TRAINING_ONLY):
        logger.info("--%s has no effect on an evaluation", name)
    _report_unused(flag_values, _WAITING)


def check_exporter_flags(flag_values: flags.FlagValues) -> None:
    """Reports flags without effect on an export."""
    _report_unused(flag_values, ("use_side_inputs", "input_shape", "write_inference_graph"))


def instead_of(name: str) -> str:
    """Returns the replacement of an unknown flag of the API as the end of a sentence, "" for other flags."""
    return f" (of the Object Detection API); here: {_INSTEAD[name]}" if name in _INSTEAD else ""


def _report_unused(flag_values: flags.FlagValues, names: Iterable[str]) -> None:
    """Reports flags without effect by their help texts."""
    for name in _given(flag_values, names):
        logger.info("--%s has %s", name, str(flag_values[name].help).removeprefix(API_PREFIX).rstrip("."))


def _define_waiting_flags(define: Definer, text: str) -> None:
    define.boolean("run_once", text, None)
    define.integer("max_eval_retries", text)


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
