"""What commands that train in several steps say at their end: the 4-step training, SPP-net's chain."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from detzoo.tasks.models import CONFIG_FILE

logger = logging.getLogger(__name__)


def tell_end(summary: str | None, stop: Any) -> None:
    """Prints what was made, or that a signal came first.

    Args:
        summary: Of ``format_steps``; None where steps are left.
        stop: The ``StopRequest`` of the run.

    Raises:
        KeyboardInterrupt: The signal was SIGINT.
    """
    if summary is None:
        name = stop.signal.name if stop.signal else "a signal"
        logger.info("stopped by %s. The same command goes on from here", name)
    else:
        print(summary, flush=True)
    if stop.signal is not None and stop.signal.name == "SIGINT":
        raise KeyboardInterrupt


def format_steps(rows: Sequence[tuple[str, str]], folder: pathlib.Path) -> str:
    """What lies where (path, what it is), and the command that measures the checkpoint in the run's folder."""
    width = max(len(path) for path, _ in rows)
    lines = [f"{path:<{width}}  {text}" for path, text in rows]
    config, output = folder / CONFIG_FILE, folder / "evaluation"
    evaluate = f"detzoo evaluate --pipeline_config_path {config} --checkpoint_dir {folder} --output_dir {output}"
    return "\n".join([*lines, "", "next:", f"  {evaluate}"])
