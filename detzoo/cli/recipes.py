"""The part that commands of several training steps share: ``train_four_step``, and ``train`` of an SPP-net."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from detzoo.tasks.models import CONFIG_FILE


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


def print_end(finished: Any, folder: pathlib.Path) -> None:
    """Prints the results of a ``FinishedRecipe``, or nothing if steps are left (None)."""
    if finished is not None:
        print(_summary(finished.made, folder), flush=True)


def _summary(rows: tuple[tuple[str, str], ...], folder: pathlib.Path) -> str:
    """Returns (path, content) of every result, and the command that evaluates the checkpoint."""
    width = max(len(path) for path, _ in rows)
    lines = [f"{path:<{width}}  {content}" for path, content in rows]
    config, output = folder / CONFIG_FILE, folder / "evaluation"
    evaluate = f"detzoo evaluate --pipeline_config_path {config} --checkpoint_dir {folder} --output_dir {output}"
    return "\n".join([*lines, "", "next:", f"  {evaluate}"])
