"""tf.Example records as the Object Detection API reads them, and an atomic writer of sharded TFRecord files.

Keys, types and units are those of that API's own scripts: boxes are fractions of the image, class labels start at 1,
masks are PNG images of 0 and 1. The same input gives the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import io
import os
import pathlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from detzoo.data.record_keys import KEYS, OBJECT, SIDES
from detzoo.errors import DataError, UsageError
from detzoo.folders import draft_of

MAX_SHARDS = 99999  # five digits in the file names


@dataclasses.dataclass(frozen=True)
class ObjectExample:
    """One object of a record. ``class_id`` counts from 1; ``area_px`` is in pixels of the image."""

    box_norm: tuple[float, float, float, float]  # ymin, xmin, ymax, xmax, fractions of the image
    class_id: int
    class_name: str
    area_px: float = 0.0
    is_crowd: bool = False
    is_difficult: bool = False
    is_truncated: bool = False
    is_group_of: bool = False
    view: str = ""
    weight: float = 1.0
    mask_png: bytes = b""


@dataclasses.dataclass(frozen=True)
class ImageExample:
    """One record. ``with_masks`` writes a mask for every object, also for an image without objects."""

    encoded: bytes
    image_format: str  # "jpeg" or "png"
    filename: str
    source_id: str
    size: tuple[int, int]  # (height, width) in pixels
    objects: Sequence[ObjectExample] = ()
    with_masks: bool = False


def encode_example(example: ImageExample) -> bytes:
    """Serializes a record as tf.Example; equal records give equal bytes."""
    # TensorFlow takes seconds to import, and the commands check their flags first.
    import tensorflow as tf

    objects = example.objects
    columns: dict[str, Sequence[Any]] = {
        "image/encoded": [example.encoded],
        "image/format": [example.image_format],
        "image/filename": [example.filename],
        "image/source_id": [example.source_id],
        "image/key/sha256": [hashlib.sha256(example.encoded).hexdigest()],
        "image/height": [example.size[0]],
        "image/width": [example.size[1]],
        f"{OBJECT}/class/text": [item.class_name for item in objects],
        f"{OBJECT}/class/label": [item.class_id for item in objects],
        f"{OBJECT}/is_crowd": [int(item.is_crowd) for item in objects],
        f"{OBJECT}/area": [item.area_px for item in objects],
        f"{OBJECT}/difficult": [int(item.is_difficult) for item in objects],
        f"{OBJECT}/truncated": [int(item.is_truncated) for item in objects],
        f"{OBJECT}/group_of": [int(item.is_group_of) for item in objects],
        f"{OBJECT}/view": [item.view for item in objects],
        f"{OBJECT}/weight": [item.weight for item in objects],
        **{f"{OBJECT}/bbox/{side}": [item.box_norm[row] for item in objects] for row, side in enumerate(SIDES)},
    }
    if example.with_masks:
        columns[f"{OBJECT}/mask"] = [item.mask_png for item in objects]
    message = tf.train.Example()
    for key, values in columns.items():
        stored = getattr(message.features.feature[key], KEYS[key].kind)
        stored.SetInParent()  # the type of an empty list is written, too
        stored.value.extend(value.encode("utf-8", "replace") if isinstance(value, str) else value for value in values)
    return message.SerializeToString(deterministic=True)


def encode_mask(mask: np.ndarray) -> bytes:
    """Returns a mask, [height, width] of 0 and 1, as 8-bit gray PNG of 0 and 1, as the Object Detection API does."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def shard_paths(output_prefix: str | os.PathLike[str], num_shards: int) -> list[pathlib.Path]:
    """Returns ``PREFIX-00000-of-000NN.tfrecord`` and so on.

    Raises:
        UsageError: The prefix is empty or a folder, or the number of shards is out of range.
    """
    prefix = os.fspath(output_prefix)
    if not prefix or prefix.endswith("/") or pathlib.Path(prefix).is_dir():
        raise UsageError(
            f"--output_path {prefix!r} is a folder; give a prefix such as {os.path.join(prefix, 'train')!r}, which"
            " becomes train-00000-of-00010.tfrecord and so on"
        )
    if not 1 <= num_shards <= MAX_SHARDS:
        raise UsageError(f"--num_shards is {num_shards}; it must be from 1 to {MAX_SHARDS}")
    return [pathlib.Path(f"{prefix}-{index:05d}-of-{num_shards:05d}.tfrecord") for index in range(num_shards)]


def other_shards(output_prefix: str | os.PathLike[str], num_shards: int) -> list[pathlib.Path]:
    """Returns shards of the prefix with another count, which a pattern such as ``PREFIX-*`` would read as well."""
    ours = set(shard_paths(output_prefix, num_shards))
    pattern = f"{glob.escape(os.fspath(output_prefix))}-?????-of-?????.tfrecord"
    return sorted(path for path in map(pathlib.Path, glob.glob(pattern)) if path not in ours)


class ShardedWriter:
    """Writes records in turn to the shards of a prefix; the files appear under their names only when all is written.

    A context manager: leaving it by an exception removes what was written, and files of an earlier run stay untouched.
    """

    def __init__(self, output_prefix: str | os.PathLike[str], num_shards: int) -> None:
        import tensorflow as tf

        self.paths = shard_paths(output_prefix, num_shards)
        self.num_records = 0
        self._write_errors = (OSError, tf.errors.OpError)
        self._drafts = contextlib.ExitStack()
        self._writers: list[tf.io.TFRecordWriter] = []
        folder = self.paths[0].parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in self.paths:
                draft = self._drafts.enter_context(draft_of(path, "partial"))  # the next run replaces what a kill left
                self._writers.append(tf.io.TFRecordWriter(str(draft)))
        except FileExistsError:
            raise DataError(f"cannot write {self.paths[0]}: {folder} is not a folder but a file") from None
        except self._write_errors as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise DataError(f"cannot write {self.paths[len(self._writers)]}: {_reason(error)}") from None

    def write(self, record: bytes) -> None:
        """Appends one record to the next shard in turn."""
        try:
            self._writers[self.num_records % len(self._writers)].write(record)
        except self._write_errors as error:
            raise DataError(f"cannot write to {self.paths[0].parent}: {_reason(error)}") from None
        self.num_records += 1

    def __enter__(self) -> ShardedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._drafts:  # an exception in this block removes the drafts
                for writer in self._writers:
                    writer.close()
                if error is not None:
                    raise error
        except self._write_errors as problem:
            if error is None:
                raise DataError(f"cannot write to {self.paths[0].parent}: {_reason(problem)}") from None


def _reason(error: Exception) -> str:
    """Returns the system's message, without TensorFlow's node and the name of the hidden file."""
    return getattr(error, "strerror", None) or str(getattr(error, "message", error)).rpartition("; ")[2]
