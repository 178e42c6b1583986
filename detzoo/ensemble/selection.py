"""Chooses the models of an ensemble from their metrics.json files.

Models are taken greedily by average precision; a model that is too close to a chosen one is skipped (trade-offs paper,
arXiv:1611.10012, section on the best detector). The vector of a model's average precision by class shows its strengths.
Two models with nearly the same direction make the same mistakes, so merging them gains little. The paper does not give
its threshold. The default is the median similarity of all pairs of candidates: it needs no unit and adapts to data sets
on which all cosines are near 1. Two models are too close if they are closer than a typical pair.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detzoo.errors import DataError, UsageError
from detzoo.folders import METRICS_FILE

DEFAULT_NUM_MODELS = 5  # in the paper
# Average precision by class -> the same metric over all classes.
OVERALL = {
    "AP": "mAP",
    "AP@.50IOU": "mAP@.50IOU",
    "mask AP": "mask mAP",
    "mask AP@.50IOU": "mask mAP@.50IOU",
    "VOC mAP@.50IOU": "VOC mAP@.50IOU",
    "VOC2007 mAP@.50IOU": "VOC2007 mAP@.50IOU",
    "OpenImages mAP@.50IOU": "OpenImages mAP@.50IOU",
    "OpenImagesChallenge mAP@.50IOU": "OpenImagesChallenge mAP@.50IOU",
}
_NOT_MEASURED = -1.0


class MeasuredModel(NamedTuple):
    """A finished evaluation of one model."""

    name: str  # short, distinct
    folder: str  # folder of metrics.json
    overall: float  # the metric that models are ordered by
    per_class: dict[str, float]  # class name -> average precision; NaN for a class without an object
    num_objects: dict[str, int]  # class name -> annotated objects; {} if not recorded
    num_images: int
    saved_model: str | None = None
    checkpoint: str | None = None


def read_measured(metrics_file: str | pathlib.Path, name: str, metric: str = "AP") -> MeasuredModel:
    """Reads the metrics of an evaluation from its metrics.json, or its folder; ``metric`` is a key of ``OVERALL``.

    Raises:
        UsageError: There is no metrics.json, or it lacks the metric.
        DataError: The file is not from ``detzoo evaluate``.
    """
    path = pathlib.Path(metrics_file)
    path = path / METRICS_FILE if path.is_dir() or path.name != METRICS_FILE else path
    numbers = _read(path)
    per_class = numbers.get("per_class")
    if not isinstance(per_class, dict) or not per_class:
        raise UsageError(f"{path} has no per_class: an ensemble is chosen by the average precision of each class")
    rows = {str(class_name): row for class_name, row in per_class.items() if isinstance(row, dict)}
    if len(rows) < len(per_class) or not isinstance(numbers.get(OVERALL[metric], 0.0), (int, float)):
        raise DataError(f"{path}: per_class or {OVERALL[metric]} is not as `detzoo evaluate` writes it")
    if OVERALL[metric] not in numbers or not any(metric in row for row in rows.values()):
        there = [known for known, overall in OVERALL.items() if overall in numbers]
        hint = f"it has {', '.join(there)}: choose with --metric" if there else "it has none that is known"
        raise UsageError(f"{path} has no {metric} of the classes; {hint}")
    return MeasuredModel(
        name=name,
        folder=str(path.parent),
        overall=float(numbers[OVERALL[metric]]),
        per_class={class_name: _precision(path, row, class_name, metric) for class_name, row in rows.items()},
        num_objects={class_name: int(row["objects"]) for class_name, row in rows.items() if "objects" in row},
        num_images=int(numbers.get("num_images", 0)),
        saved_model=numbers.get("saved_model"),
        checkpoint=numbers.get("checkpoint"),
    )


def _read(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        reason = "does not exist" if isinstance(problem, FileNotFoundError) else problem.strerror
        raise UsageError(f"{path}: {reason}; give the --output_dir of `detzoo evaluate`") from None
    except ValueError as problem:
        raise DataError(f"{path} is not JSON, or was cut short: {problem}") from None
    if not isinstance(numbers, dict):
        raise DataError(f"{path} is not what `detzoo evaluate` writes: a JSON object")
    return numbers


def _precision(path: pathlib.Path, row: Mapping[str, Any], class_name: str, metric: str) -> float:
    value = row.get(metric, _NOT_MEASURED)
    if not isinstance(value, (int, float)) or value > 1:
        raise DataError(
            f"{path}: per_class, {class_name}: {metric} is {value!r}; accepted: 0 to 1, or -1 for no object"
        )
    return float("nan") if value < 0 or math.isnan(value) else float(value)


def short_names(paths: Sequence[str]) -> list[str]:
    """Drops the folders that all paths begin or end with: runs/a/evaluation, runs/b/evaluation -> a, b."""
    parts = [pathlib.Path(path).parts for path in paths]
    if len(set(parts)) < 2:
        return [str(path) for path in paths]
    shortest = min(map(len, parts))
    begin = next((i for i in range(shortest) if len({part[i] for part in parts}) > 1), shortest)
    end = next((i for i in range(shortest - begin) if len({part[-1 - i] for part in parts}) > 1), shortest - begin)
    return ["/".join(part[begin : len(part) - end] or part[-1:]) for part in parts]


class Candidate(NamedTuple):
    """A model and the decision about it."""

    model: MeasuredModel
    is_chosen: bool
    nearest: str | None  # name of the most similar chosen model; None for the first
    similarity: float  # to the nearest chosen model; NaN for the first
    reason: str  # "chosen", or why the model was skipped


class Selection(NamedTuple):
    """The candidates, best first, and the threshold that was used."""

    candidates: list[Candidate]
    max_similarity: float

    @property
    def chosen(self) -> list[MeasuredModel]:
        """The chosen models, best first."""
        return [candidate.model for candidate in self.candidates if candidate.is_chosen]


def select(models: Sequence[MeasuredModel], num_models: int, max_similarity: float | None = None) -> Selection:
    """Chooses models.

    Args:
        models: Candidates, in any order.
        num_models: Most models to choose.
        max_similarity: Greatest cosine of two chosen models' vectors; None for the median of all pairs.

    Returns:
        All candidates by falling ``overall``.

    Raises:
        UsageError: There are fewer than two models.
        DataError: The models were measured on different classes or images, or no class was measured.
    """
    if len(models) < 2:
        raise UsageError(f"an ensemble is chosen from at least 2 evaluations, received {len(models)}")
    ordered = sorted(models, key=lambda model: -model.overall)
    vectors = precision_vectors(ordered)
    similarities = cosine_similarities(vectors)
    if max_similarity is None:
        max_similarity = float(np.median(similarities[np.triu_indices(len(models), 1)]))
    candidates: list[Candidate] = []
    chosen: list[int] = []
    for row, model in enumerate(ordered):
        near = max(chosen, key=lambda other: similarities[row, other]) if chosen else None
        similarity = float("nan") if near is None else float(similarities[row, near])
        if not vectors[row].any():
            reason = "finds nothing"
        elif len(chosen) == num_models:
            reason = f"not needed, {num_models} are chosen"
        elif near is not None and similarity > max_similarity:
            reason = f"too close to {ordered[near].name}"
        else:
            reason = "chosen"
            chosen.append(row)
        name = None if near is None else ordered[near].name
        candidates.append(Candidate(model, row in chosen, name, similarity, reason))
    return Selection(candidates, max_similarity)


def precision_vectors(models: Sequence[MeasuredModel]) -> np.ndarray:
    """Returns average precision by class, float64 [models, classes], without classes that no model could measure.

    Raises:
        DataError: Classes, number of images or objects of a class differ, or no class was measured.
    """
    first = models[0]
    for other in models[1:]:
        _check_same_data(first, other)
    vectors = np.array([[model.per_class[name] for name in first.per_class] for model in models])
    are_measured = ~np.isnan(vectors)
    for column, name in enumerate(first.per_class):
        if are_measured[:, column].any() and not are_measured[:, column].all():
            without = models[int(np.argmin(are_measured[:, column]))]
            raise DataError(f"{without.folder}: class '{name}' was not measured, but it was in other evaluations")
    if not are_measured.any():
        raise DataError(f"{first.folder}: no class was measured; the data set has no object of a class that is named")
    return vectors[:, are_measured.all(axis=0)]


def cosine_similarities(vectors: np.ndarray) -> np.ndarray:
    """Returns cosines [N, N] of vectors [N, K], in [0, 1] for average precisions; 0 for a vector of zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    cosines = np.clip(directions @ directions.T, -1.0, 1.0)
    return np.maximum(cosines, cosines.T)  # exactly symmetric, so that a threshold treats both sides the same


def _check_same_data(first: MeasuredModel, other: MeasuredModel) -> None:
    differing = sorted(set(first.per_class) ^ set(other.per_class))
    if differing:
        raise DataError(
            f"{first.folder} and {other.folder} have different classes: {', '.join(differing[:5])} "
            f"{'are' if len(differing) > 1 else 'is'} in one of them only; measure both with the same label map"
        )
    if first.num_images != other.num_images:
        raise DataError(
            f"{first.folder} was measured on {first.num_images} images, {other.folder} on {other.num_images}; measure "
            "both on the same images"
        )
    if first.num_objects and other.num_objects and first.num_objects != other.num_objects:
        name = next(name for name in first.num_objects if first.num_objects[name] != other.num_objects.get(name))
        raise DataError(
            f"{first.folder} and {other.folder} were measured on different images: {first.num_objects[name]} and "
            f"{other.num_objects.get(name)} objects of class '{name}'"
        )


def format_selection(selection: Selection, metric: str) -> str:
    """Formats one line per candidate: name, metric, similarity to the nearest chosen model, and the decision."""
    names = [candidate.model.name for candidate in selection.candidates]
    width = max(len("model"), *(len(name) for name in names))
    column = max(len(metric), 6)
    lines = [f"{'model':<{width}}  {metric:>{column}}  similarity  to the nearest chosen"]
    for candidate in selection.candidates:
        similarity = "-" if candidate.nearest is None else f"{candidate.similarity:.5f}"
        to_which = "" if candidate.nearest is None or "too close" in candidate.reason else f"  ({candidate.nearest})"
        overall = f"{candidate.model.overall:.3f}".rjust(column)
        lines.append(f"{candidate.model.name:<{width}}  {overall}  {similarity:>10}  {candidate.reason}{to_which}")
    return "\n".join(lines)
