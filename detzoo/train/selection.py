"""Selection of the best evaluation and early stopping, from the history of evaluations in model_dir."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from detzoo.errors import ConfigError
from detzoo.folders import write_atomically
from detzoo.train.settings import EarlyStopping

HISTORY_FILE = "evaluations.jsonl"
# The Object Detection API's prefixes of the same metrics.
_PREFIXES = ("DetectionBoxes_Precision/", "DetectionBoxes_Recall/")
# Metrics that replace the default: recall (by masks if there are masks) for class-agnostic proposals, and the top-1
# error for classifiers.
_STAND_INS = {"mAP": ("AR@1000", "mask AR@1000", "top-1 error")}
_LOWER_IS_BETTER = ("loss", "error")


class Selection:
    """History of evaluations: one JSON object per line, such as {"step": 500, "mAP": 0.31}.

    A resumed run reads it, so the best value and the patience survive a restart. Higher is better, except for metrics
    with "loss" or "error" in their names. Workers other than the chief are not ``writable``.
    """

    def __init__(
        self, folder: str | pathlib.Path, best_metric: str, early_stopping: EarlyStopping | None, writable: bool = True
    ) -> None:
        self._file = pathlib.Path(folder) / HISTORY_FILE
        self._best_metric = best_metric
        self._early_stopping = early_stopping
        self._writable = writable
        self._history: list[dict[str, Any]] = _read(self._file) if self._file.is_file() else []

    def resume(self, step: int) -> None:
        """Drops evaluations of later steps than ``step``, because these steps will be repeated."""
        kept = [entry for entry in self._history if entry["step"] <= step]
        if len(kept) != len(self._history):
            self._history = kept
            self._write()

    def has(self, step: int) -> bool:
        """Returns whether a step was evaluated."""
        return any(entry["step"] == step for entry in self._history)

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Returns whether these metrics are better than all before. To be called before ``add``."""
        value = metric_value(metrics, self._best_metric, "best_checkpoint_metric")
        return all(value > metric_value(entry, self._best_metric) for entry in self._history)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends an evaluation."""
        self._history.append({"step": step, **{name: float(value) for name, value in metrics.items()}})
        self._write()

    def best(self) -> tuple[int, float] | None:
        """Returns (step, value) of the best evaluation, or None before the first."""
        if not self._history:
            return None
        entry = max(self._history, key=lambda entry: metric_value(entry, self._best_metric))
        return entry["step"], abs(metric_value(entry, self._best_metric))

    def should_stop(self) -> str | None:
        """Returns a reason for an early stop, or None."""
        rule = self._early_stopping
        if rule is None or rule.patience_evaluations < 1 or not self._history:
            return None
        best, waited, _ = self._follow(rule, "early_stopping.metric")
        if waited < rule.patience_evaluations:
            return None
        name = metric_name(self._history[-1], rule.metric)
        return f"{name} has not improved for {waited} evaluations (best {abs(best):.4f})"

    def num_plateaus(self, rule: EarlyStopping) -> int:
        """Returns how often the patience of a rule ended; after each time it starts again."""
        return self._follow(rule, "optimizer: plateau_learning_rate.metric")[2]

    def _follow(self, rule: EarlyStopping, field: str) -> tuple[float, int, int]:
        """Returns the best value, the number of evaluations since then, and the number of plateaus."""
        best, waited, plateaus = -float("inf"), 0, 0
        for entry in self._history:
            value = metric_value(entry, rule.metric, field)
            if value > best + rule.min_delta:
                best, waited = value, 0
                continue
            waited += 1
            plateaus += waited % rule.patience_evaluations == 0
        return best, waited, plateaus

    def _write(self) -> None:
        if not self._writable:
            return
        write_atomically(self._file, "".join(json.dumps(entry) + "\n" for entry in self._history))


def metric_value(metrics: Mapping[str, Any], name: str, field: str = "") -> float:
    """Returns a metric as ``metric_name`` finds it, negated if lower is better."""
    found = metric_name(metrics, name, field)
    value = float(metrics[found])
    return -value if any(word in found.lower() for word in _LOWER_IS_BETTER) else value


def metric_name(metrics: Mapping[str, Any], name: str, field: str = "") -> str:
    """Returns the key of a metric, given the key or the Object Detection API's name.

    For class-agnostic proposals AR@1000 (by masks if there are masks) replaces mAP.

    Raises:
        ConfigError: The metric does not exist; ``field`` is the config's field that named it.
    """
    short = name
    for prefix in _PREFIXES:
        short = short.removeprefix(prefix)
    for candidate in (name, short, *_STAND_INS.get(short, ())):
        if candidate in metrics:
            return candidate
    known = ", ".join(key for key in metrics if key != "step")
    raise ConfigError(f"train_config.{field} '{name}' is none of the evaluated metrics: {known}")


def _read(file: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the entries of a history file; a line that a crash cut off is skipped."""
    entries = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries
