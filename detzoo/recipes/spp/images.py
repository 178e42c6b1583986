"""The training images as the steps of the chain see them: windows with their overlaps, and pooled features.

records -> Batch of one image -> TrainingImage -> maps (of the cache, or computed) -> pooled features of its windows
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf

from detzoo.contracts import Batch
from detzoo.recipes.spp.map_cache import MapCache
from detzoo.recipes.spp.windows import LabeledWindows, label_windows


class WindowFeatures(Protocol):
    """What the chain wants of a network, on arrays.

    Attributes:
        pooled_depth: D, numbers of a pooled window.
        classifier_depth: F, numbers that the SVMs read of it.
    """

    pooled_depth: int
    classifier_depth: int

    def maps(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """The convolutions' maps of an image [H, W, 3], RGB 0..255: one [h, w, C] for each scale."""

    def pool(self, maps: tuple[np.ndarray, ...], windows_norm: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
        """Pooled windows [R, 4] of these maps: float32 [R, D]."""

    def classify(self, pooled: np.ndarray) -> np.ndarray:
        """What the SVMs read of pooled windows [R, D]: float32 [R, F]."""


@dataclasses.dataclass(frozen=True)
class TrainingImage:
    """One image of the training set.

    Attributes:
        number: Its position in the stream of records.
        image_id: ``image/source_id``.
        pixels: float32 [H, W, 3], RGB, 0..255.
        windows: Its true boxes and proposals.
    """

    number: int
    image_id: bytes
    pixels: np.ndarray
    windows: LabeledWindows


class TrainingImages:
    """All training images, in the order of their files.

    Args:
        make_dataset: From the position of a record on -> finite dataset of Batch of one image each.
        network: Makes maps and pools them.
        cache: Keeps the maps.
        num_classes: K.
        num_images: How many there are, for progress.
    """

    def __init__(
        self,
        make_dataset: Callable[[int], tf.data.Dataset],
        network: WindowFeatures,
        cache: MapCache,
        num_classes: int,
        num_images: int,
    ) -> None:
        self._make_dataset, self._num_classes = make_dataset, num_classes
        self.network, self.cache, self.num_images = network, cache, num_images

    def since(self, first_record: int = 0) -> Iterator[TrainingImage]:
        """The images from a position on."""
        return self.of(self._make_dataset(first_record))

    def of(self, batches: Iterable[Batch]) -> Iterator[TrainingImage]:
        """The images of another stream of batches of one image each."""
        for batch in batches:
            yield to_training_image(batch, self._num_classes)

    def maps(self, image: TrainingImage) -> tuple[np.ndarray, ...]:
        """The maps of an image: those of the cache, or new ones."""
        cached = self.cache.get(image.image_id)
        return self.network.maps(image.pixels) if cached is None else cached

    def pooled(self, image: TrainingImage, rows: np.ndarray) -> np.ndarray:
        """float32 [S, D], pooled features of the windows ``rows`` [S] of an image."""
        if not len(rows):
            return np.zeros([0, self.network.pooled_depth], np.float32)
        height, width = image.pixels.shape[:2]
        return self.network.pool(self.maps(image), image.windows.boxes_norm[rows], (height, width))


def to_training_image(batch: Batch, num_classes: int) -> TrainingImage:
    """A batch of one image, unresized and without padding around it."""
    truth = batch.groundtruth
    boxes, classes = truth.boxes_norm[0].numpy(), truth.classes[0].numpy()
    real = (classes >= 0) & (classes < num_classes)
    proposals = batch.proposals.boxes_norm[0, : int(batch.proposals.num_valid[0])].numpy()
    windows = label_windows(proposals, boxes[real], classes[real], truth.is_crowd[0].numpy()[real], num_classes)
    return TrainingImage(int(batch.record_index[0]), batch.image_ids[0].numpy(), batch.images[0].numpy(), windows)
