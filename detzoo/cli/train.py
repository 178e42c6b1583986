"""``detzoo train``."""

from __future__ import annotations

import logging
import pathlib
import sys
from typing import Any

from absl import flags

from detzoo.cli.api_flags import check_trainer_flags, define_trainer_flags
from detzoo.cli.flags import define_pipeline_flags, define_random_weights_flag, load_pipeline_from_flags
from detzoo.errors import ConfigError, UsageError
from detzoo.extras import require_extras
from detzoo.folders import make_folder

SUMMARY = "Train what a pipeline.config describes; run again, it resumes."
DESCRIPTION = """
Writes checkpoints, TensorBoard events, the resolved pipeline.config and run.json into --model_dir. Started again with
the same --model_dir, it goes on from the newest checkpoint; Ctrl-C or SIGTERM saves one first.

    detzoo train --pipeline_config_path my.config --model_dir runs/my
    detzoo train --pipeline_config_path my.config --model_dir runs/my --num_train_steps 5000 --checkpoint_every_n 500
    detzoo train --pipeline_config_path my.config --model_dir runs/my --set train_config.batch_size=16
    tensorboard --logdir runs/my

A config with model.spp_net runs its chain instead: feature maps on disk, fine-tuning, SVMs, box regression, each in a
folder of its own in --model_dir; run again, it goes on in the step where it was.

train_config has the rest: eval_every_n_steps, best_checkpoint_metric (kept in model_dir/best), early_stopping,
mixed_precision, fine_tune_checkpoint, freeze_variables. Several machines: the same command on each, with TF_CONFIG set
and a --model_dir that all of them see. Workers with another config, step or weights than the first refuse to start.

An evaluation that fails is reported, the weights are saved, and training continues; if the last one fails, the exit
code is 1, and the same command evaluates again. A --model_dir that another training uses is refused.
"""
POSITIONAL = ()

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """The flags of the Object Detection API's trainer that have a meaning here, and --strategy, --set."""
    define_pipeline_flags(flag_values)
    flags.DEFINE_string("model_dir", None, "Folder of the run.", flag_values=flag_values, required=True)
    flags.DEFINE_integer(
        "num_train_steps",
        None,
        "Steps in total, instead of train_config.num_steps.",
        lower_bound=1,
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "checkpoint_every_n",
        None,
        "Steps between checkpoints, instead of train_config.checkpoint_every_n_steps.",
        lower_bound=1,
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "strategy",
        "auto",
        list(STRATEGIES),
        "Which devices: one, all of this machine, or the cluster in TF_CONFIG; auto looks.",
        flag_values=flag_values,
    )
    define_random_weights_flag(flag_values)
    define_trainer_flags(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Checks the config, then trains."""
    from detzoo.train.stop import StopRequest

    check_trainer_flags(flag_values)
    loaded = load_pipeline_from_flags(flag_values)
    require_extras("training", *extras_of_training(loaded.message))
    config = loaded.message.train_config
    if flag_values.num_train_steps is not None:
        config.num_steps = flag_values.num_train_steps
    if flag_values.checkpoint_every_n is not None:
        config.checkpoint_every_n_steps = flag_values.checkpoint_every_n
    if loaded.message.model.HasField("spp_net"):
        _run_chain(loaded, flag_values)
        return
    if is_finished(flag_values.model_dir, config.num_steps):
        return
    check(loaded)
    make_folder(flag_values.model_dir, "--model_dir")
    with StopRequest() as stop:
        logger.info("starting TensorFlow ...")
        outcome = _train(loaded.message, flag_values, stop)
        logger.info("step %d: %s. Results are in %s", outcome.step, outcome.reason, flag_values.model_dir)
        if stop.signal is not None and stop.signal.name == "SIGINT":
            raise KeyboardInterrupt


def extras_of_training(pipeline: Any) -> tuple[str, ...]:
    """Names the extras of pip that training a ``pb.TrainEvalPipelineConfig`` needs."""
    return ("train", "spp") if pipeline.model.HasField("spp_net") else ("train",)


def _run_chain(loaded: Any, flag_values: flags.FlagValues) -> None:
    """Trains SPP-net in its steps."""
    from detzoo.cli.recipes import report_finished, run_recipe
    from detzoo.recipes.spp.plan import RECIPE, check_folder, make_plan

    folder = pathlib.Path(flag_values.model_dir)
    if report_finished(RECIPE, folder, "all steps of SPP-net are done", "its folder"):
        return
    check(loaded, needs_steps=False)
    plan = make_plan(loaded.message, loaded.path)

    def train(stop: Any) -> Any:
        from detzoo.recipes.spp.chain import train_spp_net

        return train_spp_net(loaded.message, folder, plan, flag_values.strategy, stop)

    run_recipe(folder, check_folder(folder, loaded.message), train)


def is_finished(model_dir: str, num_steps: int) -> bool:
    """Whether the run has ended by itself already and needs no more steps; says so. Needs no TensorFlow."""
    from detzoo.train.run_record import read_finished

    finished = read_finished(model_dir)
    if finished is None or finished["num_train_steps"] < num_steps:
        return False
    print(
        f"{model_dir} is finished: step {finished['step']}, {finished['reason']}. To train on, raise --num_train_steps "
        f"(now {num_steps}); to train anew, use another --model_dir",
        file=sys.stderr,
    )
    return True


def check(loaded: Any, needs_steps: bool = True) -> None:
    """Every problem of the config, before TensorFlow starts: warnings are printed, errors raised.

    Args:
        loaded: The config.
        needs_steps: Whether a number of steps must be set.

    Raises:
        ConfigError: with every error, warning and path that is still to be set, one a line.
        UsageError: the number of steps is missing.
    """
    from detzoo.config.check.pipeline import check_pipeline
    from detzoo.config.problems import Severity, cannot_start, format_problems

    problems = check_pipeline(loaded)
    if cannot_start(problems):
        serious = [problem for problem in problems if problem.severity is not Severity.NOTE]
        raise ConfigError(format_problems(serious, loaded.path))
    if needs_steps and loaded.message.train_config.num_steps == 0:
        raise UsageError("how many steps? Set train_config.num_steps or --num_train_steps")
    for problem in problems:
        if problem.severity is Severity.WARNING:
            print(problem.format(loaded.path), file=sys.stderr)


def _train(pipeline: Any, flag_values: flags.FlagValues, stop: Any) -> Any:
    from detzoo.tasks.models import start_tensorflow

    start_tensorflow()
    from detzoo.train.session import train_pipeline

    several = (flag_values.num_workers or 1) > 1 and flag_values.strategy == "auto"
    return train_pipeline(
        pipeline,
        flag_values.model_dir,
        "multi_worker" if several else flag_values.strategy,
        lambda: make_evaluate(pipeline),
        stop,
        flag_values.record_summaries,
        flag_values.allow_random_weights,
    )


def make_evaluate(pipeline: Any) -> Any:
    """The evaluation while training: detector -> metrics, on the first eval_input_reader.

    Raises:
        UsageError: the config has none.
    """
    from detzoo.cli.evaluate import make_evaluator

    if not pipeline.eval_input_reader:
        raise UsageError(
            "train_config.eval_every_n_steps is set, but the config has no eval_input_reader to evaluate on; add one, "
            "or --set train_config.eval_every_n_steps=0"
        )
    return make_evaluator(pipeline)
