"""Reads images of the user's data at a detector's input size, for the ranges of int8 and for the check.

TFRecords with ``image/encoded``, or image files -> uint8 [N, H, W, 3].
"""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.data.records import match_files, scan_file
from detzoo.datasets.record_check import UnusableRecord, image_of, parse_features
from detzoo.errors import DataError
from detzoo.files.image_files import SUFFIXES, images_inside
from detzoo.files.images import UnusableImage, read_upright

# Enough for stable ranges; Jacob et al., arXiv:1712.05877, calibrate on a few hundred images, too.
MAX_IMAGES = 200

logger = logging.getLogger(__name__)


def find_files(patterns: str) -> list[str]:
    """Returns the files of ``--representative_data``, sorted.

    Patterns are a TFRecord or image file, a folder of images, a glob, or several with commas between.

    Raises:
        DataError: A part matches no file.
    """
    paths: list[str] = []
    for part in filter(None, (part.strip() for part in patterns.split(","))):
        if os.path.isdir(part):
            inside = images_inside(pathlib.Path(part))
            if not inside:
                raise DataError(f"--representative_data: the folder {part} holds no image ({', '.join(SUFFIXES)})")
            paths += map(str, inside)
        else:
            paths += match_files(part)
    if not paths:
        raise DataError("--representative_data is empty; give TFRecords or images, such as data/train-*.tfrecord")
    return paths


def representative_images(patterns: str, resizer: Callable[[Any], Any], max_images: int = MAX_IMAGES) -> np.ndarray:
    """Reads at most ``max_images`` images from all files in equal parts, resized and padded to the detector's input.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        DataError: A pattern matches no file, or no image could be read.
    """
    files = find_files(patterns)
    if len(files) > max_images:
        files = [files[round(i * (len(files) - 1) / (max_images - 1))] for i in range(max_images)]
    per_file = -(-max_images // len(files))
    images, num_broken = [], 0
    for path in files:
        for image in _decoded(path, per_file):
            if image is None:
                num_broken += 1
                continue
            padded, _ = resizer(tf.constant(image))
            images.append(np.clip(np.rint(padded.numpy()), 0, 255).astype(np.uint8))
    if num_broken:
        logger.warning("%d images of --representative_data cannot be decoded and are skipped", num_broken)
    if not images:
        raise DataError(f"--representative_data: none of the files could be read as images, the first is {files[0]}")
    return np.stack(images[:max_images])


def _decoded(path: str, count: int) -> Iterator[Any]:
    """Yields up to ``count`` images uint8 [H, W, 3], evenly from a file; None for an image that cannot be decoded."""
    if path.lower().endswith(SUFFIXES):
        yield _try(read_upright, pathlib.Path(path))
        return
    num_records = scan_file(path).num_records
    step = max(1, num_records // count)
    for record in tf.data.TFRecordDataset(path).take(num_records).shard(step, 0).take(count):
        yield _try(lambda serialized: image_of(parse_features(serialized)), record.numpy())


def _try(decode: Callable[[Any], np.ndarray], encoded: Any) -> np.ndarray | None:
    try:
        return decode(encoded)
    except (UnusableImage, UnusableRecord) as problem:
        logger.debug("--representative_data: %s", problem)
        return None
