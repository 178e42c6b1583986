"""Data of Keras's ``fit``, ``evaluate`` and ``predict`` -> a ``Batch``, with every value checked.

(images, {"boxes": ..., "classes": ...}) --checks--> the config's resizer --> Batch
Batch of detzoo's input pipeline ---------------------------------------> as it is
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from detzoo.contracts import PADDING_CLASS, Batch, Groundtruth, Tensor
from detzoo.data.batches import to_padded_fractions
from detzoo.errors import DataError

BOXES, CLASSES, MASKS, IS_CROWD, WEIGHTS = "boxes", "classes", "masks", "is_crowd", "weights"
_REQUIRED, _OPTIONAL = (BOXES, CLASSES), (MASKS, IS_CROWD, WEIGHTS)
_PADDING = {BOXES: 0.0, CLASSES: float(PADDING_CLASS), MASKS: 0, IS_CROWD: False, WEIGHTS: 1.0}
_RANKS = {BOXES: 3, CLASSES: 2, MASKS: 4, IS_CROWD: 2, WEIGHTS: 2}
_SLACK = 1e-3  # rounding of a box at the border of its image
_OVERSHOOT = 64.0  # of bicubic resizing
_ACCEPTED = (
    'ground truth is a dict {"boxes": [images, objects, 4], "classes": [images, objects]}, optional: '
    + ", ".join(f'"{key}"' for key in _OPTIONAL)
)


class KerasData:
    """Converter of the data of Keras's methods.

    Args:
        detector: Detector whose classes, resizer and masks the data must fit.

    Attributes:
        problem: Sentence on the last batch that was refused while the graph ran, or "".
    """

    def __init__(self, detector: Any) -> None:
        self._detector = detector
        self.problem = ""

    def images(self, data: Any) -> Batch:
        """Returns a batch of data without ground truth; ground truth and weights in ``data`` are ignored."""
        if isinstance(data, Batch):
            return data
        x = data[0] if isinstance(data, (tuple, list)) else data
        return self._batch(*_checked(self._check_values, _images(x), {}))

    def examples(self, data: Any) -> Batch:
        """Returns a batch of images and ground truth.

        Raises:
            DataError: The structure, a shape or a type is wrong.
        """
        if isinstance(data, Batch):
            return data
        if self._detector.classifies_images:
            raise DataError("a classifier learns from crops: fit and evaluate take datasets of detzoo's batches")
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is not None:
            raise DataError(
                'sample weights are not accepted, because a loss is normalised over the batch; give "weights" '
                "[images, objects] with the ground truth"
            )
        return self._batch(*_checked(self._check_values, _images(x), self._truth(y)))

    def _truth(self, y: Any) -> dict[str, Tensor]:
        """Returns the tensors of the user's dict, dense and with the right types."""
        if not isinstance(y, Mapping):
            raise DataError(f"ground truth is {_kind(y)}; {_ACCEPTED}")
        missing = [key for key in _REQUIRED if key not in y]
        unknown = [key for key in y if key not in _PADDING]
        if missing or unknown:
            found = ", ".join(f'"{key}"' for key in y)
            raise DataError(f"ground truth has the keys {found or 'of no object'}; {_ACCEPTED}")
        if self._detector.learns_masks and MASKS not in y:
            raise DataError('this detector learns masks; add "masks", uint8 [images, objects, height, width]')
        truth = {key: _dense(y[key], _PADDING[key]) for key in y}
        for key, value in truth.items():
            if value.shape.rank != _RANKS[key] or (key == BOXES and value.shape[-1] != 4):
                raise DataError(f'"{key}" has the shape {_shape(value)}; {_ACCEPTED}')
        for key in (BOXES, WEIGHTS):
            if key in truth:
                truth[key] = tf.cast(truth[key], tf.float32)
        return truth

    def _check_values(self, ranges: Any, is_floating: Any, shape: Any, boxes: Any, classes: Any) -> Any:
        """Raises if values of a batch are wrong, and stores the sentence for ``problem``."""
        num_classes = None if self._detector.proposes_only else self._detector.num_classes
        self.problem = _image_problem(ranges, bool(is_floating), shape)
        if not self.problem and boxes.ndim > 1:
            self.problem = _truth_problem(boxes, classes, int(shape[0]), num_classes)
        if self.problem:
            raise DataError(self.problem)
        return np.True_

    def _batch(self, images: Tensor, truth: dict[str, Tensor]) -> Batch:
        """Returns the batch of checked tensors, with images resized and boxes in fractions of the padded input."""
        if self._detector.wants_proposals:
            raise DataError(
                "this detector classifies given regions: fit, evaluate and predict take datasets of detzoo's batches "
                "with proposals (build_dataset of a reader with proposals_path)"
            )
        count, given_shape = tf.shape(images)[0], tf.shape(images)[1:3]
        padded, true_shape = self._resizer(images) if self._resizer else (images, given_shape)
        classes = tf.cast(truth.get(CLASSES, tf.fill([count, 0], PADDING_CLASS)), tf.int32)
        rows = tf.maximum(1 - tf.shape(classes)[1], 0)  # matchers need a row

        def filled(key: str, default: Any) -> Tensor:
            value = truth.get(key)
            return default if value is None else _pad_rows(value, rows, _PADDING[key])

        classes = _pad_rows(classes, rows, PADDING_CLASS)
        is_object = classes >= 0
        ones, zeros = tf.ones_like(classes, tf.float32), tf.zeros_like(classes, tf.float32)
        masks = truth.get(MASKS)
        if masks is not None:
            masks = tf.cast(_pad_rows(tf.cast(masks, tf.uint8), rows, 0) > 0, tf.uint8)
            masks = self._resized_masks(masks)
        is_box = is_object[..., tf.newaxis]
        batch = Batch(
            images=tf.cast(padded, tf.float32),
            true_shapes=tf.tile(true_shape[tf.newaxis], [count, 1]),
            original_shapes=tf.tile(given_shape[tf.newaxis], [count, 1]),
            image_ids=tf.strings.as_string(tf.range(count)),
            record_index=tf.range(tf.cast(count, tf.int64)),
            groundtruth=Groundtruth(
                boxes_norm=tf.where(is_box, filled(BOXES, tf.zeros([count, 1, 4])), 0.0),
                classes=classes,
                weights=tf.where(is_object, filled(WEIGHTS, ones), 0.0),
                is_crowd=is_object & tf.cast(filled(IS_CROWD, zeros), tf.bool),
                is_difficult=tf.zeros_like(classes, tf.bool),
                area_px=zeros,
                masks=tf.zeros([count, tf.shape(classes)[1], 0, 0], tf.uint8) if masks is None else masks,
            ),
        )
        return to_padded_fractions(batch)

    @property
    def _resizer(self) -> Any:
        """The config's resizer; None for a detector without a config, whose images are not resized."""
        origin = self._detector.origin
        return origin and origin.resizer

    def _resized_masks(self, masks: Tensor) -> Tensor:
        """Resizes masks [B, N, H, W] as their images."""
        if self._resizer is None:
            return masks
        shape = tf.shape(masks)
        resized = self._resizer.masks(tf.reshape(masks, [-1, shape[2], shape[3]]))
        return tf.reshape(resized, tf.concat([shape[:2], tf.shape(resized)[1:]], axis=0))


def to_arrays(data: Any) -> Any:
    """Returns data of a Keras method with lists of one array per image turned into arrays.

    Images of equal size are stacked, and objects are padded to the image with the most. Other data stay as they are.

    Raises:
        DataError: The images have several sizes.
    """
    if isinstance(data, Mapping):
        return {key: _joined(key, value) if _is_list(value) else value for key, value in data.items()}
    if not _is_list(data):
        return data
    images = [np.asarray(image) for image in data]
    if len({image.shape for image in images}) > 1:
        raise DataError(
            f"images of one array have one size; received {images[0].shape} and others: resize them, or give a "
            "tf.data.Dataset of batches of one size"
        )
    return np.stack(images)


def _images(x: Any) -> Tensor:
    """Returns images [B, H, W, 3] of a numeric type."""
    if isinstance(x, (tuple, list, Mapping)):
        raise DataError(f"images are {_kind(x)}; give one array uint8 or float [images, height, width, 3]")
    images = tf.convert_to_tensor(x)
    if images.shape.rank != 4 or images.shape[-1] != 3:
        raise DataError(
            f"images have the shape {_shape(images)}; accepted: [images, height, width, 3], RGB, a batch also for one "
            "image (dataset.batch(1), image[np.newaxis])"
        )
    if not (images.dtype.is_floating or images.dtype.is_integer):
        raise DataError(f"images are {images.dtype.name}; accepted: uint8 or float, 0..255")
    return images


def _checked(check: Any, images: Tensor, truth: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the same tensors, which no operation reads before ``check`` has seen their values on the host."""
    ranges = tf.zeros([2]) if images.dtype == tf.uint8 else _range_of(images)
    values = [ranges, images.dtype.is_floating, tf.shape(images)]
    values += [truth.get(key, tf.zeros([0])) for key in (BOXES, CLASSES)]
    with tf.control_dependencies([tf.numpy_function(check, values, tf.bool)]):
        return tf.nest.map_structure(tf.identity, (images, truth))


def _is_list(value: Any) -> bool:
    is_objects = isinstance(value, np.ndarray) and value.dtype == object
    return is_objects or (isinstance(value, list) and len(value) > 0)


def _joined(key: str, rows: Sequence[Any]) -> np.ndarray:
    """Returns [images, objects, ...] of one array [objects, ...] per image."""
    try:
        arrays = [np.asarray(row) for row in rows]
    except ValueError:  # lists of several lengths
        arrays = []
    filled = [array for array in arrays if array.size]
    objects = {array.shape[1:] for array in filled} or {(4,) if key == BOXES else ()}
    if not arrays or len(objects) > 1:
        raise DataError(f'"{key}" has rows of several lengths in an image; {_ACCEPTED}')
    count = max((len(array) for array in filled), default=0)
    dtype = filled[0].dtype if filled else np.float32
    joined = np.full((len(arrays), count, *objects.pop()), _PADDING.get(key, 0), dtype)
    for row, array in zip(joined, arrays, strict=True):
        if array.size:
            row[: len(array)] = array
    return joined


def _dense(value: Any, padding: Any) -> Tensor:
    if isinstance(value, tf.RaggedTensor):
        return value.to_tensor(tf.cast(padding, value.dtype))
    return tf.convert_to_tensor(value)


def _pad_rows(value: Tensor, rows: Tensor, padding: Any) -> Tensor:
    """Appends rows of padding to [B, N, ...]."""
    paddings = [[0, 0], [0, rows]] + [[0, 0]] * (value.shape.rank - 2)
    return tf.pad(value, paddings, constant_values=tf.cast(padding, value.dtype))


def _range_of(images: Tensor) -> Tensor:
    """Returns minimum and maximum of images, both NaN if a value is not finite."""
    images = tf.cast(images, tf.float32)
    spoiled = tf.reduce_sum(images * 0.0)  # NaN if a value is not finite
    return tf.stack([tf.reduce_min(images), tf.reduce_max(images)]) + spoiled


def _image_problem(ranges: np.ndarray, is_floating: bool, shape: np.ndarray) -> str:
    low, high = map(float, ranges)
    if 0 in shape:
        return f"images have the shape {tuple(map(int, shape))}, without a pixel"
    if not np.isfinite(ranges).all():
        return "images have a value that is not finite (NaN or infinite); accepted: RGB values 0..255"
    if low < -_OVERSHOOT or high > 255 + _OVERSHOOT:
        return f"images have values from {low:g} to {high:g}; accepted: RGB values 0..255"
    if is_floating and (0 < high <= 1 or (low < 0 and high < 32)):
        return f"images look normalised, with values from {low:g} to {high:g}; accepted: RGB values 0..255"
    return ""


def _truth_problem(boxes: np.ndarray, classes: np.ndarray, num_images: int, num_classes: int | None) -> str:
    if boxes.shape[:2] != classes.shape or len(boxes) != num_images:
        return (
            f'"boxes" {boxes.shape} and "classes" {classes.shape} of {num_images} images do not match; accepted: '
            "[images, objects, 4] and [images, objects]"
        )
    wrong = classes != np.round(classes) if classes.dtype.kind == "f" else np.zeros(classes.shape, bool)
    wrong |= classes < PADDING_CLASS
    if num_classes is not None:
        wrong |= classes >= num_classes
    is_object = classes > PADDING_CLASS
    if wrong.any():
        image, row = map(int, np.argwhere(wrong)[0])
        hint = ""
        if num_classes is not None and classes[is_object].min(initial=1) >= 1 and classes.max() == num_classes:
            hint = "; these classes look as if they were counted from 1: subtract 1"
        accepted = "0 and above" if num_classes is None else f"0 to {num_classes - 1}"
        return (
            f"class {classes[image, row]:g} of object {row} in image {image} of a batch; accepted: {accepted}, and "
            f"{PADDING_CLASS} for padding{hint}"
        )
    return _box_problem(boxes, is_object)


def _box_problem(boxes: np.ndarray, is_object: np.ndarray) -> str:
    def where(wrong: Any) -> str:
        image, row = map(int, np.argwhere(wrong & is_object)[0])
        values = ", ".join(f"{value:g}" for value in boxes[image, row])
        return f"box [{values}] of object {row} in image {image} of a batch"

    accepted = "accepted: [ymin, xmin, ymax, xmax] in fractions of the image, 0..1"
    wrong = ~np.isfinite(boxes).all(-1)
    if (wrong & is_object).any():
        return f"{where(wrong)} is not finite; {accepted}"
    wrong = ((boxes < -_SLACK) | (boxes > 1 + _SLACK)).any(-1)
    if (wrong & is_object).any():
        hint = " (pixels? Divide by the image's height and width)" if boxes[is_object].max() > 2 else ""
        return f"{where(wrong)} is outside of the image{hint}; {accepted}"
    wrong = (boxes[..., 2:] <= boxes[..., :2]).any(-1)
    if (wrong & is_object).any():
        return f"{where(wrong)} has no area (another order, or width and height?); {accepted}"
    return ""


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


def _shape(value: Tensor) -> str:
    return "unknown" if value.shape.rank is None else str(tuple(value.shape))
