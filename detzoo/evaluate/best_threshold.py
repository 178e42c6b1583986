"""The score threshold with the best F1, from the metrics.json of an evaluation to ``detzoo detect``."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

from detzoo.config.names import listed
from detzoo.errors import UsageError
from detzoo.folders import METRICS_FILE

BEST = "best"  # in place of a number
_ADVICE = "measure this model with `detzoo evaluate`, or give --score_threshold a number"


def best_threshold(
    metrics_path: str | pathlib.Path, class_names: Iterable[str] | None = None, weights: str | None = None
) -> float:
    """Returns the best score threshold of an evaluation.

    Args:
        metrics_path: A metrics.json, or the folder that has it.
        class_names: Names of the model's classes; None if they are unknown.
        weights: Digest of the model's weights (``weights_digest``); None if it is unknown.

    Raises:
        UsageError: The file is missing, has no threshold, or is of another model.
        DataError: The file is not JSON.
    """
    from detzoo.evaluate.stored import read_json  # loads TensorFlow

    path = pathlib.Path(metrics_path)
    path = path / METRICS_FILE if path.is_dir() else path
    metrics = read_json(path)
    if not isinstance(metrics, dict) or "best_score_threshold" not in metrics:
        raise UsageError(
            f"{path} has no best_score_threshold: it is not the {METRICS_FILE} of an evaluation of detections, or an "
            f"earlier version wrote it; {_ADVICE}"
        )
    threshold = metrics["best_score_threshold"]
    if threshold is None:
        raise UsageError(f"{path} has no best score threshold, because no detection was right; {_ADVICE}")
    measured, known = set(metrics.get("per_class", {})), None if class_names is None else set(class_names)
    if known is not None and measured != known:
        differing = listed(sorted(measured ^ known), 5)
        raise UsageError(f"{path} is of another model, with other classes ({differing}); {_ADVICE}")
    if weights and metrics.get("weights") not in (None, weights):
        of = metrics.get("checkpoint") or metrics.get("saved_model")
        raise UsageError(f"{path} is of another model, with other weights (those of {of}); {_ADVICE}")
    return float(threshold)
