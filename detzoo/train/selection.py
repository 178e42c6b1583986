"""Which evaluation was the best, and whether to stop early: decided from the history of evaluations in model_dir."""

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
# Proposals know no classes: their recall, by masks where they have them, takes the place of the default. A classifier's
# is the error of its best class.
_STAND_INS = {"mAP": ("AR@1000", "mask AR@1000", "top-1 error")}
_LOWER_IS_BETTER = ("loss", "error")


class Selection:
    """The history of evaluations: one JSON object a line, ``{"step": 500, "mAP": 0.31, ...}``.

    A resumed run reads it back, so that the best value and the patience survive a restart.

    Args:
        folder: The model_dir.
        best_metric: Decides what is best. Higher is better, except for names with "loss" or "error" in them.
        early_stopping: None for off.
        writable: False on workers that are not the chief.
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
        """Forgets evaluations of later steps than ``step``, because these steps will be done again."""
        kept = [entry for entry in self._history if entry["step"] <= step]
        if len(kept) != len(self._history):
            self._history = kept
            self._write()

    def has(self, step: int) -> bool:
        """Whether this step was evaluated."""
        return any(entry["step"] == step for entry in self._history)

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Whether these metrics beat all before; call it before ``add``.

        Raises:
            ConfigError: best_checkpoint_metric is not among the metrics.
        """
        value = metric_value(metrics, self._best_metric, "best_checkpoint_metric")
        return all(value > metric_value(entry, self._best_metric) for entry in self._history)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends an evaluation."""
        self._history.append({"step": step, **{name: float(value) for name, value in metrics.items()}})
        self._write()

    def best(self) -> tuple[int, float] | None:
        """(step, value) of the best evaluation, None before the first."""
        if not self._history:
            return None
        entry = max(self._history, key=lambda entry: metric_value(entry, self._best_metric))
        return entry["step"], abs(metric_value(entry, self._best_metric))

    def should_stop(self) -> str | None:
        """Why to stop early; None to go on.

        Raises:
            ConfigError: early_stopping.metric is not among the metrics.
        """
        rule = self._early_stopping
        if rule is None or rule.patience_evaluations < 1 or not self._history:
            return None
        best, waited = -float("inf"), 0
        for entry in self._history:
            value = metric_value(entry, rule.metric, "early_stopping.metric")
            if value > best + rule.min_delta:
                best, waited = value, 0
            else:
                waited += 1
        if waited < rule.patience_evaluations:
            return None
        name = metric_name(self._history[-1], rule.metric)
        return f"{name} has not improved for {waited} evaluations (best {abs(best):.4f})"

    def _write(self) -> None:
        if not self._writable:
            return
        write_atomically(self._file, "".join(json.dumps(entry) + "\n" for entry in self._history))


def metric_value(metrics: Mapping[str, Any], name: str, field: str = "") -> float:
    """A metric as ``metric_name`` finds it, negated where lower is better.

    Raises:
        ConfigError: it is not there; ``field`` is the config's field that named it.
    """
    found = metric_name(metrics, name, field)
    value = float(metrics[found])
    return -value if any(word in found.lower() for word in _LOWER_IS_BETTER) else value


def metric_name(metrics: Mapping[str, Any], name: str, field: str = "") -> str:
    """The key of a metric that is asked for by it or by the Object Detection API's name.

    Of proposals without classes AR@1000, or that by masks, takes the place of mAP.

    Raises:
        ConfigError: it is not there; ``field`` is the config's field that named it.
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
    """The entries of a history file; a line that was cut off by a crash is left out."""
    entries = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries
