"""The example images of a sweep: read from files or from the first records of its data set, kept once as JPEG."""

from __future__ import annotations

import logging
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from detzoo.folders import draft_of

_QUALITY = 92  # of the kept JPEG files

logger = logging.getLogger(__name__)


def images_of_files(paths: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """(name, uint8 [H, W, 3]) of image files, upright; one that cannot be read is skipped with a warning."""
    from detzoo.files.images import UnusableImage, read_upright

    images = []
    for path in map(pathlib.Path, paths):
        try:
            images.append((path.stem, read_upright(path)))
        except UnusableImage as problem:
            logger.warning("example image %s is skipped: %s", path, problem)
    return images


def images_of_records(reader: Any, count: int) -> list[tuple[str, np.ndarray]]:
    """(name, uint8 [H, W, 3]) of the first images of an input reader's records; unreadable ones are skipped."""
    import tensorflow as tf

    from detzoo.data.records import match_files
    from detzoo.datasets.record_check import UnusableRecord, image_of, parse_features
    from detzoo.files.images import UnusableImage

    files = [file for pattern in reader.tf_record_input_reader.input_path for file in match_files(pattern)]
    images: list[tuple[str, np.ndarray]] = []
    for index, record in enumerate(tf.data.TFRecordDataset(files).take(count)):
        try:
            features = parse_features(record.numpy())
            pixels = image_of(features)
        except (UnusableImage, UnusableRecord) as problem:
            logger.warning("record %d is no example image: %s", index, problem)
            continue
        named = features.get("image/filename") or features.get("image/source_id")
        name = pathlib.PurePosixPath(named[0].decode("utf-8", "replace")).stem if named else f"image{index}"
        if name in [other for other, _ in images]:
            name = f"{name}_{index}"
        images.append((name, pixels))
    return images


def keep_image(folder: pathlib.Path, name: str, pixels: np.ndarray) -> str:
    """Writes an image into a folder where it is not there yet; gives the file's name."""
    from PIL import Image

    file = folder / (re.sub(r"[^\w.-]+", "_", name)[:80] + ".jpg")
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with draft_of(file) as draft:
            Image.fromarray(pixels).save(draft, "JPEG", quality=_QUALITY)
    return file.name
