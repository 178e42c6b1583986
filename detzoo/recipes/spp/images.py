"""Training images with their labelled windows and pooled features, as the steps of the chain read them.

records -> Batch of one image -> TrainingImage -> maps (cached or computed) -> pooled features of the windows
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from detzoo.contracts import Batch
from detzoo.recipes.spp.map_cache import MapCache
from detzoo.recipes.spp.network import DetectorFeatures
from detzoo.recipes.spp.windows import LabeledWindows, label_windows


@dataclasses.dataclass(frozen=True)
class TrainingImage:
    """One image of the training set."""

    number: int  # position in the stream of records
    image_id: bytes  # ``image/source_id``
    pixels: np.ndarray  # float32 [H, W, 3], RGB, 0..255
    windows: LabeledWindows  # true boxes and proposals


class TrainingImages:
    """All training images, in the order of their files.

    Args:
        make_dataset: Function from the position of the first record to a finite dataset of Batch with one image each.
        network: Network that makes and pools maps.
        cache: Cache of the maps.
        num_classes: Number of classes K.
        num_images: Number of images, for progress.
    """

    def __init__(
        self,
        make_dataset: Callable[[int], tf.data.Dataset],
        network: DetectorFeatures,
        cache: MapCache,
        num_classes: int,
        num_images: int,
    ) -> None:
        self._make_dataset, self._num_classes = make_dataset, num_classes
        self.network, self.cache, self.num_images = network, cache, num_images

    def since(self, first_record: int = 0) -> Iterator[TrainingImage]:
        """Yields the images from a position on."""
        return self.of(self._make_dataset(first_record))

    def of(self, batches: Iterable[Batch]) -> Iterator[TrainingImage]:
        """Yields the images of another stream of batches with one image each."""
        for batch in batches:
            yield to_training_image(batch, self._num_classes)

    def maps(self, image: TrainingImage) -> tuple[np.ndarray, ...]:
        """Returns the maps of an image, cached or computed."""
        cached = self.cache.get(image.image_id)
        return self.network.maps(image.pixels) if cached is None else cached

    def pooled(self, image: TrainingImage, rows: np.ndarray) -> np.ndarray:
        """Returns pooled features float32 [S, D] of the windows ``rows`` [S] of an image."""
        if not len(rows):
            return np.zeros([0, self.network.pooled_depth], np.float32)
        height, width = image.pixels.shape[:2]
        return self.network.pool(self.maps(image), image.windows.boxes_norm[rows], (height, width))


def to_training_image(batch: Batch, num_classes: int) -> TrainingImage:
    """Converts a batch of one image without resizing and padding."""
    truth = batch.groundtruth
    boxes, classes = truth.boxes_norm[0].numpy(), truth.classes[0].numpy()
    real = (classes >= 0) & (classes < num_classes)
    proposals = batch.proposals.boxes_norm[0, : int(batch.proposals.num_valid[0])].numpy()
    windows = label_windows(proposals, boxes[real], classes[real], truth.is_crowd[0].numpy()[real], num_classes)
    return TrainingImage(int(batch.record_index[0]), batch.image_ids[0].numpy(), batch.images[0].numpy(), windows)
