"""Classification of images by features and linear SVMs (arXiv:1406.4729, sections 3.2 and 3.3), on arrays.

features [N, F] -> unit length -> one linear SVM per class (one against the rest) -> margins -> mAP or accuracy
"""

from __future__ import annotations

import dataclasses

import numpy as np

from detzoo.errors import DataError
from detzoo.evaluate.pascal_voc import average_precision_eleven_points, mean_of_classes, precision_recall
from detzoo.progress import track
from detzoo.recipes.spp.linear_svm import fit_svm

PRESENT, UNCERTAIN, ABSENT = 1, 0, -1  # of a class in an image; uncertain: all of its objects are difficult


@dataclasses.dataclass(frozen=True)
class ImageFeatures:
    """Features and labels of N images."""

    features: np.ndarray  # float32 [N, F]
    labels: np.ndarray  # int8 [N, K], PRESENT, UNCERTAIN or ABSENT
    class_names: tuple[str, ...]

    def of(self, rows: np.ndarray) -> ImageFeatures:
        """Returns the images with these numbers."""
        return dataclasses.replace(self, features=self.features[rows], labels=self.labels[rows])


@dataclasses.dataclass(frozen=True)
class SvmResult:
    """Accuracy of the SVMs; values in [0, 1]."""

    mean_average_precision: float  # eleven points, as in VOC 2007
    per_class: dict[str, float]  # average precision; NaN for a class without an image
    accuracy: float | None  # mean over the classes; None if an image has several labels


def train_and_test(train: ImageFeatures, test: ImageFeatures, c: float) -> SvmResult:
    """Trains one SVM per class on ``train`` and measures them on ``test``; ``c`` is the weight of the errors.

    Raises:
        DataError: A class has only positive or only negative images.
    """
    vectors, labels = _unit(train.features), train.labels
    kernels, biases = [], []
    for number, name in track(list(enumerate(train.class_names)), len(train.class_names), "training SVMs"):
        used = labels[:, number] != UNCERTAIN
        for label, kind in ((PRESENT, "with"), (ABSENT, "without")):
            if not (labels[:, number] == label).any():
                raise DataError(f"no training image is {kind} class '{name}', so that no SVM can be trained for it")
        kernel, bias = fit_svm(vectors[used], labels[used, number], c, positive_weight=1.0)
        kernels.append(kernel)
        biases.append(bias)
    return measure(_unit(test.features) @ np.stack(kernels).T + np.array(biases), test)


def measure(scores: np.ndarray, test: ImageFeatures) -> SvmResult:
    """Measures the margins float [N, K] of images."""
    per_class = {}
    for number, name in enumerate(test.class_names):
        labels = test.labels[:, number]
        used, present = labels != UNCERTAIN, labels == PRESENT
        recall, precision = precision_recall(scores[used, number], present[used], int(present.sum()))
        per_class[name] = average_precision_eleven_points(recall, precision) if present.any() else float("nan")
    is_present = test.labels == PRESENT
    accuracy = None
    if (is_present.sum(axis=1) == 1).all():
        truth, right = is_present.argmax(axis=1), scores.argmax(axis=1) == is_present.argmax(axis=1)
        accuracy = float(np.mean([right[truth == number].mean() for number in np.unique(truth)]))
    return SvmResult(mean_of_classes(per_class).mean_average_precision, per_class, accuracy)


def random_split(
    labels: np.ndarray, num_train: int, num_test: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of ``num_train`` images per class, and of at most ``num_test`` others (Caltech101's protocol).

    Raises:
        DataError: A class has too few images, or an image has several labels.
    """
    is_present = labels == PRESENT
    if not (is_present.sum(axis=1) == 1).all():
        raise DataError("a random split per class needs images with one label each")
    classes, train, test = is_present.argmax(axis=1), [], []
    for number in np.unique(classes):
        rows = random.permutation(np.flatnonzero(classes == number))
        if len(rows) <= num_train:
            raise DataError(
                f"class {number + 1} has {len(rows)} images, and the split takes {num_train} for training and at least "
                "1 for the test"
            )
        train.append(rows[:num_train])
        test.append(rows[num_train : num_train + num_test])
    return np.concatenate(train), np.concatenate(test)


def _unit(features: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.finfo(np.float32).tiny)
