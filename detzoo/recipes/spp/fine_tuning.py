"""Fine-tuning of the fully connected layers on pooled windows (arXiv:1406.4729, section 4.1), with a new fc8.

    images -> windows by overlap -> 25 % positives -> pooled features -> fc6 -> fc7 -> fc8 -> softmax cross entropy

The ordinary trainer runs with pooled windows as "images", so checkpoints, resuming and TensorBoard events are those of
every other run. The convolutions do not change, so their maps come from the cache.

Differs from R-CNN's code, which draws the windows of a step from all images: a step has windows of a few images, as in
Fast R-CNN (arXiv:1504.08083, section 2.3), because the maps of each image have to be read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.contracts import Batch, Groundtruth, LossTerm, Tensor
from detzoo.detectors.base import Detector
from detzoo.detectors.spp_net import SppNet
from detzoo.errors import DataError
from detzoo.recipes.spp.images import TrainingImage, TrainingImages
from detzoo.recipes.spp.windows import fine_tuning_labels, sample_labels

_MOST_EMPTY_GROUPS = 1000  # in a row before an error is raised


@dataclasses.dataclass(frozen=True)
class FineTuningOptions:
    """The fields of ``SppFineTuning``."""

    batch_size: int = 128
    positive_fraction: float = 0.25
    positive_iou: float = 0.5
    negative_iou: float = 0.1
    images_per_step: int = 8


class WindowClassifier(Detector):
    """fc6, fc7 and fc8 of an SPP-net, whose layers it shares, as a detector of pooled windows with one class each."""

    def __init__(self, detector: SppNet) -> None:
        super().__init__(detector.num_classes, (None, None), name="window_classifier")
        self.fc_layers, self.fc8 = detector.fc_layers, detector.fc8
        self.built = True

    def preprocess(self, images: Tensor) -> Tensor:
        """Returns pooled windows [B, D] unchanged."""
        return images

    def forward(self, inputs: Tensor, training: bool = False, **context: Any) -> Tensor:  # type: ignore[override]
        """Returns logits [B, K + 1]."""
        del context
        return self.fc8(self.fc_layers(inputs, training=training)["fc7"])

    def loss_terms(self, predictions: Tensor, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """Returns the softmax cross entropy; ``groundtruth.classes`` [B] is 0 for the background, else class + 1."""
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(groundtruth.classes, predictions)
        return {"classification": LossTerm(tf.reduce_sum(losses), tf.cast(tf.size(losses), tf.float32))}


def make_window_dataset(
    images: TrainingImages,
    batches: Iterable[Batch],
    options: FineTuningOptions,
    num_windows: int,
    seed: int,
    problems: list[Exception] | None = None,
) -> tf.data.Dataset:
    """Returns batches of pooled windows for ``WindowClassifier``, with ``num_windows``, the replica's share of a batch.

    Args:
        images: Training images.
        batches: Endless stream of Batch with one image each. The drawn windows depend on the seed and on each image's
            ``record_index`` alone, so a stream that starts later yields the same batches from there on.
        options: Options of the fine-tuning.
        num_windows: Number of windows per batch.
        seed: Seed of the draw.
        problems: List that receives exceptions, because TensorFlow replaces them.
    """
    signature = (
        tf.TensorSpec([num_windows, images.network.pooled_depth], tf.float32),
        tf.TensorSpec([num_windows], tf.int32),
        tf.TensorSpec([num_windows], tf.int64),
    )

    def draw() -> Iterator[Any]:
        try:
            yield from _draw_windows(images, batches, options, num_windows, seed)
        except Exception as problem:
            if problems is not None:
                problems.append(problem)
            raise

    windows = tf.data.Dataset.from_generator(draw, output_signature=signature)
    dataset_options = tf.data.Options()
    dataset_options.autotune.enabled = False  # see data.batches
    return windows.map(_as_batch).prefetch(2).with_options(dataset_options)


def _draw_windows(
    images: TrainingImages, batches: Iterable[Batch], options: FineTuningOptions, num_windows: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (pooled windows, labels, record index) per batch."""
    group: list[TrainingImage] = []
    empty = 0
    for image in images.of(batches):
        group.append(image)
        if len(group) < options.images_per_step:
            continue
        drawn = _windows_of(images, group, options, num_windows, np.random.default_rng([seed, group[0].number]))
        if drawn is not None:
            pooled, labels = drawn
            yield pooled, labels.astype(np.int32), np.full(num_windows, group[-1].number, np.int64)
        empty = 0 if drawn is not None else empty + 1
        if empty >= _MOST_EMPTY_GROUPS:
            raise DataError(
                f"no window of {empty * len(group)} images in a row overlaps a true box by {options.negative_iou} or "
                "more: are the proposals those of these images?"
            )
        group = []


def _windows_of(
    images: TrainingImages,
    group: list[TrainingImage],
    options: FineTuningOptions,
    num_windows: int,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns pooled windows [num_windows, D] of some images and labels, or None if no window is labelled."""
    labels = [fine_tuning_labels(image.windows, options.positive_iou, options.negative_iou) for image in group]
    drawn = np.sort(sample_labels(np.concatenate(labels), num_windows, options.positive_fraction, random))
    if not len(drawn):
        return None
    pooled, first = [], 0
    for image, own in zip(group, labels):
        rows = drawn[(drawn >= first) & (drawn < first + len(own))] - first
        pooled.append(images.pooled(image, rows))
        first += len(own)
    return np.concatenate(pooled), np.concatenate(labels)[drawn]


def _as_batch(pooled: Tensor, labels: Tensor, record_index: Tensor) -> Batch:
    """Returns a Batch with the fields that the trainer reads; the others are zeros."""
    nothing = tf.zeros([tf.shape(labels)[0]])
    none = tf.zeros_like(nothing, tf.bool)
    shapes = tf.zeros([tf.shape(labels)[0], 2], tf.int32)
    truth = Groundtruth(
        boxes_norm=nothing,
        classes=labels,
        weights=tf.ones_like(nothing),
        is_crowd=none,
        is_difficult=none,
        area_px=nothing,
        masks=nothing,
    )
    return Batch(pooled, shapes, shapes, tf.strings.as_string(record_index), record_index, truth)
