"""The output of trainings of several steps: ``train_four_step``, and ``train`` of an SPP-net."""

from __future__ import annotations

import sys

from detzoo.folders import CONFIG_FILE
from detzoo.tasks.recipes import RecipeRun


def print_run(run: RecipeRun, finished: str, repeat: str) -> None:
    """Prints the results and the command that evaluates them, or that an earlier call had finished the run.

    Args:
        run: The run; nothing is printed if steps are left.
        finished: Clause that states what an earlier call had finished.
        repeat: Folders to delete in order to repeat a step.
    """
    folder = run.folder
    if run.was_finished:
        print(
            f"{folder} is finished: {finished}. To train again, use another --model_dir; to repeat a step, delete "
            f"{repeat} and {folder / 'finished'}",
            file=sys.stderr,
        )
    elif run.made is not None:
        width = max(len(path) for path, _ in run.made)
        lines = [f"{path:<{width}}  {content}" for path, content in run.made]
        paths = f"--checkpoint_dir {folder} --output_dir {folder / 'evaluation'}"
        lines += ["", "next:", f"  detzoo evaluate --pipeline_config_path {folder / CONFIG_FILE} {paths}"]
        print("\n".join(lines), flush=True)
