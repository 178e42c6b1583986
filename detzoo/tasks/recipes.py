"""Trainings of several steps: the chain of SPP-net, and the 4-step training of two-stage detectors."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from detzoo.errors import UsageError
from detzoo.extras import require_extras
from detzoo.folders import make_folder, reserved
from detzoo.tasks.models import Pipeline, load_checked
from detzoo.tasks.propose import write_training_proposals
from detzoo.tasks.train import check_training, extras_of_training, set_counts, stoppable

ONE_MACHINE_STRATEGIES = ("auto", "one_device", "mirrored")

logger = logging.getLogger(__name__)


class RecipeRun(NamedTuple):
    """The state of a run after a call: finished, or interrupted by SIGTERM."""

    folder: pathlib.Path
    made: tuple[tuple[str, str], ...] | None  # (path, content) of each result; None if steps are left
    was_finished: bool = False  # whether an earlier call had done all steps, so that this one did nothing


def train_spp_net(
    pipeline: Pipeline,
    model_dir: str | pathlib.Path,
    *,
    overrides: Sequence[str] = (),
    num_train_steps: int | None = None,
    checkpoint_every_n: int | None = None,
    strategy: str = "auto",
) -> RecipeRun:
    """Runs the remaining steps of SPP-net's chain: feature maps, fine-tuning, SVMs, box regression.

    The arguments are those of ``detzoo.tasks.train.train``; the step counts are those of the fine-tuning.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the training; the finished steps are kept.
    """
    from detzoo.recipes.spp.plan import RECIPE, check_folder, make_plan

    loaded, folder = load_checked(pipeline, overrides), pathlib.Path(model_dir)
    require_extras("training", *extras_of_training(loaded.message))
    set_counts(loaded, num_train_steps, checkpoint_every_n)
    if RECIPE.is_finished(folder):
        return RecipeRun(folder, (), was_finished=True)
    check_training(loaded, needs_steps=False)
    plan = make_plan(loaded.message, loaded.path)

    def run_steps(stop: Any) -> Any:
        from detzoo.recipes.spp.chain import train_spp_net

        return train_spp_net(loaded.message, folder, plan, strategy, stop)

    return _run(folder, check_folder(folder, loaded.message), run_steps)


def train_four_step(
    pipeline: Pipeline,
    model_dir: str | pathlib.Path,
    *,
    overrides: Sequence[str] = (),
    num_train_steps: int | None = None,
    rpn_steps: int | None = None,
    box_steps: int | None = None,
    checkpoint_every_n: int | None = None,
    rpn_set: Sequence[str] = (),
    box_set: Sequence[str] = (),
    strategy: str = "auto",
    allow_random_weights: bool = False,
) -> RecipeRun:
    """Runs the remaining steps of the 4-step training and merges them into one checkpoint.

    Args:
        pipeline: Config of a whole two-stage detector.
        model_dir: Folder of the run, with a folder for each step.
        overrides: See ``detzoo.tasks``.
        num_train_steps: Training steps of each of the four; None for ``train_config.num_steps``.
        rpn_steps: Training steps of 1 and 3, the first stage; None for ``num_train_steps``.
        box_steps: Training steps of 2 and 4, the second stage; None for ``num_train_steps``.
        checkpoint_every_n: Training steps between checkpoints.
        rpn_set: Overrides of ``train_config`` for 1 and 3.
        box_set: Overrides of ``train_config`` for 2 and 4.
        strategy: One of ``ONE_MACHINE_STRATEGIES``.
        allow_random_weights: Train from random weights if ImageNet's are not available, rather than raise.

    Raises:
        UsageError: A number of steps is missing, or an override of a stage changes more than its training.
        KeyboardInterrupt: Ctrl-C ended the training; a checkpoint is saved.
    """
    from detzoo.recipes.four_step_plan import RECIPE, StageConfigs, check_folder, check_pipeline_for_recipe

    loaded, folder = load_checked(pipeline, overrides), pathlib.Path(model_dir)
    require_extras("training", "train")
    check_pipeline_for_recipe(loaded.message, loaded.path)
    if RECIPE.is_finished(folder):
        return RecipeRun(folder, (), was_finished=True)
    configs: list[Any] = []
    for stage, own, steps in (("rpn", rpn_set, rpn_steps), ("box", box_set, box_steps)):
        wrong = [assignment for assignment in own if not assignment.strip().startswith("train_config.")]
        if wrong:
            raise UsageError(f"--{stage}_set {wrong[0]}: only fields of train_config can differ between the stages")
        of_stage = load_checked(loaded, own)
        set_counts(of_stage, steps or num_train_steps, checkpoint_every_n)
        if of_stage.message not in configs:  # each warning is reported once
            check_training(of_stage)
        configs.append(of_stage.message)
    set_counts(loaded, num_train_steps, checkpoint_every_n)

    def run_steps(stop: Any) -> Any:
        from detzoo.recipes.four_step import train_four_step

        stages, propose = StageConfigs(*configs), write_training_proposals
        return train_four_step(loaded.message, folder, strategy, stages, propose, stop, allow_random_weights)

    return _run(folder, check_folder(folder, loaded.message), run_steps)


def _run(folder: pathlib.Path, changes: Sequence[str], run_steps: Callable[[Any], Any]) -> RecipeRun:
    """Calls ``run_steps`` with the ``StopRequest`` of the run, which returns None if a signal came first."""
    for change in changes:
        logger.warning("changed since this run began, without effect on its finished steps: %s", change)
    make_folder(folder, "--model_dir")
    with reserved(folder, "--model_dir"), stoppable() as stop:
        finished = run_steps(stop)
        if finished is None:
            name = stop.signal.name if stop.signal else "a signal"
            logger.info("stopped by %s. The same command continues from here", name)
    return RecipeRun(folder, None if finished is None else finished.made)
