"""Top-1 and top-5 error of a classifier, as ImageNet's challenge counts them.

dataset of Batch -> classifier (one traced function) -> scores of each image -> errors by name -> files and table

metrics.json      metrics by name, then per_class, num_images and provenance
predictions.json  image_id, class, and the five best classes with scores
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.contracts import Batch, Tensor
from detzoo.errors import DataError
from detzoo.folders import METRICS_FILE, write_atomically
from detzoo.progress import progress_bar

TOP_1, TOP_5 = "top-1 error", "top-5 error"
PREDICTIONS_FILE = "predictions.json"
NUM_KEPT = 5  # best classes of an image

_DESCRIPTIONS = {
    TOP_1: "images with a wrong best class",
    TOP_5: "images with a class that is not among the five best",
}


class ClassifiedImage(NamedTuple):
    """One image with its true class and the best predicted classes, best first."""

    image_id: str
    true_class: int  # 0-based
    best_classes: np.ndarray  # int [5 or fewer], 0-based
    best_scores: np.ndarray  # float32, as many


@dataclasses.dataclass(frozen=True)
class ClassificationResult:
    """Errors and predictions of an evaluation."""

    metrics: dict[str, float]  # errors by name, in [0, 1]
    # Class name to "top-1 error" and number of "images", for classes with images.
    per_class: dict[str, dict[str, float]]
    images: list[ClassifiedImage]  # all images
    class_names: dict[int, str]  # name of each class id (from 1)
    seconds: float  # wall time, reading included


class ClassifierEvaluator:
    """Evaluator of classifiers on a finite dataset of Batch with one object per image.

    ``label_map`` has ``names`` (id from 1 to name), or is such a dict.
    """

    def __init__(self, dataset: tf.data.Dataset, label_map: Any, *, show_progress: bool = True) -> None:
        self._dataset = dataset
        self._class_names = dict(getattr(label_map, "names", label_map))
        self._show_progress = show_progress
        self._traced_for: Any = None
        self._traced: Any = None

    def __call__(self, classifier: Any) -> dict[str, float]:
        """Returns the metrics of ``evaluate``."""
        return self.evaluate(classifier).metrics

    def evaluate(self, classifier: Any) -> ClassificationResult:
        """Classifies every image and computes errors.

        Raises:
            DataError: The data set has no image of a class of the label map.
        """
        started = time.monotonic()
        return self.measured(classifier, [image for _, image in self.detect_shard(classifier)], started)

    def detect_shard(self, classifier: Any) -> list[tuple[int, ClassifiedImage]]:
        """Returns every image with its best classes and the number of its record."""
        classify = self._traced_classifier(classifier)
        images: list[tuple[int, ClassifiedImage]] = []
        with progress_bar(None, "evaluate", shown=self._show_progress, leave=False) as bar:
            for batch in self._dataset:
                scores = classify(batch.images, batch.true_shapes).numpy()
                images += zip(batch.record_index.numpy().tolist(), classified_images(batch, scores))
                bar.update(len(scores))
        return images

    def measured(self, classifier: Any, images: list[ClassifiedImage], started: float) -> ClassificationResult:
        """Computes the errors of classified images; ``started`` is the time of ``time.monotonic`` before them.

        Raises:
            DataError: There is no image.
        """
        if not images:
            raise DataError("the evaluation data set has no image of a class of the label map: check eval_input_reader")
        metrics, per_class = measure(images, self._class_names, classifier.num_classes)
        return ClassificationResult(metrics, per_class, images, self._class_names, time.monotonic() - started)

    def _traced_classifier(self, classifier: Any) -> Any:
        """Returns one traced function per classifier, for batches of any number of images."""
        if self._traced_for is not classifier:
            spec: Batch = self._dataset.element_spec

            def classify(images: Tensor, true_shapes: Tensor) -> Tensor:
                return classifier.forward(classifier.preprocess(images), true_shapes=true_shapes).scores

            image_spec = tf.TensorSpec([None, *spec.images.shape[1:]], spec.images.dtype)
            signature = [image_spec, tf.TensorSpec([None, 2], tf.int32)]
            self._traced = tf.function(classify, input_signature=signature, autograph=False)
            self._traced_for = classifier
        return self._traced


def classified_images(batch: Batch, scores: np.ndarray) -> list[ClassifiedImage]:
    """Returns the images of a batch with their best classes; for equal scores the lower class is first.

    Args:
        batch: Batch with one object per image.
        scores: float32 [B, K].
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :NUM_KEPT]
    classes = np.asarray(batch.groundtruth.classes)[:, 0]
    ids = [name.decode("utf-8", "replace") for name in np.asarray(batch.image_ids)]
    return [
        ClassifiedImage(name, int(true), best, row[best])
        for name, true, best, row in zip(ids, classes, order, scores, strict=True)
    ]


def measure(
    images: Sequence[ClassifiedImage], class_names: Mapping[int, str], num_classes: int
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Returns errors of all images, and top-1 errors per class. Up to five classes there is no top-5 error."""
    true = np.array([image.true_class for image in images])
    is_wrong = np.array([image.best_classes[0] != image.true_class for image in images])
    metrics = {TOP_1: float(is_wrong.mean())}
    if num_classes > NUM_KEPT:
        metrics[TOP_5] = float(np.mean([image.true_class not in image.best_classes for image in images]))
    per_class = {}
    for identifier, name in sorted(class_names.items()):
        own = is_wrong[true == identifier - 1]
        if own.size:
            per_class[name] = {TOP_1: float(own.mean()), "images": int(own.size)}
    return metrics, per_class


def write_classification(result: ClassificationResult, folder: str | pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Writes the files; ``facts`` (checkpoint, step, versions) are added to metrics.json, which is written last."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = result.class_names
    predictions = [
        {
            "image_id": image.image_id,
            "class": names.get(image.true_class + 1, str(image.true_class + 1)),
            "best": [
                {"class": names.get(int(c) + 1, str(int(c) + 1)), "score": round(float(score), 5)}
                for c, score in zip(image.best_classes, image.best_scores, strict=True)
            ],
        }
        for image in result.images
    ]
    (folder / PREDICTIONS_FILE).write_text(json.dumps(predictions, indent=1) + "\n", encoding="utf-8")
    numbers = {
        **result.metrics,
        "per_class": result.per_class,
        "num_images": len(result.images),
        "seconds": round(result.seconds, 2),
        **facts,
    }
    write_atomically(folder / METRICS_FILE, json.dumps(numbers, indent=2) + "\n")


def format_classification(result: ClassificationResult, most_classes: int = 20) -> str:
    """Formats the errors with descriptions, then those of the classes, worst first."""
    lines = [f"{name}  {value:7.2%}  {_DESCRIPTIONS[name]}" for name, value in result.metrics.items()]
    rows = sorted(result.per_class.items(), key=lambda row: -row[1][TOP_1])
    width = max(len("class"), *(len(name) for name, _ in rows[:most_classes]))
    lines += ["", f"{'class':<{width}}  {TOP_1:>11}  images"]
    lines += [f"{name:<{width}}  {row[TOP_1]:>11.2%}  {row['images']:>6}" for name, row in rows[:most_classes]]
    if len(rows) > most_classes:
        lines.append(f"... and {len(rows) - most_classes} classes with fewer errors")
    return "\n".join(lines)
