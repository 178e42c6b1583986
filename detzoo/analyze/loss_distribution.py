"""Measures the distribution of a trained detector's loss over its anchors: figure 4 of arXiv:1708.02002, section 5.1.

detector and batches -> signed logits x_t of positive and of negative examples (a sample) -> for each gamma the
cumulative distribution of the normalised focal loss.

An example is one anchor and one class, as in the sum of the loss. It is positive if the class is that of the object
assigned to the anchor. Ignored anchors and a background column are left out. Alpha is one factor for all positives and
one for all negatives, so it does not change their distributions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.contracts import Batch, Groundtruth, Tensor
from detzoo.detectors.one_stage import OneStageDetector
from detzoo.errors import ConfigError, DataError
from detzoo.losses.classification import SigmoidFocal, class_targets
from detzoo.progress import progress_bar

logger = logging.getLogger(__name__)

# Section 5.1: about 10^5 positive and 10^7 negative examples.
NUM_POSITIVES, NUM_NEGATIVES = 100_000, 10_000_000
# Every thousandth, and denser towards the hardest examples, which have nearly all the loss of the negatives.
FRACTIONS = np.unique(np.concatenate([np.linspace(0.0, 1.0, 1001), 1.0 - 10.0 ** -np.linspace(2.0, 7.0, 101)]))


class Examples(NamedTuple):
    """Signed logits x_t of a detector's examples; below 0 for wrong predictions."""

    positives: np.ndarray  # float32 [P]
    negatives: np.ndarray  # float32 [N], a sample
    num_images: int
    num_positives: int  # before sampling
    num_negatives: int


class CumulativeLoss:
    """The cumulative distribution of a focal loss over its examples, given by their x_t, float32 [S], in any order."""

    def __init__(self, signed_logits: np.ndarray, gamma: float) -> None:
        # The focal loss falls with x_t for every gamma, so falling x_t is the order of rising loss.
        easiest_first = np.sort(signed_logits)[::-1]
        logits = tf.constant(easiest_first[:, np.newaxis])
        losses = SigmoidFocal(gamma, alpha=None)(logits, tf.ones_like(logits)).numpy()
        total = np.concatenate([[0.0], np.cumsum(losses, dtype=np.float64)])
        self._cumulative = total / total[-1] if total[-1] > 0 else np.linspace(0.0, 1.0, len(total))

    def of_easiest(self, fractions: np.ndarray) -> np.ndarray:
        """Returns the easiest examples' share of the loss, in 0..1, for each of these fractions of the examples."""
        places = np.asarray(fractions) * (len(self._cumulative) - 1)
        return np.interp(places, np.arange(len(self._cumulative)), self._cumulative)

    def of_hardest(self, fraction: float) -> float:
        """Returns the share of the loss of the hardest examples, a fraction of all."""
        return float(1.0 - self.of_easiest(np.array([1.0 - fraction]))[0])


class UniformSample:
    """A uniform random sample of at most ``size`` values of a stream.

    Every value gets a random key, and the values with the lowest keys stay.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._generator = np.random.default_rng(seed)
        self._values: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []
        self._highest_key = 1.0
        self.num_seen = 0

    def add(self, values: np.ndarray) -> None:
        """Adds values float32 [S] to the stream."""
        self.num_seen += len(values)
        keys = self._generator.random(len(values), np.float32)
        stays = keys <= self._highest_key
        self._values.append(values[stays])
        self._keys.append(keys[stays])
        if sum(len(part) for part in self._values) >= 2 * self._size:
            self._shrink()

    def values(self) -> np.ndarray:
        """Returns the sample, float32."""
        self._shrink()
        return self._values[0]

    def _shrink(self) -> None:
        values = np.concatenate([np.zeros(0, np.float32), *self._values])
        keys = np.concatenate([np.zeros(0, np.float32), *self._keys])
        if len(keys) > self._size:
            lowest = np.argpartition(keys, self._size - 1)[: self._size]
            values, keys = values[lowest], keys[lowest]
            self._highest_key = float(keys.max())
        self._values, self._keys = [values], [keys]


def collect_examples(
    detector: Any,
    dataset: tf.data.Dataset,
    *,
    max_images: int = 0,
    max_positives: int = NUM_POSITIVES,
    max_negatives: int = NUM_NEGATIVES,
    seed: int = 0,
    show_progress: bool = False,
) -> Examples:
    """Runs a detector over images and samples the signed logits of positive and negative examples.

    Args:
        detector: A ``OneStageDetector`` that classifies by sigmoids.
        dataset: Finite data set of ``Batch``, as for an evaluation.
        max_images: Number of images to use; 0 for all.
        max_positives: Most positive examples to keep.
        max_negatives: Most negative examples to keep.
        seed: Seed of the sample.
        show_progress: Show a progress bar on stderr.

    Raises:
        ConfigError: The detector is of another kind.
        DataError: There is no image, or no anchor of any image is assigned to an object.
    """
    check_detector(detector)
    split = _traced_split(detector, dataset.element_spec)
    positives, negatives = UniformSample(max_positives, seed), UniformSample(max_negatives, seed + 1)
    num_images = 0
    with progress_bar(None, "analyze", shown=show_progress, leave=False) as bar:
        for batch in dataset:
            count = int(batch.images.shape[0])
            if max_images:
                count = min(count, max_images - num_images)
            given = tf.nest.map_structure(lambda part, count=count: part[:count], (batch.images, batch.groundtruth))
            positive, negative = split(*given)
            positives.add(positive.numpy())
            negatives.add(negative.numpy())
            num_images += count
            bar.update(count)
            if num_images == max_images:
                break
    if not num_images:
        raise DataError("the evaluation data set has no image: check eval_input_reader's input_path")
    if not positives.num_seen:
        raise DataError(
            f"no anchor is assigned to an object in any of {num_images} images: check the label map, the matcher's "
            "thresholds and the anchors' sizes, or take more images"
        )
    return Examples(positives.values(), negatives.values(), num_images, positives.num_seen, negatives.num_seen)


def check_detector(detector: Any) -> None:
    """Raises a ConfigError for a detector that does not classify every anchor."""
    if not isinstance(detector, OneStageDetector):
        raise ConfigError(
            "the distribution of the loss needs a detector that classifies every anchor; accepted: model.ssd (SSD, "
            "RetinaNet, EfficientDet)"
        )


def signed_logits(detector: OneStageDetector, predictions: Any, groundtruth: Groundtruth) -> tuple[Tensor, Tensor]:
    """Returns x_t of a batch's positive and negative examples, float32 [P] and [N]."""
    targets = detector.anchor_targets(predictions, groundtruth)
    logits = predictions.class_logits
    if detector.dense_loss.has_background_column:
        logits = logits[..., 1:]
    wanted = class_targets(targets.classes, logits.shape[-1], targets.gt_index, targets.label_sets)
    counts = targets.class_weights[..., tf.newaxis] > 0
    is_positive = wanted > 0
    return tf.boolean_mask(logits, counts & is_positive), tf.boolean_mask(-logits, counts & ~is_positive)


def _traced_split(detector: OneStageDetector, spec: Batch) -> Any:
    """Traces ``signed_logits`` of images and ground truth, for batches of any size."""

    def any_batch(part: tf.TensorSpec) -> tf.TensorSpec:
        return tf.TensorSpec([None, *part.shape[1:]], part.dtype)

    def split(images: Tensor, groundtruth: Groundtruth) -> tuple[Tensor, Tensor]:
        return signed_logits(detector, detector.forward(detector.preprocess(images)), groundtruth)

    signature = tf.nest.map_structure(any_batch, [spec.images, spec.groundtruth])
    return tf.function(split, input_signature=signature, autograph=False)


def distributions(examples: Examples, gammas: Sequence[float]) -> Mapping[str, dict[float, CumulativeLoss]]:
    """Returns the ``CumulativeLoss`` of "positives" and of "negatives" by gamma."""
    logger.info(
        "%d positive examples of %d and %d negative ones of %d, in %d images",
        len(examples.positives),
        examples.num_positives,
        len(examples.negatives),
        examples.num_negatives,
        examples.num_images,
    )
    return {
        "positives": {gamma: CumulativeLoss(examples.positives, gamma) for gamma in gammas},
        "negatives": {gamma: CumulativeLoss(examples.negatives, gamma) for gamma in gammas},
    }
