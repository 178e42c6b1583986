"""Serialized tf.Example -> Sample: the keys of the Object Detection API, label lookup, cleaning of boxes.

Second stage of the input pipeline. What has one right answer is repaired, other issue is dropped, and both are counted
in a vector that travels with the sample (see ``issue_counter``). A record or image that cannot be decoded at all raises
inside the pipeline; ``batches`` turns that into a count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.issue_counter import REASONS
from detzoo.data.sample import Sample, keep_objects
from detzoo.errors import ConfigError
from detzoo.files import images
from detzoo.files.pixel_limit import max_pixels

# What is parsed: values of another type, or a scalar that is a list, make TensorFlow refuse the whole record.
SCALAR_TYPES = {
    "image/encoded": tf.string,
    "image/source_id": tf.string,
    "image/height": tf.int64,
    "image/width": tf.int64,
}
LIST_TYPES = {
    **{f"image/object/bbox/{side}": tf.float32 for side in ("ymin", "xmin", "ymax", "xmax")},
    **{f"image/object/{key}": tf.float32 for key in ("weight", "area")},
    **{f"image/object/{key}": tf.int64 for key in ("class/label", "is_crowd", "group_of", "difficult")},
    "image/object/class/text": tf.string,
}

IMAGE_LABEL_TYPES = {"image/class/text": tf.string, "image/class/label": tf.int64}

# Coordinates may pass the image by this much (float32 rounding of exact values) without being called issue.
CLIP_TOLERANCE = 1e-4

# A loss is a sum of products with weights: above this it overflows float16, and soon float32.
MAX_WEIGHT = 1e4
MAX_CLASS_ID = 2**31 - 1

_JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_MAGIC = b"\x89PNG"


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """What is read from a record; the fields of an ``InputReader``."""

    max_number_of_boxes: int = 100
    load_instance_masks: bool = False
    png_masks: bool = False  # PNG strings, otherwise dense floats
    load_image_labels: bool = False  # classes of the image as a whole; needs a label map


class ClassNames:
    """Class names and ids of a label map as lookup tables, made once and used in the pipeline's graphs."""

    def __init__(self, id_by_name: Mapping[str, int], ids: Sequence[int]) -> None:
        """Takes every name (or display name) with its id, and all ids of the label map."""
        names = list(id_by_name) or [""]
        values = [id_by_name[name] for name in id_by_name] or [0]
        self._by_name = _table(tf.constant(names), tf.constant(values, tf.int64))
        known = sorted(set(ids)) or [0]
        self._known = _table(tf.constant(known, tf.int64), tf.constant(known, tf.int64))
        self.num_classes = known[-1]  # the highest id

    def lookup(self, texts: Tensor, labels: Tensor) -> Tensor:
        """Ids from 1 for N objects, 0 where neither the text nor, for an empty text, the label is known."""
        by_text = self._by_name.lookup(texts)
        by_label = self._known.lookup(labels)
        return tf.where(texts == "", by_label, by_text)


def _table(keys: Tensor, values: Tensor) -> tf.lookup.StaticHashTable:
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), default_value=0)


class Decoded(NamedTuple):
    """A record after decoding. An unusable one has ``usable`` false and a 1 x 1 image."""

    sample: Sample
    image_id: Tensor  # string scalar, may be empty
    issue: Tensor  # int64 [len(REASONS)]
    usable: Tensor  # bool scalar
    labeled_classes: Any = ()  # bool [K], which classes image/class names; () where it is not read


class RecordDecoder:
    """Callable from a serialized tf.Example to ``Decoded``, for ``Dataset.map``; its samples have no proposals yet.

    Args:
        options: what is read.
        class_names: the label map, or None to take ``image/object/class/label`` as it is.
    """

    def __init__(self, options: DecodeOptions, class_names: ClassNames | None = None) -> None:
        if options.load_image_labels and class_names is None:
            raise ConfigError("labels of whole images need a label map: set label_map_path of the input reader")
        self._options = options
        self._class_names = class_names
        self._image_labels = class_names if options.load_image_labels else None
        self._features: dict[str, object] = {
            key: tf.io.FixedLenFeature([], dtype, "" if dtype == tf.string else 0)
            for key, dtype in SCALAR_TYPES.items()
        }
        lists = dict(LIST_TYPES)
        if options.load_instance_masks:
            lists["image/object/mask"] = tf.string if options.png_masks else tf.float32
        if options.load_image_labels:
            lists |= IMAGE_LABEL_TYPES
        for key, dtype in lists.items():
            self._features[key] = tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)

    def __call__(self, serialized: Tensor) -> Decoded:
        """Decodes one record; raises inside the graph where the record or its image is corrupt."""
        fields = tf.io.parse_single_example(serialized, self._features)
        image_missing = fields["image/encoded"] == ""
        consistent = self._consistent(fields)
        masks_missing = self._masks_missing(fields)
        usable = ~image_missing & consistent & ~masks_missing
        image, too_large = decode_within_limit(fields["image/encoded"], usable)
        usable &= ~too_large
        sample = tf.cond(usable, lambda: self._objects(fields, image), lambda: self._no_objects(image))
        sample, found = self._clean(Sample(image, *sample))
        found["missing_image"] = image_missing
        found["inconsistent_record"] = ~image_missing & ~consistent
        found["missing_masks"] = ~image_missing & consistent & masks_missing
        found["too_many_pixels"] = too_large
        labeled = () if self._image_labels is None else _labeled_classes(fields, self._image_labels)
        return Decoded(sample, fields["image/source_id"], count_issues(found), usable, labeled)

    def _consistent(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Whether the lists that every object needs are equally long."""
        count = tf.size(fields["image/object/bbox/ymin"])
        same = [tf.size(fields[f"image/object/bbox/{side}"]) == count for side in ("xmin", "ymax", "xmax")]
        num_labels = tf.size(fields["image/object/class/label"])
        if self._class_names is not None:
            num_labels = tf.maximum(num_labels, tf.size(fields["image/object/class/text"]))
        same.append(num_labels == count)
        if self._options.png_masks and self._options.load_instance_masks:
            num_masks = tf.size(fields["image/object/mask"])
            same.append((num_masks == count) | (num_masks == 0))
        return tf.reduce_all(tf.stack(same))

    def _masks_missing(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Whether masks are asked for, and the record has objects without any."""
        if not self._options.load_instance_masks:
            return tf.constant(False)
        return (tf.size(fields["image/object/bbox/ymin"]) > 0) & (tf.size(fields["image/object/mask"]) == 0)

    def _objects(self, fields: Mapping[str, Tensor], image: Tensor) -> tuple[Tensor, ...]:
        """The fields of a Sample after its image, as the record has them."""
        sides = [fields[f"image/object/bbox/{side}"] for side in ("ymin", "xmin", "ymax", "xmax")]
        boxes = tf.ensure_shape(tf.stack(sides, axis=1), [None, 4])
        count = tf.shape(boxes)[0]
        labels = _or_default(fields["image/object/class/label"], count, 0)
        if self._class_names is None:
            labels = tf.where(labels <= MAX_CLASS_ID, tf.maximum(labels, 0), 0)
        else:
            labels = self._class_names.lookup(_or_default(fields["image/object/class/text"], count, ""), labels)
        objects = (
            boxes,
            tf.cast(labels, tf.int32) - 1,
            _or_default(fields["image/object/weight"], count, 1.0),
            # Open Images' groups are what COCO calls a crowd: one box around many objects.
            _or_default(fields["image/object/is_crowd"], count, 0)
            + _or_default(fields["image/object/group_of"], count, 0)
            > 0,
            _or_default(fields["image/object/difficult"], count, 0) > 0,
            _or_default(fields["image/object/area"], count, 0.0),
        )
        return (*objects, self._masks(fields, count, image)) if self._options.load_instance_masks else (*objects, ())

    def _no_objects(self, image: Tensor) -> tuple[Tensor, ...]:
        """The same fields for an image without objects."""
        floats, flags = tf.zeros([0], tf.float32), tf.zeros([0], tf.bool)
        objects = (tf.zeros([0, 4], tf.float32), tf.zeros([0], tf.int32), floats, flags, flags, floats)
        size = tf.shape(image)[:2]
        masks = tf.zeros(tf.concat([[0], size], axis=0), tf.uint8) if self._options.load_instance_masks else ()
        return (*objects, masks)

    def _masks(self, fields: Mapping[str, Tensor], count: Tensor, image: Tensor) -> Tensor:
        """uint8 [N, H, W] of 0 and 1; raises inside the graph where a mask has not the size of the image."""
        size = tf.shape(image)[:2]
        flat = fields["image/object/mask"]
        if not self._options.png_masks:
            return tf.cast(tf.reshape(flat, tf.concat([[count], size], axis=0)) > 0.0, tf.uint8)

        def decode_mask(encoded: Tensor) -> Tensor:
            decode = lambda: tf.io.decode_png(encoded, channels=1)[..., 0]  # noqa: E731
            none = lambda: tf.zeros([0, 0], tf.uint8)  # noqa: E731  # of another size: not decoded, refused below
            checked = lambda: tf.cond(tf.reduce_all(_png_size(encoded) == size), decode, none)  # noqa: E731
            mask = tf.cond(encoded == "", lambda: tf.zeros(size, tf.uint8), checked)
            return tf.cast(tf.reshape(mask, size) > 0, tf.uint8)

        # map_fn cannot stack nothing: without objects there is no branch that calls it.
        return tf.cond(
            tf.size(flat) > 0,
            lambda: tf.map_fn(decode_mask, flat, fn_output_signature=tf.TensorSpec([None, None], tf.uint8)),
            lambda: tf.zeros(tf.concat([[0], size], axis=0), tf.uint8),
        )

    def _clean(self, sample: Sample) -> tuple[Sample, dict[str, Tensor]]:
        """Repairs and drops objects, and says by reason which."""
        sample = sample._replace(masks=sample.masks if self._options.load_instance_masks else None)
        finite = tf.reduce_all(tf.math.is_finite(sample.boxes_norm), axis=1)
        boxes = tf.where(finite[:, tf.newaxis], sample.boxes_norm, 0.0)
        low, high = tf.minimum(boxes[:, :2], boxes[:, 2:]), tf.maximum(boxes[:, :2], boxes[:, 2:])
        inverted = tf.reduce_any(boxes[:, :2] > boxes[:, 2:], axis=1)
        ordered = tf.concat([low, high], axis=1)
        clipped = tf.clip_by_value(ordered, 0.0, 1.0)
        has_area = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], axis=1)
        known = sample.classes >= 0
        beyond = tf.reduce_any(tf.abs(ordered - clipped) > CLIP_TOLERANCE, axis=1)
        kept = finite & has_area & known
        within = tf.cumsum(tf.cast(kept, tf.int32)) <= self._options.max_number_of_boxes
        found = {
            "nan_box": ~finite,
            "empty_box": finite & ~has_area,
            "unknown_class": finite & has_area & ~known,
            "too_many_boxes": kept & ~within,
            "inverted_box": kept & within & inverted,
            "box_outside_image": kept & within & beyond,
        }
        # Comparisons with NaN are false.
        right_weight = (sample.weights >= 0.0) & (sample.weights <= MAX_WEIGHT)
        right_area = (sample.area_px >= 0.0) & tf.math.is_finite(sample.area_px)
        found["wrong_weight"] = kept & within & ~right_weight
        found["wrong_area"] = kept & within & ~right_area
        cleaned = sample._replace(
            boxes_norm=clipped,
            weights=tf.where(right_weight, sample.weights, 1.0),
            area_px=tf.where(right_area, sample.area_px, 0.0),
        )
        return keep_objects(cleaned, kept & within), found


def _labeled_classes(fields: Mapping[str, Tensor], names: ClassNames) -> Tensor:
    """bool [K] of the classes that the record names for the image as a whole; unknown ones are left out."""
    texts, labels = fields["image/class/text"], fields["image/class/label"]
    count = tf.maximum(tf.size(texts), tf.size(labels))
    ids = names.lookup(_or_default(texts, count, ""), _or_default(labels, count, 0))
    return tf.reduce_any(ids[:, tf.newaxis] == tf.range(1, names.num_classes + 1, dtype=ids.dtype), axis=0)


def count_issues(found: Mapping[str, Tensor]) -> Tensor:
    """The vector of issue counts, int64 [len(REASONS)]: how many values are true under each reason."""
    none = tf.constant(0, tf.int64)
    return tf.stack([tf.math.count_nonzero(found[reason]) if reason in found else none for reason in REASONS])


def _or_default(values: Tensor, count: Tensor, default: float | int | str) -> Tensor:
    """The list itself where it has one value for each object, else ``count`` defaults."""
    return tf.cond(tf.size(values) == count, lambda: values, lambda: tf.fill([count], tf.cast(default, values.dtype)))


def decode_image(encoded: Tensor) -> Tensor:
    """Decodes an image file of any format to uint8 [H, W, 3] RGB; raises inside the graph where it is corrupt.

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
    """Decodes an image file as ``decode_image``, unless its header states too many pixels.

    Args:
        encoded: string scalar.
        usable: bool scalar, False if there is nothing to decode.

    Returns:
        uint8 [H, W, 3], 1 x 1 where nothing was decoded, and a bool scalar: whether it has more pixels than the limit.
    """
    size = tf.cond(usable, lambda: _image_size(encoded), lambda: tf.zeros([2], tf.int64))
    too_large = tf.reduce_prod(size) > max_pixels()
    image = tf.cond(usable & ~too_large, lambda: decode_image(encoded), lambda: tf.zeros([1, 1, 3], tf.uint8))
    return tf.ensure_shape(image, [None, None, 3]), too_large


def _by_format(
    encoded: Tensor, jpeg: Callable[[], Tensor], png: Callable[[], Tensor], other: Callable[[], Tensor]
) -> Tensor:
    """Returns what one of the three functions does, by the first bytes of an image file."""
    is_jpeg = tf.strings.substr(encoded, 0, 3) == _JPEG_MAGIC
    is_png = tf.strings.substr(encoded, 0, 4) == _PNG_MAGIC
    return tf.cond(is_jpeg, jpeg, lambda: tf.cond(is_png, png, other))


def _image_size(encoded: Tensor) -> Tensor:
    """Reads (height, width), int64 [2], from an image file's header; raises inside the graph where that is broken."""
    size = _by_format(
        encoded,
        lambda: tf.io.extract_jpeg_shape(encoded, tf.int64)[:2],
        lambda: tf.cast(_png_size(encoded), tf.int64),
        lambda: tf.numpy_function(_size_with_pillow, [encoded], tf.int64, stateful=False),
    )
    return tf.ensure_shape(size, [2])


def _png_size(encoded: Tensor) -> Tensor:
    """(height, width), int32 [2], of a PNG: bytes 20 to 23 and 16 to 19, the highest first."""
    width_height = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
    return tf.ensure_shape(tf.reverse(width_height, [0]), [2])


def _decode_with_pillow(encoded: bytes | np.ndarray) -> np.ndarray:
    return np.asarray(images.to_rgb(images.decode_image(_as_bytes(encoded), "")[0]))


def _size_with_pillow(encoded: bytes | np.ndarray) -> np.ndarray:
    try:
        image = images.open_header(_as_bytes(encoded))
    except images.UnusableImage:  # too many pixels
        return np.array([np.iinfo(np.int32).max] * 2, np.int64)
    return np.array([image.height, image.width], np.int64)


def _as_bytes(encoded: bytes | np.ndarray) -> bytes:
    """In a graph TensorFlow hands over bytes, outside of one an array of objects."""
    return encoded.item() if isinstance(encoded, np.ndarray) else encoded
