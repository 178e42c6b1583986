"""Which models make an ensemble: greedily by average precision, leaving out what is too close to one already chosen.

Trade-offs paper (arXiv:1611.10012), section on the best detector: the vector of a model's average precision by category
says where it is good; two models with almost the same direction make the same mistakes and gain little by being merged.
The paper does not give its threshold. Without one, the median similarity of all pairs of candidates is taken: it has no
unit and no dependence on how alike detectors of a data set are in general (cosines of such vectors are all near 1), and
calls two models alike that are closer than a typical pair of the collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detzoo.errors import DataError, UsageError

DEFAULT_NUM_MODELS = 5  # in the paper


class MeasuredModel(NamedTuple):
    """A finished evaluation of one model."""

    name: str  # short, distinct
    folder: str  # of metrics.json
    overall: float  # the metric that models are ordered by
    per_class: dict[str, float]  # class name -> average precision; NaN for a class without an object
    num_objects: dict[str, int]  # class name -> objects of the truth; {} where it is not written
    num_images: int
    saved_model: str | None = None
    checkpoint: str | None = None


class Candidate(NamedTuple):
    """A model and what became of it."""

    model: MeasuredModel
    is_chosen: bool
    nearest: str | None  # name of the chosen model that it is closest to; None for the first
    similarity: float  # to that; NaN where there is none
    reason: str  # chosen, or why not


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
        models: candidates, in any order.
        num_models: how many are wanted.
        max_similarity: greatest cosine of two chosen models' vectors; None for the median of all pairs.

    Returns:
        All candidates by falling ``overall``.

    Raises:
        UsageError: fewer than two models.
        DataError: they were not measured on the same classes and images, or no class was measured.
    """
    if len(models) < 2:
        raise UsageError(f"an ensemble is chosen from at least 2 evaluations, received {len(models)}")
    ordered = sorted(models, key=lambda model: -model.overall)
    vectors = precision_vectors(ordered)
    similarities = cosine_similarities(vectors)
    if max_similarity is None:
        max_similarity = _median_of_pairs(similarities)
    candidates: list[Candidate] = []
    chosen: list[int] = []
    for row, model in enumerate(ordered):
        near = max(chosen, key=lambda other: similarities[row, other]) if chosen else None
        similarity = float("nan") if near is None else float(similarities[row, near])
        reason = "chosen"
        if not vectors[row].any():
            reason = "finds nothing"
        elif len(chosen) == num_models:
            reason = f"not needed, {num_models} are chosen"
        elif similarity > max_similarity:
            reason = f"too close to {ordered[near].name}" if near is not None else reason
        if reason == "chosen":
            chosen.append(row)
        name = None if near is None else ordered[near].name
        candidates.append(Candidate(model, reason == "chosen", name, similarity, reason))
    return Selection(candidates, max_similarity)


def precision_vectors(models: Sequence[MeasuredModel]) -> np.ndarray:
    """Average precision by class, float64 [models, classes]; classes that none of them could measure are left out.

    Raises:
        DataError: the classes, the number of images or the objects of a class differ, or no class was measured.
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
    """[N, K] -> [N, N], in [0, 1] for average precisions; 0 beside a vector of zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    cosines = np.clip(directions @ directions.T, -1.0, 1.0)
    return np.maximum(cosines, cosines.T)  # equal on both sides to the last bit, so that a threshold treats both alike


def _median_of_pairs(similarities: np.ndarray) -> float:
    return float(np.median(similarities[np.triu_indices(len(similarities), 1)]))


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
    """A line a candidate: name, metric, similarity to the nearest chosen model, and what became of it."""
    names = [candidate.model.name for candidate in selection.candidates]
    width = max(len("model"), *(len(name) for name in names))
    column = max(len(metric), 6)
    lines = [f"{'model':<{width}}  {metric:>{column}}  similarity  to the nearest chosen"]
    for candidate in selection.candidates:
        similarity = "-" if candidate.nearest is None else f"{candidate.similarity:.5f}"
        to_which = "" if candidate.nearest is None or "too close" in candidate.reason else f"  ({candidate.nearest})"
        lines.append(
            f"{candidate.model.name:<{width}}  {candidate.model.overall:>{column}.3f}  {similarity:>10}  "
            f"{candidate.reason}{to_which}"
        )
    return "\n".join(lines)
