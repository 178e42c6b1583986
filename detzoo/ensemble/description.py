"""ensemble.json: the models of an ensemble, how they are merged, and the views of an image that they get.

`detzoo ensemble` writes it; `detzoo ensemble` and `detzoo detect` read it. Paths in it are relative to its folder.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from detzoo.config.names import suggestion
from detzoo.config.paths import is_remote, path_hint
from detzoo.ensemble.views import ViewPlan, check_views, is_number, parse_crops
from detzoo.errors import DataError, UsageError
from detzoo.folders import write_atomically

ENSEMBLE_FILE = "ensemble.json"
_PATHS = ("saved_model", "evaluation", "checkpoint")
_BLOCKS = ("models", "merging", "views", "selection")

BEST_SCORE, MEAN_SCORE = "best", "mean"
SCORE_RULES = (BEST_SCORE, MEAN_SCORE)


@dataclasses.dataclass(frozen=True)
class MergeOptions:
    """Rules and thresholds of ``detzoo.ensemble.merging``."""

    iou_threshold: float = 0.6  # above it, the worse of two boxes of a class is dropped; 0.6 in arXiv:1611.10012
    max_detections: int = 100  # over all classes
    score_threshold: float = 0.0  # only scores above it take part
    box_voting: bool = False
    vote_iou_threshold: float = 0.5  # least overlap of boxes that vote; 0.5 in arXiv:1505.01749
    scores: str = BEST_SCORE  # one of ``SCORE_RULES``


@dataclasses.dataclass(frozen=True)
class EnsembleModel:
    """A model of an ensemble."""

    name: str  # short, distinct
    saved_model: str | None = None  # written by ``detzoo export``, a folder or a .tflite file
    evaluation: str | None = None  # folder of its metrics.json
    checkpoint: str | None = None  # given if a checkpoint was evaluated instead of an exported model
    weight: float = 1.0  # factor of its scores, in (0, 1]


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """An ensemble, or a single model on several views."""

    models: tuple[EnsembleModel, ...]
    merging: MergeOptions = dataclasses.field(default_factory=MergeOptions)
    views: ViewPlan = dataclasses.field(default_factory=ViewPlan)

    def to_json(self, folder: str | pathlib.Path) -> dict[str, Any]:
        """Returns the content of an ensemble.json in ``folder``."""
        models = []
        for model in self.models:
            fields = dataclasses.asdict(model)
            given = {name: fields[name] for name in _PATHS if fields[name]}
            relative = {n: path if is_remote(path) else os.path.relpath(path, folder) for n, path in given.items()}
            models.append({**fields, **relative})
        views = dataclasses.asdict(self.views)
        views["crops"] = [f"{rows}x{columns}" for rows, columns in self.views.crops]
        return {"models": models, "merging": dataclasses.asdict(self.merging), "views": views}


def write_ensemble(path: str | pathlib.Path, ensemble: Ensemble, selection: Mapping[str, Any] | None = None) -> None:
    """Writes the description atomically; ``selection`` records how the models were chosen."""
    path = pathlib.Path(path)
    content = ensemble.to_json(path.parent)
    if selection is not None:
        content["selection"] = dict(selection)
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def check_distinct(paths: Sequence[str]) -> None:
    """Raises a UsageError if two paths lead to the same place."""
    seen: dict[pathlib.Path, str] = {}
    for path in paths:
        first = seen.setdefault(pathlib.Path(path).resolve(), path)
        if first is not path:
            raise UsageError(f"{path} is given twice (the other time as {first}): a model adds nothing to itself")


def read_ensemble(path: str | pathlib.Path) -> Ensemble:
    """Reads a description; ``path`` is the file or its folder.

    Raises:
        UsageError: There is no such file.
        DataError: The file does not describe an ensemble; the message names the field.
    """
    path = pathlib.Path(path)
    path = path / ENSEMBLE_FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"there is no ensemble at {path}{path_hint(path)}; `detzoo ensemble select` makes one"
        ) from None
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise DataError(f"{path} is not JSON: {problem}") from None
    try:
        return _parse(content, path.parent)
    except (DataError, UsageError) as problem:
        raise DataError(f"{path}: {problem}") from None


def check_merging(options: MergeOptions) -> MergeOptions:
    """Returns the options, or raises a UsageError if one of them is out of range."""
    for name in ("iou_threshold", "vote_iou_threshold", "score_threshold"):
        value = getattr(options, name)
        if not is_number(value) or not 0 <= value <= 1:
            raise UsageError(f"{name} is {value!r}; accepted: 0 to 1")
    count = options.max_detections
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UsageError(f"max_detections is {count!r}; accepted: a whole number from 1")
    if options.scores not in SCORE_RULES:
        raise UsageError(f"scores is {options.scores!r}; accepted: {', '.join(SCORE_RULES)}")
    if not isinstance(options.box_voting, bool):
        raise UsageError(f"box_voting is {options.box_voting!r}; accepted: true, false")
    return options


def scaled_weights(weights: Sequence[float]) -> list[float]:
    """Scales weights so that the greatest is 1 and scores stay within 1; raises a UsageError unless all are above 0."""
    for weight in weights:
        if not is_number(weight) or not 0 < weight < math.inf:
            raise UsageError(f"a model's weight is {weight!r}; accepted: numbers above 0")
    return [weight / max(weights) for weight in weights]


def _parse(content: Any, folder: pathlib.Path) -> Ensemble:
    _check_keys(content, _BLOCKS, "the file")
    entries = content.get("models")
    if not isinstance(entries, list) or not entries:
        raise DataError("models: accepted: a list of at least one model")
    models = [_parse_model(entry, number, folder) for number, entry in enumerate(entries)]
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise DataError(f"models: the names {', '.join(names)} are not distinct")
    for model, weight in zip(models, scaled_weights([model.weight for model in models])):
        models[names.index(model.name)] = dataclasses.replace(model, weight=weight)
    merging, views = content.get("merging", {}), dict(content.get("views", {}))
    _check_keys(merging, _fields(MergeOptions), "merging")
    _check_keys(views, _fields(ViewPlan), "views")
    crops = views.get("crops", [])
    if not isinstance(crops, list) or not all(isinstance(grid, str) for grid in crops):
        raise DataError('views.crops: accepted: a list such as ["2x2"]')
    views["crops"] = parse_crops(",".join(crops), "views.crops")
    return Ensemble(tuple(models), check_merging(MergeOptions(**merging)), check_views(ViewPlan(**views)))


def _parse_model(entry: Any, number: int, folder: pathlib.Path) -> EnsembleModel:
    here = f"models[{number}]"
    _check_keys(entry, _fields(EnsembleModel), here)
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{here}.name is {name!r}; accepted: a text")
    fields = dict(entry)
    for key in _PATHS:
        value = entry.get(key)
        if value is not None and not isinstance(value, str):
            raise DataError(f"{here}.{key} is {value!r}; accepted: a path, or null")
        fields[key] = value if value is None or is_remote(value) else os.path.normpath(folder / value)
    return EnsembleModel(**fields)


def _check_keys(block: Any, known: Sequence[str], here: str) -> None:
    if not isinstance(block, dict):
        raise DataError(f"{here} is no JSON object with {', '.join(known)}")
    for key in block:
        if key not in known:
            raise DataError(f"{here} has no '{key}'{suggestion(key, known)}")


def _fields(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))
