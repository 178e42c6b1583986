"""Whether checkpoints fit the detectors that a sweep would measure them with: in a process of its own."""

from __future__ import annotations

import json
import logging
import pathlib

logger = logging.getLogger(__name__)


def check_checkpoints(file: pathlib.Path) -> int:
    """Tries each case of a JSON file; writes the problems beside it, with the suffix .answer.

    Args:
        file: a list of {"config": pipeline.config, "checkpoint": prefix, "points": names}.

    Returns:
        0: the problems are in the answer.
    """
    import keras

    from detzoo.checkpoints import restore_for_inference
    from detzoo.config.load import load_pipeline
    from detzoo.errors import DetzooError
    from detzoo.tasks.models import build_untrained, start_tensorflow

    start_tensorflow()
    problems = []
    cases = json.loads(file.read_text(encoding="utf-8"))
    for index, case in enumerate(cases, start=1):
        names = case["points"]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        logger.info("checkpoint %d of %d: %s for %s", index, len(cases), case["checkpoint"], shown)
        keras.backend.clear_session()
        try:
            restore_for_inference(build_untrained(load_pipeline(case["config"]).message.model), case["checkpoint"])
        except DetzooError as problem:
            problems.append(f"{shown}: {problem}")
    file.with_suffix(".answer").write_text(json.dumps(problems), encoding="utf-8")
    return 0
