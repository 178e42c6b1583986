"""A classifier's records -> ``Decoded``: one "object" that is the whole image, of the image's class.

So a labelled image passes the same stages as a detector's: augmentation, batching, loss. Two sources: tf.Examples as
TensorFlow's scripts write ImageNet (``image/class/label`` from 1, ``image/class/text``, ``image/class/synset``), and
folders of image files, ``path/CLASS NAME/any/file.jpg``.
"""

from __future__ import annotations

import os

import tensorflow as tf

from detzoo.config.image_folders import images_by_class
from detzoo.contracts import Tensor
from detzoo.data.decode import ClassNames, Decoded, count_issues, decode_within_limit, parse_rules
from detzoo.data.records import CHECKED_RECORDS, RecordSource
from detzoo.data.sample import Sample
from detzoo.errors import DataError

CLASS_KEYS = ("image/class/label", "image/class/text", "image/class/synset")
_OBJECT_KEYS = ("image/object/class/label", "image/object/class/text")
_SCALARS = ("image/encoded", "image/source_id", "image/filename")
_SEPARATOR = "\t"  # between a class id and a path


class ClassRecordDecoder:
    """Callable from a serialized tf.Example to ``Decoded``, by the names of a label map.

    An image's class is ``image/class/label`` if that is an id of the label map, otherwise the id of
    ``image/class/text`` or ``image/class/synset``. A record without these keys, such as a detector's, counts if all of
    its objects are of one class.
    """

    def __init__(self, class_names: ClassNames) -> None:
        self._names = class_names
        self._rules = parse_rules((*_SCALARS, *CLASS_KEYS, *_OBJECT_KEYS))

    def __call__(self, serialized: Tensor) -> Decoded:
        """Decodes one record; raises inside the graph if the record or its image is corrupt."""
        fields = tf.io.parse_single_example(serialized, self._rules)
        image_id = tf.where(fields["image/source_id"] == "", fields["image/filename"], fields["image/source_id"])
        return whole_image(fields["image/encoded"], self._class_id(fields), image_id)

    def class_id(self, serialized: Tensor) -> Tensor:
        """Returns the class of a record, int64 scalar from 1, or 0 if it has none. The image is not decoded."""
        return self._class_id(tf.io.parse_single_example(serialized, self._rules))

    def _class_id(self, fields: dict[str, Tensor]) -> Tensor:
        candidates = tf.stack([_highest(self._ids(fields[key])) for key in CLASS_KEYS])
        first_known = candidates[tf.argmax(tf.cast(candidates > 0, tf.int32))]
        has_class = tf.add_n([tf.size(fields[key]) for key in CLASS_KEYS]) > 0
        return tf.where(has_class, first_known, self._object_class(fields))

    def _ids(self, values: Tensor) -> Tensor:
        """Returns the known ids of names or of labels; 0 for an unknown one."""
        if values.dtype == tf.string:
            return self._names.lookup(values, tf.zeros_like(values, tf.int64))
        return self._names.lookup(tf.fill(tf.shape(values), ""), values)

    def _object_class(self, fields: dict[str, Tensor]) -> Tensor:
        """Returns the one class of all objects, 0 if there are none or several."""
        labels, texts = (fields[key] for key in _OBJECT_KEYS)
        ids = tf.cond(tf.size(texts) > 0, lambda: self._ids(texts), lambda: self._ids(labels))
        first = _highest(ids)
        return tf.where(tf.reduce_all(ids == first), first, 0)


def _highest(ids: Tensor) -> Tensor:
    return tf.reduce_max(tf.concat([ids, [0]], axis=0))


def check_classes(source: RecordSource, decoder: ClassRecordDecoder) -> None:
    """Checks the first records of a source; raises DataError if more than half have no class of the label map."""
    found = source.first_records(CHECKED_RECORDS).map(decoder.class_id).ignore_errors()
    ids = list(found.as_numpy_iterator())
    missing = sum(class_id == 0 for class_id in ids)
    if 2 * missing > len(ids):
        raise DataError(
            f"{missing} of the first {len(ids)} records have no class of the label map: neither image/class/label (an "
            "id from 1), image/class/text nor image/class/synset, nor objects of one class. A classifier learns one "
            "class of each image: write image/class/label, or use image_folder_reader"
        )


class ImageFolderSource(RecordSource):
    """The image files of a folder with one folder per class, as a stream of "class id, path" records.

    Raises:
        DataError: A folder is no class of ``ids`` (class name -> id), or there is no image file.
    """

    def __init__(
        self, folder: str, ids: dict[str, int], shuffle: bool = True, seed: int = 0, sample_1_of_n: int = 1
    ) -> None:
        files = images_by_class(folder)
        unknown = sorted(set(files) - set(ids))
        if unknown:
            raise DataError(
                f"image_folder_reader.path {folder} has a folder '{unknown[0]}', which is no class of the label map; "
                f"its classes are {', '.join(sorted(ids)[:10])}"
            )
        records = [f"{ids[name]}{_SEPARATOR}{path}" for name, paths in files.items() for path in paths]
        if not records:
            raise DataError(f"image_folder_reader.path {folder} has no image in a folder of a class")
        self._records = tf.constant(records[::sample_1_of_n])
        self._shuffle, self._folder_seed = shuffle, seed
        self.num_records = len(self._records)

    def first_records(self, count: int) -> tf.data.Dataset:
        """Returns the first ``count`` records."""
        return tf.data.Dataset.from_tensor_slices(self._records[:count])

    def _order(self, epoch: Tensor) -> tf.data.Dataset:
        numbers = tf.range(self.num_records, dtype=tf.int64)
        if self._shuffle:
            seed = tf.stack([tf.constant(self._folder_seed, tf.int64), epoch])
            numbers = tf.random.experimental.stateless_shuffle(numbers, seed)
        return tf.data.Dataset.from_tensor_slices(numbers)

    def _read(self, number: Tensor) -> Tensor:
        return tf.gather(self._records, number)


def decode_folder_record(record: Tensor) -> Decoded:
    """Decodes a "class id, path" record; its id is the path below the class's folder.

    Raises inside the graph if the file cannot be read or is no image.
    """
    parts = tf.strings.split(record, _SEPARATOR, maxsplit=1)
    # The stream ends each epoch with an empty record.
    is_record = tf.size(parts) == 2
    path = tf.cond(is_record, lambda: parts[1], lambda: tf.constant(""))
    class_id = tf.cond(is_record, lambda: tf.strings.to_number(parts[0], tf.int64), lambda: tf.constant(0, tf.int64))
    encoded = tf.cond(is_record, lambda: tf.io.read_file(path), lambda: tf.constant(""))
    names = tf.strings.split(path, os.sep)
    return whole_image(encoded, class_id, tf.strings.reduce_join(names[-2:], separator="/"))


def whole_image(encoded: Tensor, class_id: Tensor, image_id: Tensor) -> Decoded:
    """Decodes the string scalar of an image file into a sample whose one object covers the image.

    ``class_id`` is an int64 scalar from 1; an image of unknown class, 0, is dropped and counted.
    """
    is_missing, is_known = encoded == "", class_id > 0
    image, too_large = decode_within_limit(encoded, ~is_missing & is_known)
    usable = ~is_missing & is_known & ~too_large
    no, zero = tf.constant([False]), tf.zeros([1], tf.float32)
    sample = Sample(
        image=image,
        boxes_norm=tf.constant([[0.0, 0.0, 1.0, 1.0]]),
        classes=tf.reshape(tf.cast(class_id, tf.int32) - 1, [1]),
        weights=tf.ones([1], tf.float32),
        is_crowd=no,
        is_difficult=no,
        area_px=zero,
        masks=None,
    )
    found = {"missing_image": is_missing, "unknown_class": ~is_missing & ~is_known, "too_many_pixels": too_large}
    return Decoded(sample, image_id, count_issues(found), usable)
