"""ensemble.json: which models, how they are merged, and which views of an image they look at.

Written by ``detzoo ensemble``, read by it and by ``detzoo detect``. Paths in it are relative to its folder.
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
from detzoo.config.paths import path_hint
from detzoo.ensemble.options import MergeOptions, check_merging, is_number
from detzoo.ensemble.views import ViewPlan, check_views, parse_crops
from detzoo.errors import DataError, UsageError
from detzoo.folders import write_atomically

ENSEMBLE_FILE = "ensemble.json"
_PATHS = ("saved_model", "evaluation", "checkpoint")
_BLOCKS = ("models", "merging", "views", "selection")


@dataclasses.dataclass(frozen=True)
class EnsembleModel:
    """One model; paths are None where there is nothing.

    Attributes:
        name: short, distinct.
        saved_model: what ``detzoo export`` wrote, or a .tflite file.
        evaluation: folder of its metrics.json.
        checkpoint: what was evaluated, where that was no exported model.
        weight: factor of its scores, in (0, 1].
    """

    name: str
    saved_model: str | None = None
    evaluation: str | None = None
    checkpoint: str | None = None
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """An ensemble, or a single model on several views."""

    models: tuple[EnsembleModel, ...]
    merging: MergeOptions = dataclasses.field(default_factory=MergeOptions)
    views: ViewPlan = dataclasses.field(default_factory=ViewPlan)

    def to_json(self, folder: str | pathlib.Path) -> dict[str, Any]:
        """As it stands in a file in ``folder``."""
        models = []
        for model in self.models:
            fields = dataclasses.asdict(model)
            relative = {name: os.path.relpath(fields[name], folder) for name in _PATHS if fields[name]}
            models.append({**fields, **relative})
        views = dataclasses.asdict(self.views)
        views["crops"] = [f"{rows}x{columns}" for rows, columns in self.views.crops]
        return {"models": models, "merging": dataclasses.asdict(self.merging), "views": views}


def write_ensemble(path: str | pathlib.Path, ensemble: Ensemble, selection: Mapping[str, Any] | None = None) -> None:
    """Writes the description, in one go; ``selection`` says how its models were chosen."""
    path = pathlib.Path(path)
    content = ensemble.to_json(path.parent)
    if selection is not None:
        content["selection"] = dict(selection)
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def check_distinct(paths: Sequence[str]) -> None:
    """Checks that no two paths lead to the same place.

    Raises:
        UsageError: Two paths do.
    """
    seen: dict[pathlib.Path, str] = {}
    for path in paths:
        first = seen.setdefault(pathlib.Path(path).resolve(), path)
        if first is not path:
            raise UsageError(f"{path} is given twice (the other time as {first}): a model adds nothing to itself")


def read_ensemble(path: str | pathlib.Path) -> Ensemble:
    """Reads a description.

    Raises:
        UsageError: there is no such file.
        DataError: it is not an ensemble's description; the message names the field.
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


def scaled_weights(weights: Sequence[float]) -> list[float]:
    """Weights with the same ratios of which the greatest is 1, so that scores stay within 1.

    Raises:
        UsageError: one is not above 0.
    """
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
        fields[key] = None if value is None else os.path.normpath(folder / value)
    return EnsembleModel(**fields)


def _check_keys(block: Any, known: Sequence[str], here: str) -> None:
    if not isinstance(block, dict):
        raise DataError(f"{here} is no JSON object with {', '.join(known)}")
    for key in block:
        if key not in known:
            raise DataError(f"{here} has no '{key}'{suggestion(key, known)}")


def _fields(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))
