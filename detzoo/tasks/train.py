"""Trains the detector of a config.

from detzoo.tasks.train import train

training = train("my.config", "runs/my", overrides=["train_config.batch_size=16"])
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.problems import Severity, cannot_start, format_problems
from detzoo.errors import ConfigError, UsageError
from detzoo.extras import require_extras
from detzoo.folders import make_folder
from detzoo.tasks.models import Pipeline, load_checked, start_tensorflow

if TYPE_CHECKING:
    from detzoo.train.stop import StopRequest

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "parameter_server")

logger = logging.getLogger(__name__)


class Training(NamedTuple):
    """The state of a run after a call of ``train``."""

    model_dir: pathlib.Path
    step: int  # of the last checkpoint
    reason: str  # why it ended there
    num_train_steps: int  # that were asked for
    was_finished: bool = False  # whether an earlier call had done all steps, so that this one did nothing


def train(
    pipeline: Pipeline,
    model_dir: str | pathlib.Path,
    *,
    overrides: Sequence[str] = (),
    num_train_steps: int | None = None,
    checkpoint_every_n: int | None = None,
    strategy: str = "auto",
    record_summaries: bool = True,
    allow_random_weights: bool = False,
) -> Training:
    """Trains a detector from the newest checkpoint in ``model_dir`` on; a first SIGTERM or Ctrl-C saves one and ends.

    Args:
        pipeline: See ``detzoo.tasks``.
        model_dir: Folder for checkpoints, TensorBoard's events, pipeline.config and run.json.
        overrides: See ``detzoo.tasks``.
        num_train_steps: Steps in total; None for ``train_config.num_steps``.
        checkpoint_every_n: Steps between checkpoints; None for ``train_config.checkpoint_every_n_steps``.
        strategy: One of ``STRATEGIES``.
        record_summaries: Write TensorBoard's events.
        allow_random_weights: Train from random weights if ImageNet's are not available, rather than raise.

    Raises:
        UsageError: The number of steps is missing, or the folder cannot be used.
        KeyboardInterrupt: Ctrl-C ended the training; a checkpoint is saved.
    """
    loaded = load_checked(pipeline, overrides)
    config = loaded.message.train_config
    require_extras("training", *extras_of_training(loaded.message))
    if loaded.message.model.HasField("spp_net"):
        raise UsageError(f"{loaded.path}: model.spp_net is trained in several steps, by tasks.recipes.train_spp_net")
    set_counts(loaded, num_train_steps, checkpoint_every_n)
    from detzoo.train.run_record import read_finished

    finished = read_finished(model_dir)
    if finished is not None and finished["num_train_steps"] >= config.num_steps:
        return Training(pathlib.Path(model_dir), finished["step"], finished["reason"], config.num_steps, True)
    check_training(loaded)
    folder = make_folder(model_dir, "--model_dir")
    with stoppable() as stop:
        from detzoo.train.session import train_pipeline

        outcome = train_pipeline(
            loaded.message,
            folder,
            strategy,
            lambda share, draws: make_evaluation(loaded.message, draws, share),
            stop,
            record_summaries,
            allow_random_weights,
        )
        logger.info("step %d: %s. Results are in %s", outcome.step, outcome.reason, model_dir)
    return Training(folder, outcome.step, outcome.reason, config.num_steps)


@contextlib.contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Starts TensorFlow, lets a first SIGTERM or Ctrl-C ask for the end, and raises KeyboardInterrupt after Ctrl-C."""
    from detzoo.train.stop import StopRequest

    with StopRequest() as stop:
        logger.info("starting TensorFlow ...")
        start_tensorflow()
        yield stop
        if stop.signal is not None and stop.signal.name == "SIGINT":
            raise KeyboardInterrupt


def check_training(loaded: Any, needs_steps: bool = True) -> None:
    """Reports every problem of a config before TensorFlow starts: warnings are logged, errors raised.

    Args:
        loaded: The ``LoadedPipeline``.
        needs_steps: Whether a number of steps must be set.

    Raises:
        ConfigError: Lists every error, warning and path that is still to be set.
        UsageError: The number of steps is missing.
    """
    problems = check_pipeline(loaded)
    if cannot_start(problems):
        serious = [problem for problem in problems if problem.severity is not Severity.NOTE]
        raise ConfigError(format_problems(serious, loaded.path))
    if needs_steps and loaded.message.train_config.num_steps == 0:
        raise UsageError("how many steps? Set train_config.num_steps or --num_train_steps")
    for problem in problems:
        if problem.severity is Severity.WARNING:
            logger.warning("%s", problem.format(loaded.path))


def set_counts(loaded: Any, num_train_steps: int | None, checkpoint_every_n: int | None) -> None:
    """Sets the steps of a loaded config, and those between checkpoints, unless they are None."""
    config = loaded.message.train_config
    if num_train_steps is not None:
        config.num_steps = num_train_steps
    if checkpoint_every_n is not None:
        config.checkpoint_every_n_steps = checkpoint_every_n


def extras_of_training(pipeline: Any) -> tuple[str, ...]:
    """Names the extras of pip that training a ``pb.TrainEvalPipelineConfig`` needs."""
    return ("train", "spp") if pipeline.model.HasField("spp_net") else ("train",)


def make_evaluation(message: Any, draws: bool = True, share: Any = None) -> Any:
    """Returns the ``Evaluator`` that runs while training, on this worker's share of the first eval_input_reader.

    Raises:
        UsageError: The config has no eval_input_reader.
    """
    from detzoo.tasks.evaluate import make_evaluator

    if not message.eval_input_reader:
        raise UsageError(
            "train_config.eval_every_n_steps is set, but the config has no eval_input_reader to evaluate on; add one, "
            "or --set train_config.eval_every_n_steps=0"
        )
    return make_evaluator(message, draws, share)
