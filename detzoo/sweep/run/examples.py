"""The example images of a sweep: from files or from the first records of its data set, kept once as JPEG."""

from __future__ import annotations

import logging
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from detzoo.files.images import UnusableImage, read_upright
from detzoo.sweep.run.point_files import EXAMPLES, EXAMPLES_FILE, write_json

_QUALITY = 92  # of the kept JPEG files
_MOST_BOXES = 50

logger = logging.getLogger(__name__)


def write_examples(spec: dict[str, Any], folder: pathlib.Path, detect: Any, names: dict[int, str], reader: Any) -> None:
    """Writes examples.json of a point, and the example images that the sweep's folder lacks.

    Args:
        spec: The point.json.
        folder: Folder of the point.
        detect: Image uint8 [H, W, 3] -> ImageDetections.
        names: Class id -> name.
        reader: Input reader of the images if the sweep names no files.
    """
    images = images_of_files(spec["example_images"]) or images_of_records(reader, spec["num_examples"])
    examples = []
    for name, pixels in images:
        found = detect(pixels)
        height, width = pixels.shape[:2]
        count = min(len(found.scores), _MOST_BOXES)
        boxes_px = found.boxes_norm[:count] * [height, width, height, width]
        examples.append(
            {
                "image": keep_image(pathlib.Path(spec["output_dir"]) / EXAMPLES, name, pixels),
                "width": width,
                "height": height,
                "boxes_px": [[round(float(edge), 1) for edge in box] for box in boxes_px],
                "scores": [round(float(score), 4) for score in found.scores[:count]],
                "classes": [names.get(int(class_id), str(int(class_id))) for class_id in found.class_ids[:count]],
            }
        )
    write_json(folder / EXAMPLES_FILE, examples)


def images_of_files(paths: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Reads (name, uint8 [H, W, 3]) of image files, upright; logs and skips unreadable ones."""
    images = []
    for path in map(pathlib.Path, paths):
        try:
            images.append((path.stem, read_upright(path)))
        except UnusableImage as problem:
            logger.warning("example image %s is skipped: %s", path, problem)
    return images


def images_of_records(reader: Any, count: int) -> list[tuple[str, np.ndarray]]:
    """Reads (name, uint8 [H, W, 3]) of an input reader's first records; logs and skips unreadable ones."""
    import tensorflow as tf

    from detzoo.data.records import match_files
    from detzoo.datasets.record_check import UnusableRecord, image_of, parse_features

    files = [file for pattern in reader.tf_record_input_reader.input_path for file in match_files(pattern)]
    images: dict[str, np.ndarray] = {}
    for index, record in enumerate(tf.data.TFRecordDataset(files).take(count)):
        try:
            features = parse_features(record.numpy())
            pixels = image_of(features)
        except (UnusableImage, UnusableRecord) as problem:
            logger.warning("record %d is no example image: %s", index, problem)
            continue
        named = features.get("image/filename") or features.get("image/source_id")
        name = pathlib.PurePosixPath(named[0].decode("utf-8", "replace")).stem if named else f"image{index}"
        images[f"{name}_{index}" if name in images else name] = pixels
    return list(images.items())


def keep_image(folder: pathlib.Path, name: str, pixels: np.ndarray) -> str:
    """Writes a picture into a folder unless it is there; returns the file's name."""
    from PIL import Image

    file = folder / (re.sub(r"[^\w.-]+", "_", name)[:80] + ".jpg")
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        Image.fromarray(pixels).save(draft, "JPEG", quality=_QUALITY)
        draft.replace(file)
    return file.name
