"""Runs a training of several steps: the 4-step training or SPP-net's chain."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from detzoo.folders import make_folder, reserved
from detzoo.tasks.models import start_tensorflow

logger = logging.getLogger(__name__)


def run_recipe(folder: pathlib.Path, changes: Sequence[str], train: Callable[[Any], Any]) -> Any:
    """Runs the remaining steps.

    Args:
        folder: Folder of the run.
        changes: Differences of the config since the run began that have no effect on finished steps.
        train: Function from the ``StopRequest`` of the run to a ``FinishedRecipe``, or None if a signal came first.

    Returns:
        The result of ``train``.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the training; the results so far are saved.
    """
    from detzoo.train.stop import StopRequest

    for change in changes:
        logger.warning("changed since this run began, without effect on its finished steps: %s", change)
    make_folder(folder, "--model_dir")
    with StopRequest() as stop, reserved(folder, "--model_dir"):
        logger.info("starting TensorFlow ...")
        start_tensorflow()
        finished = train(stop)
        if finished is None:
            name = stop.signal.name if stop.signal else "a signal"
            logger.info("stopped by %s. The same command continues from here", name)
        if stop.signal is not None and stop.signal.name == "SIGINT":
            raise KeyboardInterrupt
    return finished
