"""What ``detzoo train`` does for ``model.spp_net``: the chain of trainings instead of one."""

from __future__ import annotations

import logging
import pathlib
import sys
from typing import Any

from detzoo.cli.training_steps import format_steps, tell_end
from detzoo.folders import make_folder, reserved

logger = logging.getLogger(__name__)

_WHAT = {
    "1_maps": "feature maps of the training images; may be deleted, another run would make them again",
    "2_fine_tuning": "fc6 to fc8, with TensorBoard's events",
    "3_svm": "an SVM for each class",
    "4_box_regression": "from windows to boxes, for each class",
}


def run_chain(loaded: Any, model_dir: str, strategy_name: str) -> None:
    """Checks config and folder, then runs the steps that are left.

    Args:
        loaded: The config, as the flags change it; checked already.
        model_dir: Of the run.
        strategy_name: Of ``--strategy``.
    """
    from detzoo.recipes.spp.plan import check_folder, make_plan
    from detzoo.train.stop import StopRequest

    folder = pathlib.Path(model_dir)
    plan = make_plan(loaded.message, loaded.path)
    for difference in check_folder(folder, loaded.message):
        logger.warning("changed since this run began, without effect on its finished steps: %s", difference)
    make_folder(folder, "--model_dir")
    with StopRequest() as stop, reserved(folder, "--model_dir"):
        logger.info("starting TensorFlow ...")
        from detzoo.tasks.models import start_tensorflow

        start_tensorflow()
        from detzoo.recipes.spp.chain import train_spp_net

        made = train_spp_net(loaded.message, folder, plan, strategy_name, stop)
        tell_end(None if made is None else format_summary(made, folder), stop)


def is_finished(model_dir: str) -> bool:
    """Whether the chain has ended in this folder; says so. Needs no TensorFlow."""
    from detzoo.recipes.spp import plan

    folder = pathlib.Path(model_dir)
    if not plan.is_finished(folder):
        return False
    print(
        f"{folder} is finished: all steps of SPP-net are done. To train anew, use another --model_dir; to repeat a "
        f"step, delete its folder and {folder / 'finished'}",
        file=sys.stderr,
    )
    return True


def format_summary(made: Any, folder: pathlib.Path) -> str:
    """What lies where, and what to do with it."""
    rows = [(str(folder / step), _WHAT[step]) for step in made.steps]
    rows.append((made.checkpoint, "the detector"))
    return format_steps(rows, folder)
