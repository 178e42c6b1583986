"""Survey of the training records before any work: ids, and true boxes per class. No image is decoded."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from detzoo.data.records import ReadOptions, RecordSource, scan_files
from detzoo.errors import DataError

_SHOWN = 3  # ids named in a message
_DIGEST_CHARACTERS = 16
_BOX_KEY = "image/object/bbox/ymin"


@dataclasses.dataclass(frozen=True)
class Survey:
    """Ids of the images and counts of true boxes."""

    image_ids: list[bytes]  # ids of all images in the order of reading
    num_boxes: dict[str, int]  # class name to number of true boxes, crowds not counted

    def describe(self) -> str:
        """Returns the numbers of true boxes as text."""
        return ", ".join(f"{name} {count}" for name, count in self.num_boxes.items())

    def fingerprint(self) -> str:
        """Returns a digest of the images, their order, and the numbers of boxes."""
        return hashlib.sha256(repr((self.image_ids, self.num_boxes)).encode()).hexdigest()[:_DIGEST_CHARACTERS]


def survey_records(
    patterns: Sequence[str], sample_1_of_n: int, id_by_name: Mapping[str, int], class_names: Sequence[str]
) -> Survey:
    """Reads every record once.

    Args:
        patterns: ``input_path`` of a reader.
        sample_1_of_n: ``sample_1_of_n_examples`` of the reader.
        id_by_name: Class name (or display name) -> id from 1.
        class_names: Names of the ids from 1 on; each class needs a true box.

    Raises:
        DataError: Records have no id or the same id, or no true box exists for some class.
    """
    names = dict(enumerate(class_names, start=1))
    source = RecordSource(scan_files(patterns), ReadOptions(shuffle=False, sample_1_of_n=max(1, sample_1_of_n)), seed=0)
    found = Survey([], dict.fromkeys(names.values(), 0))
    without_id = 0
    for index, serialized in source.stream(0, 1).as_numpy_iterator():
        features = _features(serialized) if index >= 0 else None
        if features is None:
            continue
        image_ids = features["image/source_id"].bytes_list.value
        without_id += not (image_ids and image_ids[0])
        found.image_ids.extend(image_ids[:1])
        for class_id in _class_ids(features, id_by_name):
            if class_id in names:
                found.num_boxes[names[class_id]] += 1
    _check_ids(found.image_ids, without_id)
    _check_classes(found.num_boxes, len(found.image_ids))
    return found


def _class_ids(features: Any, id_by_name: Mapping[str, int]) -> list[int]:
    """Returns class ids of boxes as ``decode`` reads them, with 0 for crowds and unknown classes."""
    count = len(features[_BOX_KEY].float_list.value)
    texts = [text.decode("utf-8", "replace") for text in features["image/object/class/text"].bytes_list.value]
    labels = list(features["image/object/class/label"].int64_list.value)
    if len(texts) == count:
        ids = [id_by_name.get(text, 0) if text else 0 for text in texts]
        if len(labels) == count:
            ids = [class_id if text else label for class_id, text, label in zip(ids, texts, labels)]
    else:
        ids = labels if len(labels) == count else []
    for key in ("image/object/is_crowd", "image/object/group_of"):
        flags = list(features[key].int64_list.value)
        if len(flags) == count:
            ids = [0 if flag else class_id for class_id, flag in zip(ids, flags)]
    return ids


def _check_ids(image_ids: Sequence[bytes], without: int) -> None:
    if without:
        raise DataError(
            f"{without} of the training records have no image/source_id, by which an image finds its proposals and its "
            "cached maps; write the records with one, as `detzoo dataset` does"
        )
    if not image_ids:
        raise DataError("train_input_reader has no usable record: check that its files hold tf.Examples")
    seen: set[bytes] = set()
    twice = [each for each in image_ids if each in seen or seen.add(each)]  # type: ignore[func-returns-value]
    if twice:
        shown = ", ".join(each.decode("utf-8", "replace") for each in twice[:_SHOWN])
        raise DataError(
            f"{len(twice)} training records have an image/source_id that another record has, too, such as {shown}: "
            "proposals and cached maps cannot be assigned. Give each image a unique id"
        )


def _check_classes(num_boxes: Mapping[str, int], num_images: int) -> None:
    missing = [name for name, count in num_boxes.items() if not count]
    if missing:
        raise DataError(
            f"no true box of {', '.join(missing)} in the {num_images} images of train_input_reader: the SVM of a class "
            f"needs a positive. Add images of {'it' if len(missing) == 1 else 'them'}, or leave "
            f"{'it' if len(missing) == 1 else 'them'} out of the label map and lower num_classes"
        )


def _features(serialized: bytes) -> Any:
    """Returns the features of a serialized tf.Example, or None if there are none."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        return None
    return features if len(features) else None
