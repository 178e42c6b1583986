"""Sequences of images (tf.SequenceExample) as the Object Detection API's decoder defines them: one record, many images.

Evaluation reads every image of a sequence, training one. An image has the fields of a tf.Example, so that the decoder
continues as with other records. The memory of Context R-CNN belongs to the whole sequence.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from detzoo.contracts import Tensor
from detzoo.data.augment.apply import record_seed, uniforms
from detzoo.data.record_keys import CONTEXT_FEATURES, CONTEXT_LENGTH, OBJECT, SIDES
from detzoo.data.records import as_written

_CONTEXT = {
    CONTEXT_FEATURES: tf.io.RaggedFeature(tf.float32),
    CONTEXT_LENGTH: tf.io.FixedLenFeature([], tf.int64, 0),
}
IS_ANNOTATED = "region/is_annotated"  # 0 for an image whose objects are not labelled
# List of the sequence -> key of a tf.Example, type.
_LISTS = {
    "image/encoded": ("image/encoded", tf.string),
    "image/source_id": ("image/source_id", tf.string),
    **{f"region/bbox/{side}": (f"{OBJECT}/bbox/{side}", tf.float32) for side in SIDES},
    "region/label/string": (f"{OBJECT}/class/text", tf.string),
    "region/label/index": (f"{OBJECT}/class/label", tf.int64),
    "region/label/confidence": (f"{OBJECT}/weight", tf.float32),
    IS_ANNOTATED: (IS_ANNOTATED, tf.int64),
}
_SCALARS = {"image/encoded": "", "image/source_id": ""}
_ABSENT = (*(f"{OBJECT}/{name}" for name in ("is_crowd", "group_of", "difficult")), f"{OBJECT}/area")


def examples_of(serialized: bytes) -> list[bytes]:
    """Returns the images of a tf.SequenceExample as tf.Examples, without the memory; none of another record."""
    try:
        lists = tf.train.SequenceExample.FromString(serialized).feature_lists.feature_list
    except DecodeError:
        return []
    examples = [tf.train.Example() for _ in lists["image/encoded"].feature]
    for name, (key, _) in _LISTS.items():
        for example, values in zip(examples, lists[name].feature):
            example.features.feature[key].CopyFrom(values)
    return [example.SerializeToString() for example in examples]


def fields_of_image(serialized: Tensor, number: Tensor) -> dict[str, Tensor]:
    """Returns the fields of image ``number`` of a sequence, as ``tf.io.parse_single_example`` gives a record's."""
    context, lists = _parse(serialized)
    fields: dict[str, Any] = dict(context)
    for name, (key, dtype) in _LISTS.items():
        rows = lists[name]
        none = lambda dtype=dtype: tf.zeros([0], dtype)  # noqa: E731
        values = tf.cond(number < rows.nrows(), lambda rows=rows: rows[number], none)
        if name in _SCALARS:
            values = tf.cond(tf.size(values) > 0, lambda x=values: x[0], lambda name=name: tf.constant(_SCALARS[name]))
        fields[key] = values
    return fields | {key: tf.zeros([0], tf.float32 if key.endswith("area") else tf.int64) for key in _ABSENT}


def images_of(records: tf.data.Dataset, seed: int, is_drawn: bool, chosen: int = -1) -> tf.data.Dataset:
    """Adds the number of an image to each (index, sequence) of a stream.

    Args:
        records: Dataset of (index int64, sequence string).
        seed: Seed of the draws, which depend on the index as well.
        is_drawn: One image per sequence; otherwise all of them.
        chosen: The image to read if it is not drawn at random (-1); the last one of shorter sequences.
    """

    def numbers(index: Tensor, serialized: Tensor) -> tf.data.Dataset:
        _, lists = _parse(serialized)
        count = tf.maximum(lists["image/encoded"].nrows(), 1)  # the mark of an epoch's end has none
        if is_drawn and chosen < 0:
            share = uniforms(record_seed(seed, "frame", tf.maximum(index, 0)), 1)[0]
            first = tf.minimum(tf.cast(share * tf.cast(count, tf.float32), tf.int64), count - 1)
        else:
            first = tf.minimum(tf.cast(max(chosen, 0) if is_drawn else 0, tf.int64), count - 1)
        found = tf.data.Dataset.range(first, first + 1 if is_drawn else count)
        return found.map(as_written(lambda number: (index, serialized, number)))

    return records.flat_map(as_written(numbers))


def _parse(serialized: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    ragged = {name: tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64) for name, (_, dtype) in _LISTS.items()}
    return tf.io.parse_single_sequence_example(serialized, _CONTEXT, ragged)
