"""tf.Example records as the Object Detection API reads them, and an atomic writer of sharded TFRecord files.

Keys, types and units are those of that API's own scripts: boxes are fractions of the image, class labels start at 1,
masks are PNG images of 0 and 1. The same input gives the same bytes.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
import pathlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from detzoo.data.record_keys import KEYS, OBJECT, SIDES
from detzoo.datasets.repair import RepairedObject
from detzoo.errors import DataError, UsageError
from detzoo.files.images import RepairedImage
from detzoo.files.remote import path_of
from detzoo.folders import draft_of

MAX_SHARDS = 99999  # five digits in the file names


class LabelledObject(NamedTuple):
    """One object of a record; ``class_id`` counts from 1."""

    class_id: int
    class_name: str
    repaired: RepairedObject


def encode_example(
    image: RepairedImage,
    filename: str,
    source_id: str,
    objects: Sequence[LabelledObject],
    *,
    with_masks: bool = False,
    num_keypoints: int = 0,
    verified_classes: Sequence[tuple[int, str]] | None = None,
) -> bytes:
    """Serializes a record as tf.Example; equal records give equal bytes.

    ``with_masks`` writes a mask for every object, because the reader needs one for each: an unknown one is empty.
    ``num_keypoints`` writes as many keypoints for every object: the unknown ones are not labelled.
    ``verified_classes`` are (id, name) of the classes that are known to be present or absent.
    """
    # TensorFlow takes seconds to import, and the commands check their flags first.
    import tensorflow as tf

    repaired = [item.repaired for item in objects]
    sources = [item.source for item in repaired]
    columns: dict[str, Sequence[Any]] = {
        "image/encoded": [image.encoded],
        "image/format": [image.image_format],
        "image/filename": [filename],
        "image/source_id": [source_id],
        "image/key/sha256": [hashlib.sha256(image.encoded).hexdigest()],
        "image/height": [image.size[0]],
        "image/width": [image.size[1]],
        **{f"{OBJECT}/bbox/{side}": [item.box_norm[row] for item in repaired] for row, side in enumerate(SIDES)},
        f"{OBJECT}/class/text": [item.class_name for item in objects],
        f"{OBJECT}/class/label": [item.class_id for item in objects],
        f"{OBJECT}/area": [item.area_px for item in repaired],
        f"{OBJECT}/weight": [1.0] * len(objects),
        f"{OBJECT}/is_crowd": [int(source.is_crowd) for source in sources],
        f"{OBJECT}/difficult": [int(source.is_difficult) for source in sources],
        f"{OBJECT}/truncated": [int(source.is_truncated) for source in sources],
        f"{OBJECT}/group_of": [int(source.is_group_of) for source in sources],
        f"{OBJECT}/view": [source.view for source in sources],
    }
    if verified_classes is not None:
        columns["image/class/label"] = [class_id for class_id, _ in verified_classes]
        columns["image/class/text"] = [name for _, name in verified_classes]
    if with_masks:
        masks = [np.zeros(image.size, np.uint8) if item.mask is None else item.mask for item in repaired]
        columns[f"{OBJECT}/mask"] = [encode_mask(mask) for mask in masks]
    if num_keypoints:
        padding = [(0.0, 0.0, 0)] * num_keypoints
        points = [point for item in repaired for point in [*item.keypoints, *padding][:num_keypoints]]
        for name, column in zip(("y", "x", "visibility"), zip(*points) if points else [(), (), ()]):
            columns[f"{OBJECT}/keypoint/{name}"] = column
        columns[f"{OBJECT}/keypoint/num"] = [sum(point[2] > 0 for point in item.keypoints) for item in repaired]
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
    return [path_of(f"{prefix}-{index:05d}-of-{num_shards:05d}.tfrecord") for index in range(num_shards)]


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
