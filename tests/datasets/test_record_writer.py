"""Records as the Object Detection API reads them, names of shards, and files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from detzoo.datasets import record_writer
from detzoo.datasets.annotations import AnnotatedObject
from detzoo.datasets.repair import RepairedObject
from detzoo.errors import DataError, UsageError
from detzoo.files.images import RepairedImage

MASK = np.tri(24, 40, dtype=np.uint8)


def item(box, class_id, name, area_px, mask=None, **flags) -> record_writer.LabelledObject:
    source = AnnotatedObject(box, name, "", **flags)
    return record_writer.LabelledObject(class_id, name, RepairedObject(box, area_px, mask, source))


CAT = item((0.25, 0.125, 0.5, 1.0), 3, "cat", 60.0, MASK, is_crowd=True)
DOG = item((0.0, 0.0, 1.0, 0.5), 7, "дог", 9.5, is_difficult=True, is_truncated=True, view="Left")


def encode(*objects, **options) -> bytes:
    image = RepairedImage(b"pixels", "png", (24, 40), 1, ())
    return record_writer.encode_example(image, "a b.png", "17", objects, **options)


def read(prefix) -> list[bytes]:
    paths = sorted(str(path) for path in pathlib.Path(prefix).parent.glob("*.tfrecord"))
    return list(tf.data.TFRecordDataset(paths).as_numpy_iterator())


def test_every_key_of_the_object_detection_api_with_its_type_and_unit():
    message = tf.train.Example.FromString(encode(CAT, DOG, with_masks=True))
    seen = {}
    for key, feature in message.features.feature.items():
        seen[key.removeprefix("image/")] = list(getattr(feature, feature.WhichOneof("kind")).value)
    assert seen == {
        "encoded": [b"pixels"],
        "format": [b"png"],
        "filename": [b"a b.png"],
        "source_id": [b"17"],
        "key/sha256": [hashlib.sha256(b"pixels").hexdigest().encode()],
        "height": [24],
        "width": [40],
        "object/bbox/ymin": [0.25, 0.0],
        "object/bbox/xmin": [0.125, 0.0],
        "object/bbox/ymax": [0.5, 1.0],
        "object/bbox/xmax": [1.0, 0.5],
        "object/class/text": [b"cat", "дог".encode()],
        "object/class/label": [3, 7],
        "object/is_crowd": [1, 0],
        "object/area": [60.0, 9.5],
        "object/difficult": [0, 1],
        "object/truncated": [0, 1],
        "object/group_of": [0, 0],
        "object/view": [b"", b"Left"],
        "object/weight": [1.0, 1.0],
        "object/mask": [record_writer.encode_mask(MASK), record_writer.encode_mask(np.zeros((24, 40)))],
    }


def test_an_image_without_objects_has_empty_lists():
    feature = tf.train.Example.FromString(encode()).features.feature
    assert list(feature["image/object/bbox/ymin"].float_list.value) == []
    assert feature["image/object/bbox/ymin"].WhichOneof("kind") == "float_list"
    assert "image/object/mask" not in feature


def test_equal_records_have_equal_bytes():
    assert encode(CAT, DOG) == encode(CAT, DOG)


def test_a_mask_is_a_gray_png_of_zeros_and_ones(images):
    mask = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    decoded = images.decode(record_writer.encode_mask(mask))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, mask)


def test_shards_are_named_as_the_object_detection_api_names_them(tmp_path):
    paths = record_writer.shard_paths(tmp_path / "train", 3)
    assert [path.name for path in paths] == [f"train-0000{index}-of-00003.tfrecord" for index in range(3)]


@pytest.mark.parametrize(
    ("prefix", "num_shards", "message"),
    [
        ("", 1, r"--output_path '' is a folder; give a prefix such as 'train'"),
        ("out/", 1, r"'out/' is a folder; give a prefix such as 'out/train'"),
        (".", 1, r"'\.' is a folder"),
        ("out/train", 0, r"--num_shards is 0; it must be from 1 to 99999"),
        ("out/train", 100_000, r"--num_shards is 100000"),
    ],
)
def test_prefixes_and_counts_that_cannot_be_used(prefix, num_shards, message):
    with pytest.raises(UsageError, match=message):
        record_writer.shard_paths(prefix, num_shards)


def test_shards_of_another_count_are_found(tmp_path):
    for name in ("a-00000-of-00002.tfrecord", "a-00000-of-00003.tfrecord", "ab-00000-of-00003.tfrecord", "a.txt"):
        (tmp_path / name).touch()
    assert record_writer.other_shards(tmp_path / "a", 2) == [tmp_path / "a-00000-of-00003.tfrecord"]


def test_records_go_to_the_shards_in_turn(tmp_path):
    with record_writer.ShardedWriter(tmp_path / "new" / "a", 2) as writer:
        for record in (b"0", b"1", b"2"):
            writer.write(record)
        assert not list(tmp_path.glob("new/a*")), "nothing has its name before all is written"
    assert writer.num_records == 3
    assert read(tmp_path / "new" / "a") == [b"0", b"2", b"1"]
    assert len(list((tmp_path / "new").iterdir())) == 2


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_the_earlier_files(tmp_path, problem):
    with record_writer.ShardedWriter(tmp_path / "a", 2) as writer:
        writer.write(b"earlier")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def write_and_stop():
        with record_writer.ShardedWriter(tmp_path / "a", 2) as writer:
            writer.write(b"new")
            raise problem("stop")

    with pytest.raises(problem, match="stop"):
        write_and_stop()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .*file/a-00000-of-00001\.tfrecord: .*/file is not a folder"):
        record_writer.ShardedWriter(tmp_path / "file" / "a", 1)
    with pytest.raises(DataError, match=r"cannot write .*file/b/a-00000-of-00001\.tfrecord: Not a directory"):
        record_writer.ShardedWriter(tmp_path / "file" / "b" / "a", 1)


def test_a_shard_that_cannot_be_opened_removes_those_that_were(tmp_path, monkeypatch):
    opened = []

    def open_two(path):
        if len(opened) == 2:
            raise tf.errors.ResourceExhaustedError(None, None, f"{path}; Too many open files")
        opened.append(path)
        return open(path, "wb")

    monkeypatch.setattr(tf.io, "TFRecordWriter", open_two)
    with pytest.raises(DataError, match=r"cannot write .*a-00002-of-00005\.tfrecord: Too many open files"):
        record_writer.ShardedWriter(tmp_path / "a", 5)
    assert len(opened) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_by_a_folder_is_an_error_and_nothing_is_left(tmp_path):
    (tmp_path / "a-00000-of-00001.tfrecord").mkdir()
    with (
        pytest.raises(DataError, match=r"cannot write to .*: Is a directory"),
        record_writer.ShardedWriter(tmp_path / "a", 1) as writer,
    ):
        writer.write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a-00000-of-00001.tfrecord"]
