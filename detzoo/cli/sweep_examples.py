"""The example images of a sweep: read from files or from the first records of its data set, kept once as JPEG."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

_QUALITY = 92  # of the kept JPEG files


def images_of_files(paths: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """(name, uint8 [H, W, 3]) of image files, upright.

    Raises:
        UnusableImage: a file cannot be read, or holds no image.
    """
    from detzoo.data.repair import read_upright

    return [(pathlib.Path(path).stem, read_upright(pathlib.Path(path))) for path in paths]


def images_of_records(reader: Any, count: int) -> list[tuple[str, np.ndarray]]:
    """(name, uint8 [H, W, 3]) of the first images of an input reader's records."""
    import tensorflow as tf

    from detzoo.data.decode import decode_image
    from detzoo.data.records import match_files

    files = [file for pattern in reader.tf_record_input_reader.input_path for file in match_files(pattern)]
    images: list[tuple[str, np.ndarray]] = []
    for index, record in enumerate(tf.data.TFRecordDataset(files).take(count)):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        named = features["image/filename"].bytes_list.value or features["image/source_id"].bytes_list.value
        name = pathlib.PurePosixPath(named[0].decode("utf-8", "replace")).stem if named else f"image{index}"
        if name in [other for other, _ in images]:
            name = f"{name}_{index}"
        encoded = features["image/encoded"].bytes_list.value[0]
        images.append((name, np.asarray(decode_image(tf.constant(encoded)), np.uint8)))
    return images


def keep_image(folder: pathlib.Path, name: str, pixels: np.ndarray) -> str:
    """Writes an image into a folder where it is not there yet; gives the file's name."""
    from PIL import Image

    file = folder / (re.sub(r"[^\w.-]+", "_", name)[:80] + ".jpg")
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        Image.fromarray(pixels).save(partial, "JPEG", quality=_QUALITY)
        partial.replace(file)
    return file.name
