"""Serialized tf.Example -> Sample: the keys of the Object Detection API, label lookup, cleaning of boxes.

Second stage of the input pipeline. An issue with one right answer is repaired. Other objects and records are dropped.
Both are counted in a vector that travels with the sample (see ``issue_counter``). A record or image that cannot be
decoded raises inside the pipeline, and ``batches`` turns that into a count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.issue_counter import REASONS
from detzoo.data.record_keys import (
    BYTES,
    CLIP_TOLERANCE,
    CONTEXT_FEATURES,
    CONTEXT_LENGTH,
    FLOAT,
    INT64,
    KEYS,
    OBJECT,
    SIDES,
)
from detzoo.data.sample import Sample, keep_objects
from detzoo.data.sequences import IS_ANNOTATED, fields_of_image
from detzoo.errors import ConfigError
from detzoo.files import images
from detzoo.files.pixel_limit import max_pixels

_TYPES = {BYTES: tf.string, FLOAT: tf.float32, INT64: tf.int64}
_DEFAULTS = {BYTES: "", FLOAT: 0.0, INT64: 0}

_JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_MAGIC = b"\x89PNG"


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """Parts of a record that are read; the fields of an ``InputReader``."""

    max_number_of_boxes: int = 100
    load_instance_masks: bool = False
    png_masks: bool = False  # PNG strings, otherwise dense floats
    num_keypoints: int = 0  # T keypoints of each object; 0 reads none
    load_image_labels: bool = False  # classes of the image as a whole; needs a label map
    is_sequence: bool = False  # records are tf.SequenceExamples, of which an image is chosen by its number
    max_context_features: int = 0  # rows of the memory that are read at most; 0 reads no memory
    context_length: int = 0  # values per row of the memory


class ClassNames:
    """Class names and ids of a label map as lookup tables, made once and used in the pipeline's graphs.

    ``is_remote``: other processes run these graphs.
    """

    def __init__(self, id_by_name: Mapping[str, int], ids: Sequence[int], is_remote: bool = False) -> None:
        self._by_name = _table(list(id_by_name) or [""], list(id_by_name.values()) or [0], is_remote)
        known = sorted(set(ids)) or [0]
        self._known = _table(known, known, is_remote)
        self.num_classes = known[-1]  # the highest id

    def lookup(self, texts: Tensor, labels: Tensor) -> Tensor:
        """Returns the ids of N objects, from 1: by text, or by label if the text is empty; 0 for an unknown class."""
        return tf.where(texts == "", self._known.lookup(labels), self._by_name.lookup(texts))


class _Pairs(NamedTuple):
    """A lookup by comparison with every key, for graphs that another process runs, which shares no table with it."""

    keys: Tensor  # [K]
    values: Tensor  # int64 [K], from 1

    def lookup(self, found: Tensor) -> Tensor:
        """Returns the value of each key, 0 for an unknown one."""
        return tf.reduce_max(tf.where(found[..., tf.newaxis] == self.keys, self.values, 0), axis=-1)


def _table(keys: Sequence[Any], values: Sequence[int], is_remote: bool) -> Any:
    pairs = _Pairs(tf.constant(keys, None if isinstance(keys[0], str) else tf.int64), tf.constant(values, tf.int64))
    if is_remote or not tf.executing_eagerly():
        return pairs
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(*pairs), default_value=0)


class Decoded(NamedTuple):
    """A record after decoding. An unusable record has ``usable`` False and a 1 x 1 image."""

    sample: Sample
    image_id: Tensor  # string scalar, may be empty
    issues: Tensor  # int64 [len(REASONS)]
    usable: Tensor  # bool scalar
    labeled_classes: Any = ()  # bool [K], classes that image/class names; () if it is not read
    context: Any = ()  # float32 [n, F], the memory; () if it is not read


def parse_rules(keys: Iterable[str], **types: tf.DType) -> dict[str, Any]:
    """Returns the argument of ``tf.io.parse_single_example`` for keys of ``KEYS``; absent ones become "", 0 or [].

    ``mask=`` gives the type of masks, if it differs from the table.
    """
    rules: dict[str, Any] = {}
    for key in keys:
        kind, is_list = KEYS[key][:2]
        dtype = types.get(key.rpartition("/")[2], _TYPES[kind])
        if is_list:
            rules[key] = tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)
        else:
            rules[key] = tf.io.FixedLenFeature([], dtype, _DEFAULTS[kind])
    return rules


class RecordDecoder:
    """Callable from a serialized tf.Example to ``Decoded``, for ``Dataset.map``; its samples have no proposals yet.

    Without class names ``image/object/class/label`` is taken as it is.

    Raises:
        ConfigError: Labels of whole images are read without a label map.
    """

    def __init__(self, options: DecodeOptions, class_names: ClassNames | None = None) -> None:
        if options.load_image_labels and class_names is None:
            raise ConfigError("labels of whole images need a label map: set label_map_path of the input reader")
        self._options = options
        self._class_names = class_names
        keys = [key for key, rule in KEYS.items() if rule.is_decoded]
        if options.load_instance_masks:
            keys.append(f"{OBJECT}/mask")
        if options.num_keypoints:
            keys += [f"{OBJECT}/keypoint/{name}" for name in ("y", "x", "visibility")]
        if options.max_context_features:
            keys += [CONTEXT_FEATURES, CONTEXT_LENGTH]
        if options.load_image_labels:
            keys += ["image/class/text", "image/class/label"]
        self._rules = parse_rules(keys, mask=tf.string if options.png_masks else tf.float32)

    def __call__(self, serialized: Tensor, number: Tensor | None = None) -> Decoded:
        """Decodes one record, or image ``number`` of a sequence; raises inside the graph if one of them is corrupt."""
        if number is None:
            fields = tf.io.parse_single_example(serialized, self._rules)
        else:
            fields = fields_of_image(serialized, number)
        image_missing = fields["image/encoded"] == ""
        consistent = self._is_consistent(fields)
        masks_missing = self._lacks_masks(fields)
        usable = ~image_missing & consistent & ~masks_missing
        image, too_large = decode_within_limit(fields["image/encoded"], usable)
        usable &= ~too_large
        sample, found = self._clean(self._sample(fields, image, usable))
        found["missing_image"] = image_missing
        found["inconsistent_record"] = ~image_missing & ~consistent
        found["missing_masks"] = ~image_missing & consistent & masks_missing
        found["too_many_pixels"] = too_large
        context = ()
        if self._options.max_context_features:
            found["missing_context"] = usable & (fields[CONTEXT_LENGTH] == 0)
            rows = tf.reshape(fields[CONTEXT_FEATURES], [-1, self._options.context_length])
            context = rows[: tf.where(usable, self._options.max_context_features, 0)]
        if number is not None:  # without labels, an image has nothing to learn or to measure
            usable &= tf.reduce_all(fields[IS_ANNOTATED] > 0)
        labeled = ()
        if self._options.load_image_labels and self._class_names is not None:
            labeled = _labeled_classes(fields, self._class_names)
        return Decoded(sample, fields["image/source_id"], count_issues(found), usable, labeled, context)

    def _is_consistent(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Returns True if the lists that every object needs have one length."""
        count = tf.size(fields[f"{OBJECT}/bbox/ymin"])
        same = [tf.size(fields[f"{OBJECT}/bbox/{side}"]) == count for side in SIDES]
        num_labels = tf.size(fields[f"{OBJECT}/class/label"])
        if self._class_names is not None:
            num_labels = tf.maximum(num_labels, tf.size(fields[f"{OBJECT}/class/text"]))
        same.append(num_labels == count)
        if self._options.num_keypoints:
            num_points = tf.size(fields[f"{OBJECT}/keypoint/y"])
            same.append((num_points == count * self._options.num_keypoints) | (num_points == 0))
            same.append(tf.size(fields[f"{OBJECT}/keypoint/x"]) == num_points)
            num_visible = tf.size(fields[f"{OBJECT}/keypoint/visibility"])
            same.append((num_visible == num_points) | (num_visible == 0))
        if self._options.max_context_features:
            num_values, length = tf.size(fields[CONTEXT_FEATURES], tf.int64), fields[CONTEXT_LENGTH]
            same.append((length == self._options.context_length) | ((length == 0) & (num_values == 0)))
            same.append(num_values % self._options.context_length == 0)
        if self._options.png_masks and self._options.load_instance_masks:
            num_masks = tf.size(fields[f"{OBJECT}/mask"])
            same.append((num_masks == count) | (num_masks == 0))
        return tf.reduce_all(tf.stack(same))

    def _lacks_masks(self, fields: Mapping[str, Tensor]) -> Tensor:
        if not self._options.load_instance_masks:
            return tf.constant(False)
        return (tf.size(fields[f"{OBJECT}/bbox/ymin"]) > 0) & (tf.size(fields[f"{OBJECT}/mask"]) == 0)

    def _sample(self, fields: Mapping[str, Tensor], image: Tensor, usable: Tensor) -> Sample:
        """Returns the objects as the record has them; no objects if the record is unusable."""
        count = tf.where(usable, tf.size(fields[f"{OBJECT}/bbox/ymin"]), 0)

        def column(key: str, default: float | int | str = 0) -> Tensor:
            return _or_default(fields[f"{OBJECT}/{key}"], count, default)

        boxes = tf.stack([fields[f"{OBJECT}/bbox/{side}"][:count] for side in SIDES], axis=1)
        labels = column("class/label")
        if self._class_names is None:
            labels = tf.where(KEYS[f"{OBJECT}/class/label"].accepts(labels), labels, 0)
        else:
            labels = self._class_names.lookup(column("class/text", ""), labels)
        masks = fields[f"{OBJECT}/mask"] if self._options.load_instance_masks else None
        return Sample(
            image=image,
            boxes_norm=tf.ensure_shape(boxes, [None, 4]),
            classes=tf.cast(labels, tf.int32) - 1,
            weights=column("weight", 1.0),
            # Open Images' groups are what COCO calls a crowd: one box around many objects.
            is_crowd=column("is_crowd") + column("group_of") > 0,
            is_difficult=column("difficult") > 0,
            area_px=column("area", 0.0),
            masks=None if masks is None else self._masks(masks[: tf.where(usable, tf.size(masks), 0)], count, image),
            **self._keypoints(fields, count),
        )

    def _keypoints(self, fields: Mapping[str, Tensor], count: Tensor) -> dict[str, Tensor]:
        """Returns the keypoints of ``count`` objects; without visibility those that are finite are visible."""
        number = self._options.num_keypoints
        if not number:
            return {}

        def column(name: str, default: float | int) -> Tensor:
            values = _or_default(fields[f"{OBJECT}/keypoint/{name}"], count * number, default)
            return tf.reshape(values, [count, number])

        points = tf.stack([column("y", math.nan), column("x", math.nan)], axis=-1)
        visible = tf.cast(column("visibility", 2), tf.int32)
        is_finite = tf.reduce_all(tf.math.is_finite(points), axis=-1)
        return {
            "keypoints_norm": tf.where(is_finite[..., tf.newaxis], points, 0.0),
            "keypoint_visibility": tf.where(is_finite, tf.clip_by_value(visible, 0, 2), 0),
        }

    def _masks(self, stored: Tensor, count: Tensor, image: Tensor) -> Tensor:
        """Returns uint8 [N, H, W] of 0 and 1; raises inside the graph if a mask has not the size of the image."""
        size = tf.shape(image)[:2]
        if not self._options.png_masks:
            return tf.cast(tf.reshape(stored, tf.concat([[count], size], axis=0)) > 0.0, tf.uint8)

        def decode_mask(encoded: Tensor) -> Tensor:
            decode = lambda: tf.io.decode_png(encoded, channels=1)[..., 0]  # noqa: E731
            none = lambda: tf.zeros([0, 0], tf.uint8)  # noqa: E731  # of another size: not decoded, refused below
            checked = lambda: tf.cond(tf.reduce_all(_png_size(encoded) == size), decode, none)  # noqa: E731
            mask = tf.cond(encoded == "", lambda: tf.zeros(size, tf.uint8), checked)
            return tf.cast(tf.reshape(mask, size) > 0, tf.uint8)

        # map_fn cannot stack nothing: without objects there is no branch that calls it.
        return tf.cond(
            tf.size(stored) > 0,
            lambda: tf.map_fn(decode_mask, stored, fn_output_signature=tf.TensorSpec([None, None], tf.uint8)),
            lambda: tf.zeros(tf.concat([[0], size], axis=0), tf.uint8),
        )

    def _clean(self, sample: Sample) -> tuple[Sample, dict[str, Tensor]]:
        """Repairs and drops objects; returns by reason which objects are concerned, bool [N]."""
        finite = tf.reduce_all(tf.math.is_finite(sample.boxes_norm), axis=1)
        boxes = tf.where(finite[:, tf.newaxis], sample.boxes_norm, 0.0)
        low, high = tf.minimum(boxes[:, :2], boxes[:, 2:]), tf.maximum(boxes[:, :2], boxes[:, 2:])
        inverted = tf.reduce_any(boxes[:, :2] > boxes[:, 2:], axis=1)
        ordered = tf.concat([low, high], axis=1)
        clipped = tf.clip_by_value(ordered, 0.0, 1.0)
        has_area = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], axis=1)
        known = sample.classes >= 0
        beyond = tf.reduce_any(tf.abs(ordered - clipped) > CLIP_TOLERANCE, axis=1)
        right_weight = KEYS[f"{OBJECT}/weight"].accepts(sample.weights)
        right_area = KEYS[f"{OBJECT}/area"].accepts(sample.area_px)
        usable = finite & has_area & known
        kept = usable & (tf.cumsum(tf.cast(usable, tf.int32)) <= self._options.max_number_of_boxes)
        found = {
            "nan_box": ~finite,
            "empty_box": finite & ~has_area,
            "unknown_class": finite & has_area & ~known,
            "too_many_boxes": usable & ~kept,
            "inverted_box": kept & inverted,
            "box_outside_image": kept & beyond,
            "wrong_weight": kept & ~right_weight,
            "wrong_area": kept & ~right_area,
        }
        cleaned = sample._replace(
            boxes_norm=clipped,
            weights=tf.where(right_weight, sample.weights, 1.0),
            area_px=tf.where(right_area, sample.area_px, 0.0),
        )
        return keep_objects(cleaned, kept), found


def _labeled_classes(fields: Mapping[str, Tensor], names: ClassNames) -> Tensor:
    """Returns bool [K] of the classes that the record names for the image as a whole, without unknown ones."""
    texts, labels = fields["image/class/text"], fields["image/class/label"]
    count = tf.maximum(tf.size(texts), tf.size(labels))
    ids = names.lookup(_or_default(texts, count, ""), _or_default(labels, count, 0))
    return tf.reduce_any(ids[:, tf.newaxis] == tf.range(1, names.num_classes + 1, dtype=ids.dtype), axis=0)


def count_issues(found: Mapping[str, Tensor]) -> Tensor:
    """Returns the vector of issue counts, int64 [len(REASONS)]: the number of True values for each reason."""
    none = tf.constant(0, tf.int64)
    return tf.stack([tf.math.count_nonzero(found[reason]) if reason in found else none for reason in REASONS])


def _or_default(values: Tensor, count: Tensor, default: float | int | str) -> Tensor:
    """Returns the list itself if it has ``count`` values, otherwise ``count`` defaults."""
    return tf.cond(tf.size(values) == count, lambda: values, lambda: tf.fill([count], tf.cast(default, values.dtype)))


def decode_image(encoded: Tensor) -> Tensor:
    """Decodes any format to RGB, uint8 [H, W, 3]; raises inside the graph if the file is corrupt.

    JPEG (also gray and CMYK) and PNG (also palette, alpha, 16 bit) by TensorFlow's decoders, the first frame of
    anything else by Pillow. An EXIF orientation is not applied: the boxes of a record refer to the stored pixels.
    """
    image = _by_format(
        encoded,
        lambda: tf.io.decode_jpeg(encoded, channels=3),
        lambda: tf.io.decode_png(encoded, channels=3),
        lambda: tf.numpy_function(_decode_with_pillow, [encoded], tf.uint8, stateful=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def decode_within_limit(encoded: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """Decodes as ``decode_image``, unless the header states too many pixels or the image is not ``usable``.

    Returns:
        The image uint8 [H, W, 3], 1 x 1 if nothing was decoded; and bool, True if it exceeds the limit of pixels.
    """
    size = tf.cond(usable, lambda: _image_size(encoded), lambda: tf.zeros([2], tf.int64))
    too_large = tf.reduce_prod(size) > max_pixels()
    image = tf.cond(usable & ~too_large, lambda: decode_image(encoded), lambda: tf.zeros([1, 1, 3], tf.uint8))
    return tf.ensure_shape(image, [None, None, 3]), too_large


def _by_format(
    encoded: Tensor, jpeg: Callable[[], Tensor], png: Callable[[], Tensor], other: Callable[[], Tensor]
) -> Tensor:
    """Returns the result of one of the three functions, chosen by the first bytes of an image file."""
    is_jpeg = tf.strings.substr(encoded, 0, 3) == _JPEG_MAGIC
    is_png = tf.strings.substr(encoded, 0, 4) == _PNG_MAGIC
    return tf.cond(is_jpeg, jpeg, lambda: tf.cond(is_png, png, other))


def _image_size(encoded: Tensor) -> Tensor:
    """Reads (height, width), int64 [2], from an image file's header; raises inside the graph if that is broken."""
    size = _by_format(
        encoded,
        lambda: tf.io.extract_jpeg_shape(encoded, tf.int64)[:2],
        lambda: tf.cast(_png_size(encoded), tf.int64),
        lambda: tf.numpy_function(_size_with_pillow, [encoded], tf.int64, stateful=False),
    )
    return tf.ensure_shape(size, [2])


def _png_size(encoded: Tensor) -> Tensor:
    """Returns (height, width), int32 [2], of a PNG: bytes 20 to 23 and 16 to 19, the highest first."""
    width_height = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
    return tf.ensure_shape(tf.reverse(width_height, [0]), [2])


def _decode_with_pillow(encoded: bytes | np.ndarray) -> np.ndarray:
    return np.asarray(images.to_rgb(images.decode_image(as_bytes(encoded), "")[0]))


def _size_with_pillow(encoded: bytes | np.ndarray) -> np.ndarray:
    try:
        image = images.open_header(as_bytes(encoded))
    except images.UnusableImage:  # too many pixels
        return np.array([np.iinfo(np.int32).max] * 2, np.int64)
    return np.array([image.height, image.width], np.int64)


def as_bytes(value: Any) -> bytes:
    """Returns the bytes of a ``tf.numpy_function``'s argument: bytes in a graph, an array of objects outside of one."""
    return value.item() if isinstance(value, np.ndarray) else value
