"""The part that commands of several training steps share: ``train_four_step``, and ``train`` of an SPP-net."""

from __future__ import annotations

import logging
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from detzoo.folders import make_folder, reserved

CONFIG_FILE = "pipeline.config"

logger = logging.getLogger(__name__)


def report_finished(recipe: Any, folder: pathlib.Path, what: str, repeat: str) -> bool:
    """Returns whether a run in the folder is finished, and reports it. Needs no TensorFlow.

    Args:
        recipe: ``Recipe`` of the run.
        folder: Folder of the run.
        what: Clause that states what is finished.
        repeat: Folders to delete in order to repeat a step.
    """
    if not recipe.is_finished(folder):
        return False
    print(
        f"{folder} is finished: {what}. To train again, use another --model_dir; to repeat a step, delete {repeat} "
        f"and {folder / 'finished'}",
        file=sys.stderr,
    )
    return True


def run_recipe(folder: pathlib.Path, changes: list[str], train: Callable[[Any], Any]) -> None:
    """Runs the remaining steps and prints the results, or that a signal came first.

    Args:
        folder: Folder of the run.
        changes: Differences of the config since the run began that have no effect on finished steps.
        train: Function from the ``StopRequest`` of the run to a ``FinishedRecipe``, or None if a signal came first.

    Raises:
        KeyboardInterrupt: The signal was SIGINT.
    """
    from detzoo.train.stop import StopRequest

    for change in changes:
        logger.warning("changed since this run began, without effect on its finished steps: %s", change)
    make_folder(folder, "--model_dir")
    with StopRequest() as stop, reserved(folder, "--model_dir"):
        logger.info("starting TensorFlow ...")
        from detzoo.tasks.models import start_tensorflow

        start_tensorflow()
        finished = train(stop)
        if finished is None:
            name = stop.signal.name if stop.signal else "a signal"
            logger.info("stopped by %s. The same command continues from here", name)
        else:
            print(_summary(finished.made, folder), flush=True)
        if stop.signal is not None and stop.signal.name == "SIGINT":
            raise KeyboardInterrupt


def _summary(rows: tuple[tuple[str, str], ...], folder: pathlib.Path) -> str:
    """Returns (path, content) of every result, and the command that evaluates the checkpoint."""
    width = max(len(path) for path, _ in rows)
    lines = [f"{path:<{width}}  {content}" for path, content in rows]
    config, output = folder / CONFIG_FILE, folder / "evaluation"
    evaluate = f"detzoo evaluate --pipeline_config_path {config} --checkpoint_dir {folder} --output_dir {output}"
    return "\n".join([*lines, "", "next:", f"  {evaluate}"])
