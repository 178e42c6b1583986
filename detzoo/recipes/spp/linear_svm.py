"""One linear SVM per class and hard negative mining, on arrays (arXiv:1406.4729, section 4.1; its [7] is R-CNN).

The positives of a class are the true boxes; the first negatives are random windows of each image. One round of mining
(the paper's number) scores every window of every image and adds the negatives inside the margin or on the wrong side.

The constants are those of R-CNN (arXiv:1311.2524, and its published code) where the paper gives no number.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from detzoo.errors import DataError
from detzoo.recipes.spp.windows import LabeledWindows, distinct_rows

MARGIN = -1.0  # a negative that scores more is inside the margin, or on its wrong side
EASY = -1.2  # a negative that scores less after training is dropped again; R-CNN's number
RETRAIN_AT = 2000  # new negatives of a class, R-CNN's number
INTERCEPT_SCALING = 10.0  # R-CNN's: so long is the feature that carries the bias, against feature_norm
INITIAL_NEGATIVES = 5000  # random windows, over all images
MOST_NEGATIVES = 30_000  # of a class; the hardest stay
_MAX_ITERATIONS = 5000  # of liblinear

Reference = tuple[int, int]  # image (in the order of reading) and window of it

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SvmOptions:
    """The fields of ``SppSvm``."""

    c: float = 0.001
    negative_iou: float = 0.3
    duplicate_iou: float = 0.7
    positive_weight: float = 2.0
    feature_norm: float = 20.0


class LinearSvms:
    """SVMs of all classes in training, with the windows that they are trained on.

    Attributes:
        kernels: float32 [K, F]; a window scores ``features @ kernels.T + biases``, features as they are.
        biases: float32 [K].
        scale: Factor of the features for liblinear, which makes their mean length ``feature_norm``.
        positives: True boxes of each class.
        negatives: Negatives of each class.
        stale: bool [K], classes that got windows since their last training.
    """

    def __init__(self, class_names: Sequence[str], depth: int, options: SvmOptions) -> None:
        self.class_names, self.options = list(class_names), options
        self.kernels = np.zeros([len(self.class_names), depth], np.float32)
        self.biases = np.zeros(len(self.class_names), np.float32)
        self.scale = 0.0
        self.positives: list[list[Reference]] = [[] for _ in self.class_names]
        self.negatives: list[list[Reference]] = [[] for _ in self.class_names]
        self.stale = np.zeros(len(self.class_names), bool)
        self._num_new = np.zeros(len(self.class_names), np.int64)
        self._known: list[set[Reference]] = [set() for _ in self.class_names]  # those of negatives
        self._features: dict[Reference, np.ndarray] = {}

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Returns the margins float32 [R, K] of windows [R, F]."""
        return features @ self.kernels.T + self.biases

    def add_initial(self, image: int, windows: LabeledWindows, rows: np.ndarray, features: np.ndarray) -> None:
        """Adds the true boxes of an image as positives and its distant windows as negatives.

        ``rows`` int [S] are the windows of ``features`` float32 [S, F], true boxes included.
        """
        is_true = rows < windows.num_true
        for row in rows[is_true]:
            self.positives[windows.true_classes[row]].append((image, int(row)))
        for number in range(len(self.class_names)):
            far = windows.class_iou[rows, number] < self.options.negative_iou
            self._add_negatives(number, [(image, int(row)) for row in rows[far & ~is_true]])
        self.keep(image, rows, features)
        self.stale[:] = True

    def keep(self, image: int, rows: np.ndarray, features: np.ndarray) -> None:
        """Stores the features of windows of an image."""
        for row, vector in zip(rows, features):
            self._features[image, int(row)] = vector

    def mine(self, image: int, windows: LabeledWindows, features: np.ndarray) -> int:
        """Adds the hard negatives among all windows [R, F] of an image to each class. Returns their number."""
        scores, found = self.scores(features), 0
        for number in range(len(self.class_names)):
            column = scores[:, number]
            is_hard = (windows.class_iou[:, number] < self.options.negative_iou) & (column > MARGIN)
            rows = np.flatnonzero(is_hard)
            rows = rows[np.argsort(-column[rows], kind="stable")]
            rows = distinct_rows(windows.boxes_norm, rows, self.options.duplicate_iou)
            new = [row for row in rows if (image, int(row)) not in self._known[number]]
            self._add_negatives(number, [(image, int(row)) for row in new])
            self.keep(image, np.array(new, np.int64), features[new])
            self._num_new[number] += len(new)
            self.stale[number] |= len(new) > 0
            found += len(new)
        return found

    def fit_stale(self, should_stop: Callable[[], bool], at_least: int = 0) -> bool:
        """Trains the classes with at least so many new windows. Returns False if it was stopped."""
        wanted = np.flatnonzero(self.stale & (self._num_new >= at_least))
        for number in wanted:
            if should_stop():
                return False
            self._fit(int(number))
        if len(wanted):
            self._forget_unused()
        return True

    def set_scale(self) -> None:
        """Sets the scale from the mean length of the stored features."""
        lengths = [float(np.linalg.norm(vector)) for vector in self._features.values()]
        mean = float(np.mean(lengths)) if lengths else 0.0
        if not np.isfinite(mean) or mean <= 0:
            raise DataError(
                f"the features of the {len(lengths)} windows that the SVMs begin with have a mean length of {mean}; "
                "is train_config.fine_tune_checkpoint a trained classifier?"
            )
        self.scale = self.options.feature_norm / mean

    def state(self) -> dict[str, np.ndarray]:
        """Returns the state without the features, for ``restore``."""
        return {
            "kernels": self.kernels,
            "biases": self.biases,
            "scale": np.array(self.scale),
            "stale": self.stale,
            "num_new": self._num_new,
            "positives": _as_rows(self.positives),
            "negatives": _as_rows(self.negatives),
        }

    def restore(self, state: Any) -> None:
        """Sets the state from the arrays of ``state``."""
        self.kernels, self.biases = state["kernels"], state["biases"]
        self.scale, self.stale, self._num_new = float(state["scale"]), state["stale"], state["num_new"]
        self.positives = _from_rows(state["positives"], len(self.class_names))
        self.negatives = _from_rows(state["negatives"], len(self.class_names))
        self._known = [set(group) for group in self.negatives]

    def missing_rows(self) -> dict[int, np.ndarray]:
        """Returns image to the windows whose features are needed but not stored."""
        wanted = {reference for group in (*self.positives, *self.negatives) for reference in group}
        by_image: dict[int, list[int]] = {}
        for image, row in sorted(wanted - self._features.keys()):
            by_image.setdefault(image, []).append(row)
        return {image: np.array(rows) for image, rows in by_image.items()}

    def _fit(self, number: int) -> None:
        positives, negatives = self.positives[number], self.negatives[number]
        if not positives or not negatives:
            kind = "positives" if not positives else f"negatives (IoU below {self.options.negative_iou})"
            raise DataError(f"class '{self.class_names[number]}' has no {kind} to train its SVM on")
        features = self._matrix([*positives, *negatives])
        labels = np.concatenate([np.ones(len(positives)), -np.ones(len(negatives))])
        kernel, bias = fit_svm(features * self.scale, labels, self.options.c, self.options.positive_weight)
        self.kernels[number], self.biases[number] = kernel * self.scale, bias
        self.stale[number], self._num_new[number] = False, 0
        self._drop_easy(number, features[len(positives) :])

    def _drop_easy(self, number: int, features: np.ndarray) -> None:
        """Keeps the negatives near the margin, so that all negatives of a pass fit into memory."""
        scores = features @ self.kernels[number] + self.biases[number]
        kept = np.flatnonzero(scores >= EASY)
        if len(kept) > MOST_NEGATIVES:
            kept = kept[np.argsort(-scores[kept], kind="stable")[:MOST_NEGATIVES]]
        if not len(kept):  # all are easy: the hardest of them hold the margin
            kept = np.argsort(-scores, kind="stable")[:RETRAIN_AT]
        self.negatives[number] = [self.negatives[number][row] for row in kept]
        self._known[number] = set(self.negatives[number])

    def _add_negatives(self, number: int, references: list[Reference]) -> None:
        self.negatives[number] += references
        self._known[number].update(references)

    def _matrix(self, references: Sequence[Reference]) -> np.ndarray:
        return np.stack([self._features[reference] for reference in references])

    def _forget_unused(self) -> None:
        """Frees the features of windows that no class uses."""
        wanted = {reference for group in (*self.positives, *self.negatives) for reference in group}
        self._features = {key: value for key, value in self._features.items() if key in wanted}


def fit_svm(features: np.ndarray, labels: np.ndarray, c: float, positive_weight: float) -> tuple[np.ndarray, float]:
    """Trains one SVM: w and b that minimise w^2 / 2 + c * sum of max(0, 1 - y (w x + b)), positives weighted.

    Takes features [N, F] and labels [N], 1 or -1. Returns kernel float32 [F] and bias.
    """
    svc = _linear_svc()(
        C=c,
        loss="hinge",
        dual=True,
        intercept_scaling=INTERCEPT_SCALING,
        class_weight={1: positive_weight},
        max_iter=_MAX_ITERATIONS,
        random_state=0,
    )
    with warnings.catch_warnings():
        # "Liblinear failed to converge": the weights are near the optimum, and mining continues from there.
        warnings.simplefilter("ignore")
        svc.fit(features, labels)
    return svc.coef_[0].astype(np.float32), float(svc.intercept_[0])


def _linear_svc() -> Any:
    """Returns scikit-learn's LinearSVC (liblinear), undoing the command line's block of slow optional imports."""
    for name in ("sklearn", "pandas"):
        if sys.modules.get(name, ...) is None:
            del sys.modules[name]
    from sklearn.svm import LinearSVC

    return LinearSVC


def _as_rows(groups: Sequence[Sequence[Reference]]) -> np.ndarray:
    """Returns (class, image, window) of every reference, int64 [N, 3]."""
    rows = [(number, *reference) for number, group in enumerate(groups) for reference in group]
    return np.array(rows, np.int64).reshape(-1, 3)


def _from_rows(rows: np.ndarray, num_classes: int) -> list[list[Reference]]:
    groups: list[list[Reference]] = [[] for _ in range(num_classes)]
    for number, image, window in rows.tolist():
        groups[number].append((image, window))
    return groups
