"""The memory of Context R-CNN in records: features by hand, groups of cameras and times, and what cannot be used."""

from __future__ import annotations

import datetime
import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.builders.inputs import build_dataset
from detzoo.config import pb
from detzoo.data.issue_counter import IssueCounter
from detzoo.datasets.context_memory import Boxes, MemoryOptions, add_memory, describe_records
from detzoo.errors import DataError

BOX = (0.125, 0.25, 0.625, 1.0)
LENGTH = 2 + 4 + 5  # channels of ``detect``, place and size, time


def encoded(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 12, 3), value, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def example(value, location="a", date="2020-07-16 12:30:59", **more):
    values = {
        "image/encoded": [encoded(value)],
        "image/source_id": [f"{value:03d}".encode()],
        "image/format": [b"png"],
        "image/height": [8],
        "image/width": [12],
        "image/location": [location.encode()],
        "image/date_captured": [date.encode()],
        "image/object/class/label": [1],
        "image/object/class/text": [b"zebra"],
        **{f"image/object/bbox/{side}": [x] for side, x in zip(("ymin", "xmin", "ymax", "xmax"), BOX)},
        **{key.replace("__", "/"): more[key] for key in more},
    }
    message = tf.train.Example()
    for key, entries in values.items():
        kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
        for entry in entries:
            getattr(message.features.feature[key], kinds[type(entry)]).value.append(entry)
    return message.SerializeToString()


def write(folder, records):
    path = folder / "in.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def detect(content):
    """One box per image, with the color of the image as its features."""
    value = float(np.asarray(Image.open(io.BytesIO(content)))[0, 0, 0])
    return Boxes(np.array([BOX], np.float32), np.array([[value, -value]], np.float32))


def add(records, output_path, options, num_shards=1):
    """The memory by ``detect``."""
    return add_memory(records, functools.partial(describe_records, detect, options), output_path, options, num_shards)


def memories(paths):
    """The first channel of each feature in the memory, by the name of the image."""
    found = {}
    for path in paths:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            assert features["image/context_feature_length"].int64_list.value[:] == [LENGTH]
            values = np.array(features["image/context_features"].float_list.value).reshape(-1, LENGTH)
            found[features["image/source_id"].bytes_list.value[0].decode()] = values
    return found


def test_features_by_hand(tmp_path):
    done = add(write(tmp_path, [example(40)]), str(tmp_path / "out"), MemoryOptions())
    # The centre (x, y) of the box, its width and height; year - 1990 over 40, month - 1 over 12, day - 1 over 31, hour
    # over 24, minute over 60.
    expected = [40.0, -40.0, 0.625, 0.375, 0.75, 0.5, 30 / 40, 6 / 12, 15 / 31, 12 / 24, 30 / 60]
    np.testing.assert_allclose(memories(done.paths)["040"], [expected], rtol=1e-6)
    assert done[:5] == (1, 1, 1, LENGTH, 1)


def dates():
    """Cameras a and b at four times; the record of the first time comes last."""
    days = [datetime.datetime(2020, 7, 3), datetime.datetime(2020, 7, 20), datetime.datetime(2020, 8, 1)]
    times = [*days, datetime.datetime(2020, 7, 1)]
    return [
        example(10 * number + 100 * (place == "b"), place, str(time))
        for number, time in enumerate(times, 1)
        for place in "ab"
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"010": [40, 10, 20, 30], "040": [40, 10, 20, 30], "130": [140, 110, 120, 130]}),
        ({"time_horizon": "year"}, {"010": [40, 10, 20, 30]}),
        ({"time_horizon": "month"}, {"010": [40, 10, 20], "030": [30], "140": [140, 110, 120]}),
        ({"time_horizon": "week"}, {"010": [40, 10], "020": [20], "030": [30]}),
        ({"time_horizon": "day"}, {"010": [10], "040": [40]}),
        ({"subsample": 2}, {"010": [40, 20], "040": [40, 20], "120": [140, 120]}),
        ({"max_features": 3}, {"040": [40, 10, 20], "020": [40, 10, 20], "030": [30]}),
        ({"group_by": "image/format"}, {"010": [40, 140, 10, 110, 20, 120, 30, 130]}),
    ],
)
def test_groups(tmp_path, options, expected):
    done = add(write(tmp_path, dates()), str(tmp_path / "out"), MemoryOptions(**options), num_shards=2)
    found = {name: values[:, 0].tolist() for name, values in memories(done.paths).items()}
    assert len(done.paths) == 2
    assert len(found) == done.num_images == 8
    assert {name: found[name] for name in expected} == expected


def read(path, is_sequence, training=False, **reader):
    message = pb.InputReader(load_context_features=True, **reader)
    message.tf_record_input_reader.input_path.append(str(path))
    message.input_type = pb.TF_SEQUENCE_EXAMPLE if is_sequence else pb.TF_EXAMPLE
    message.shuffle = False
    resizer = pb.ImageResizer()
    resizer.fixed_shape_resizer.height, resizer.fixed_shape_resizer.width = 8, 12
    context = pb.Context(max_num_context_features=3, context_feature_length=LENGTH)
    issues = IssueCounter()
    dataset = build_dataset(
        message, resizer, None, training=training, batch_size=1, seed=1, context=context, issue=issues
    )
    return dataset, issues


def test_examples_and_sequences_are_read_with_their_memory(tmp_path):
    records = write(tmp_path, dates())
    alone = add(records, str(tmp_path / "alone"), MemoryOptions(time_horizon="month"))
    options = MemoryOptions(time_horizon="month", images_per_sequence=2)
    joint = add(records, str(tmp_path / "joint"), options)
    found = []
    for path, is_sequence in ((alone.paths[0], False), (joint.paths[0], True)):
        batches = list(read(path, is_sequence)[0])
        found.append(
            {
                batch.image_ids.numpy()[0]: (
                    int(batch.images[0, 0, 0, 0]),
                    batch.context.features.numpy()[0, :, 0].tolist(),
                    int(batch.context.num_valid[0]),
                    batch.groundtruth.boxes_norm.numpy()[0, 0].tolist(),
                    int(batch.groundtruth.classes[0, 0]),
                )
                for batch in batches
            }
        )
        assert len(batches) == 8
        assert batches[0].context.features.shape == (1, 3, LENGTH)
    assert found[0] == found[1]
    assert found[0][b"030"] == (30, [30.0, 0.0, 0.0], 1, list(BOX), 0)
    # Three images of July are two sequences, of one memory. Training draws one image of each, or takes the given one.
    training, _ = read(joint.paths[0], True, training=True)
    drawn = {batch.image_ids.numpy()[0] for batch in training.take(64)}
    assert drawn == set(found[0])
    training, _ = read(joint.paths[0], True, training=True, frame_index=1)
    assert {batch.image_ids.numpy()[0] for batch in training.take(12)} == {
        b"010",
        b"020",
        b"030",
        b"110",
        b"120",
        b"130",
    }


def test_the_other_kind_of_record(tmp_path):
    records = write(tmp_path, [example(1)])
    joint = add(records, str(tmp_path / "out"), MemoryOptions(images_per_sequence=2)).paths[0]
    with pytest.raises(DataError, match="records are examples; set input_type: TF_EXAMPLE"):
        read(records, True)
    with pytest.raises(DataError, match="records are sequences; set input_type: TF_SEQUENCE_EXAMPLE"):
        read(joint, False)


def test_images_without_labels_are_left_out(tmp_path):
    done = add(write(tmp_path, dates()), str(tmp_path / "out"), MemoryOptions(images_per_sequence=4))
    path = tmp_path / "some.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in tf.data.TFRecordDataset(str(done.paths[0])).as_numpy_iterator():
            sequence = tf.train.SequenceExample.FromString(record)
            sequence.feature_lists.feature_list["region/is_annotated"].feature[1].int64_list.value[0] = 0
            writer.write(sequence.SerializeToString())
    dataset, issues = read(path, True)
    assert sorted(batch.image_ids.numpy()[0] for batch in dataset) == [b"020", b"030", b"040", b"120", b"130", b"140"]
    assert issues.counts() == {}


def test_records_without_memory(tmp_path):
    kept = {"image__context_features": [0.5] * LENGTH, "image__context_feature_length": [LENGTH]}
    path = write(tmp_path, [example(1, **kept), example(2)])
    dataset, issues = read(path, False)
    assert [int(batch.context.num_valid[0]) for batch in dataset] == [1, 0]
    assert issues.counts() == {"missing_context": 1}
    with pytest.raises(
        DataError, match=r"2 of the first 2 records have no image/context_features. `detzoo dataset con"
    ):
        read(write(tmp_path, [example(1), example(2)]), False)
    other = {"image__context_features": [0.5] * 6, "image__context_feature_length": [6]}
    with pytest.raises(
        DataError, match=rf"record 1 has image/context_feature_length 6, but .* is {LENGTH}; set it to 6"
    ):
        read(write(tmp_path, [example(1, **other)]), False)


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([example(1, location="")], {}, r"in.tfrecord, record 0 has no image/location, by which"),
        ([example(1), example(2, date="16.7.2020")], {}, r"record 1: image/date_captured is '16.7.2020'; accepted"),
        ([example(1, date="")], {"time_horizon": "day"}, r"record 0 has no image/date_captured, which --time_horizon"),
        ([example(1), example(2, date="")], {}, r"record 1: its features have 6 values, those before 11: some records"),
        ([example(1, image__encoded=[])], {}, r"record 0 has no image/encoded"),
    ],
)
def test_records_that_cannot_be_used(tmp_path, records, options, message):
    with pytest.raises(DataError, match=message):
        add(write(tmp_path, records), str(tmp_path / "out"), MemoryOptions(**options))
    assert [path.name for path in tmp_path.iterdir()] == ["in.tfrecord"]  # nothing half-written
