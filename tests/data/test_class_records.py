"""A classifier's records: TensorFlow's of ImageNet, a detector's of one class, folders of files."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.data.class_records import ClassRecordDecoder, ImageFolderSource, check_classes, decode_folder_record
from detzoo.data.decode import ClassNames
from detzoo.data.issue_counter import REASONS
from detzoo.data.records import ReadOptions, RecordSource, scan_files
from detzoo.errors import DataError
from detzoo.files.pixel_limit import limited_to

NAMES = ClassNames({"cat": 1, "dog": 2, "n03": 3, "bird": 3}, [1, 2, 3])


def png(height=3, width=5):
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 7, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def example(**features):
    """A record with an image; double underscores stand for slashes."""
    message = tf.train.Example()
    values = {"image__encoded": png(), **features}
    for key, value in values.items():
        items = value if isinstance(value, list) else [value]
        items = [item.encode() if isinstance(item, str) else item for item in items]
        kind = "bytes_list" if isinstance(items[0], bytes) else "int64_list"
        getattr(message.features.feature[key.replace("__", "/")], kind).value.extend(items)
    return message.SerializeToString()


def decoded_class(record):
    """Returns the class (0-based) of a record, or None if the record cannot be used."""
    decoded = ClassRecordDecoder(NAMES)(tf.constant(record))
    return int(decoded.sample.classes[0]) if bool(decoded.usable) else None


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"image__class__label": 2}, 1),  # ids from 1
        ({"image__class__text": "dog"}, 1),
        ({"image__class__synset": "n03"}, 2),
        # As in TensorFlow's records of ImageNet: the text is no name of the map, the label is its id.
        ({"image__class__label": 3, "image__class__text": "tench, Tinca tinca", "image__class__synset": "n01"}, 2),
        ({"image__class__label": 9, "image__class__text": "cat"}, 0),  # an unknown id with a known name
        ({"image__class__label": 9}, None),
        ({"image__class__text": "whale"}, None),
        ({"image__object__class__text": ["dog", "dog"], "image__object__class__label": [2, 2]}, 1),
        ({"image__object__class__label": [1]}, 0),
        ({"image__object__class__text": ["dog", "cat"]}, None),  # of two classes
        ({"image__class__label": 1, "image__object__class__label": [2]}, 0),
        ({}, None),
    ],
)
def test_class_of_a_record(features, expected):
    assert decoded_class(example(**features)) == expected


def test_the_image_is_its_one_object():
    record = example(image__class__label=2, image__filename="a.png")
    decoded = ClassRecordDecoder(NAMES)(tf.constant(record))
    assert tuple(decoded.sample.image.shape) == (3, 5, 3)
    np.testing.assert_array_equal(decoded.sample.boxes_norm, [[0, 0, 1, 1]])
    np.testing.assert_array_equal(decoded.sample.weights, [1])
    assert decoded.image_id == b"a.png"  # if source_id is missing
    named = ClassRecordDecoder(NAMES)(tf.constant(example(image__class__label=2, image__source_id="17")))
    assert named.image_id == b"17"


def test_a_record_without_an_image_is_dropped():
    assert decoded_class(example(image__class__label=2, image__encoded=b"")) is None


def source_of(tmp_path, records):
    file = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    return RecordSource(scan_files([str(file)]), ReadOptions(), seed=0)


def test_records_without_classes_are_told_before_the_work_starts(tmp_path):
    good, bad = example(image__class__label=2), example(image__object__class__label=[1, 2])
    check_classes(source_of(tmp_path, [good, good, bad, bad]), ClassRecordDecoder(NAMES))
    with pytest.raises(DataError, match="2 of the first 3 records have no class of the label map"):
        check_classes(source_of(tmp_path, [good, bad, bad]), ClassRecordDecoder(NAMES))
    assert int(ClassRecordDecoder(NAMES).class_id(tf.constant(good))) == 2


@pytest.fixture
def folder(tmp_path):
    """Two classes: cat with three images, one of them deeper; dog with one, and a text."""
    for name in ("cat/1.png", "cat/2.PNG", "cat/more/3.png", "dog/x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def read(source, start=0, num_epochs=1):
    """(index, class, id) of every record of a stream, and the indices of its ends."""
    records, ends = [], []
    for index, record in source.stream(start, num_epochs).as_numpy_iterator():
        if index < 0:
            ends.append(int(index))
            continue
        decoded = decode_folder_record(tf.constant(record))
        assert bool(decoded.usable)
        records.append((int(index), int(decoded.sample.classes[0]), decoded.image_id.numpy().decode()))
    return records, ends


def test_folders_are_classes(folder):
    source = ImageFolderSource(str(folder), {"cat": 1, "dog": 2}, shuffle=False)
    records, ends = read(source)
    assert records == [(0, 0, "cat/1.png"), (1, 0, "cat/2.PNG"), (2, 0, "more/3.png"), (3, 1, "dog/x.png")]
    assert ends == [-5]  # the position that follows is 4
    assert [index for index, _, _ in read(source, start=3, num_epochs=2)[0]] == [3, 4, 5, 6, 7]
    assert len(list(source.first_records(2))) == 2


def test_every_epoch_has_its_own_order_which_follows_the_seed(folder):
    ids = {"cat": 1, "dog": 2}
    records, _ = read(ImageFolderSource(str(folder), ids, seed=1), num_epochs=4)
    orders = [tuple(name for _, _, name in records[4 * epoch : 4 * epoch + 4]) for epoch in range(4)]
    assert len(set(orders)) > 1
    assert all(set(order) == set(orders[0]) for order in orders)
    assert read(ImageFolderSource(str(folder), ids, seed=1), start=5, num_epochs=4)[0] == records[5:]


def test_a_folder_that_is_no_class(folder):
    with pytest.raises(DataError, match="a folder 'dog', which is no class of the label map; its classes are cat"):
        ImageFolderSource(str(folder), {"cat": 1})


def test_folders_without_images(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="has no image in a folder of a class"):
        ImageFolderSource(str(tmp_path), {"cat": 1})


def test_the_empty_record_at_an_epochs_end_is_not_usable():
    assert not bool(decode_folder_record(tf.constant("")).usable)


def test_an_image_of_too_many_pixels_is_counted():
    record = example(image__class__label=2)  # 3 x 5 = 15 pixels
    with limited_to(14e-6):
        decoded = ClassRecordDecoder(NAMES)(tf.constant(record))
    assert not bool(decoded.usable)
    assert int(decoded.issues[REASONS.index("too_many_pixels")]) == 1
