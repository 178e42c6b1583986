"""Tests of the whole pipeline on small records: padding, units, determinism, sharding, resuming, data issues."""

from __future__ import annotations

import functools
import io
import logging
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.data import records, resize
from detzoo.data.augment import color, crop, geometry, objects
from detzoo.data.batches import BatchOptions, make_batches
from detzoo.data.decode import DecodeOptions, RecordDecoder
from detzoo.data.issue_counter import IssueCounter

BOX = (0.25, 0.5, 0.75, 1.0)
SMALL = resize.FixedShapeResizer(height=10, width=12)
FIVE_BOXES = DecodeOptions(max_number_of_boxes=5)


def png(size: tuple[int, int], value: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size[1], size[0]), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def record(
    number: int, encoded: bytes | None = None, num_boxes: int = 1, mask: bytes = b"", source_id: str = ""
) -> bytes:
    """An image 20 high and 30 wide whose red value is its number; objects of class id 1, 2, ..."""
    message = tf.train.Example()
    features = message.features.feature
    features["image/encoded"].bytes_list.value.append(png((20, 30), number) if encoded is None else encoded)
    features["image/source_id"].bytes_list.value.append(source_id.encode())
    for column, side in enumerate(("ymin", "xmin", "ymax", "xmax")):
        features[f"image/object/bbox/{side}"].float_list.value.extend([BOX[column]] * num_boxes)
    features["image/object/class/label"].int64_list.value.extend(range(1, num_boxes + 1))
    if mask:
        features["image/object/mask"].bytes_list.value.extend([mask] * num_boxes)
    return message.SerializeToString()


def write(path: pathlib.Path, serialized: list[bytes]) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for item in serialized:
            writer.write(item)
    return str(path)


@pytest.fixture
def ten(tmp_path) -> str:
    return write(tmp_path / "ten", [record(number) for number in range(10)])


def batches(
    path: str,
    resizer: resize.Resizer = SMALL,
    augmentations=(),
    shuffle: bool = False,
    issue: IssueCounter | None = None,
    decode: DecodeOptions = FIVE_BOXES,
    **options,
) -> tf.data.Dataset:
    source = records.RecordSource(records.scan_files([path], issue), records.ReadOptions(shuffle=shuffle), 0)
    values = {"batch_size": 2, "max_number_of_boxes": 5, "num_epochs": 1, **options}
    return make_batches(source, RecordDecoder(decode), augmentations, resizer, BatchOptions(**values), issue)


def numbers(dataset: tf.data.Dataset) -> list[int]:
    """The numbers of the records, read from their pixels."""
    return [int(value) for batch in dataset for value in batch.images[:, 0, 0, 0]]


def test_fields_of_a_batch(ten):
    first = next(iter(batches(ten)))
    assert first.images.shape == (2, 10, 12, 3)
    assert first.images.dtype == tf.float32
    np.testing.assert_array_equal(first.images[1, :, :, 0], np.ones((10, 12)))
    np.testing.assert_array_equal(first.true_shapes, [[10, 12]] * 2)
    np.testing.assert_array_equal(first.original_shapes, [[20, 30]] * 2)
    np.testing.assert_array_equal(first.record_index, [0, 1])
    assert first.image_ids.numpy().tolist() == [b"0", b"1"]  # no source_id: the record's number
    objects = first.groundtruth
    np.testing.assert_allclose(objects.boxes_norm[0], [BOX] + [[0] * 4] * 4)
    np.testing.assert_array_equal(objects.classes, [[0, -1, -1, -1, -1]] * 2)
    np.testing.assert_array_equal(objects.weights[0], [1, 0, 0, 0, 0])
    assert objects.masks.shape == (2, 5, 0, 0)


def test_static_shapes(ten):
    spec = batches(ten).element_spec
    assert spec.images.shape == (2, 10, 12, 3)
    assert spec.groundtruth.boxes_norm.shape == (2, 5, 4)
    assert spec.record_index.shape == (2,)
    open_spec = batches(ten, resize.KeepAspectRatioResizer(min_dimension=8, max_dimension=9), drop_remainder=False)
    assert open_spec.element_spec.images.shape.as_list() == [None, None, None, 3]
    assert open_spec.element_spec.groundtruth.classes.shape.as_list() == [None, 5]


def test_boxes_are_fractions_of_the_padded_input(ten):
    # 20 x 30 -> 16 x 24 in a square of 24: heights shrink by 16 / 24.
    resizer = resize.KeepAspectRatioResizer(min_dimension=24, max_dimension=24, pad_to_max_dimension=True)
    first = next(iter(batches(ten, resizer)))
    np.testing.assert_array_equal(first.true_shapes[0], [16, 24])
    np.testing.assert_allclose(first.groundtruth.boxes_norm[0, 0], [0.25 * 2 / 3, 0.5, 0.75 * 2 / 3, 1.0], rtol=1e-6)


def test_batches_of_several_sizes_are_padded_to_the_largest(tmp_path):
    path = write(tmp_path / "two", [record(0, png((4, 10))), record(1, png((8, 6)))])
    batch = next(iter(batches(path, resize.IdentityResizer())))
    assert batch.images.shape == (2, 8, 10, 3)
    np.testing.assert_array_equal(batch.true_shapes, [[4, 10], [8, 6]])
    np.testing.assert_allclose(batch.groundtruth.boxes_norm[0, 0], [0.125, 0.5, 0.375, 1.0])
    np.testing.assert_allclose(batch.groundtruth.boxes_norm[1, 0], [0.25, 0.3, 0.75, 0.6])
    assert not np.asarray(batch.images[0, 4:]).any()


def test_training_sizes_are_drawn_for_each_image_and_again_the_same_after_a_restart(ten):
    resizer = resize.KeepAspectRatioResizer(
        min_dimension=16, max_dimension=24, pad_to_max_dimension=True, training_min_dimensions=(8, 16)
    )
    options = {"draw_sizes": True, "num_epochs": 4}
    whole = list(batches(ten, resizer, **options))
    sizes = np.concatenate([batch.true_shapes for batch in whole])
    # 20 x 30 has the shorter sides 8 and 16; 40 throws of a fair coin lie between 8 and 32 but once in 10^4 times.
    assert set(map(tuple, sizes.tolist())) == {(8, 12), (16, 24)}
    assert 8 <= np.sum(sizes[:, 0] == 8) <= 32
    for shape, box in zip(sizes, np.concatenate([batch.groundtruth.boxes_norm[:, 0] for batch in whole])):
        np.testing.assert_allclose(box * 24, np.array(BOX) * [*shape, *shape], rtol=1e-6)
    rest = list(batches(ten, resizer, start=10, **options))
    np.testing.assert_array_equal(np.concatenate([batch.true_shapes for batch in rest])[:30], sizes[10:])
    other = np.concatenate([batch.true_shapes for batch in batches(ten, resizer, seed=1, **options)])
    assert not np.array_equal(other, sizes)
    assert {tuple(shape) for batch in batches(ten, resizer) for shape in batch.true_shapes.numpy()} == {(16, 24)}


def test_what_lies_outside_of_images_of_several_sizes_has_the_resizers_colour(tmp_path):
    path = write(tmp_path / "two", [record(0, png((4, 10))), record(1, png((8, 6)))])
    black = next(iter(batches(path, resize.IdentityResizer())))
    grey = next(iter(batches(path, resize.IdentityResizer(pad_value=(1.0, 2.0, 3.0)))))
    np.testing.assert_array_equal(grey.images[0, :4], black.images[0, :4])
    np.testing.assert_array_equal(grey.images[1, :, :6], black.images[1, :, :6])
    np.testing.assert_array_equal(grey.images[0, 4:], np.tile([1.0, 2.0, 3.0], (4, 10, 1)))
    np.testing.assert_array_equal(grey.images[1, :, 6:], np.tile([1.0, 2.0, 3.0], (8, 4, 1)))


def test_masks_are_resized_and_padded(tmp_path):
    plane = np.zeros((20, 30), np.uint8)
    plane[5:15, 15:] = 255
    buffer = io.BytesIO()
    Image.fromarray(plane).save(buffer, "PNG")
    path = write(tmp_path / "masks", [record(0, mask=buffer.getvalue()), record(1, num_boxes=0)])
    decode = DecodeOptions(load_instance_masks=True, png_masks=True)
    batch = next(iter(batches(path, decode=decode)))
    expected = np.zeros((2, 5, 10, 12), np.uint8)
    expected[0, 0, 3:8, 6:] = 1  # rows 2.5 to 7.5: nearest from the top left corner takes 3 to 7
    np.testing.assert_array_equal(batch.groundtruth.masks, expected)


def test_source_ids_become_image_ids(tmp_path):
    path = write(tmp_path / "named", [record(0, source_id="left"), record(1, source_id="right")])
    assert next(iter(batches(path))).image_ids.numpy().tolist() == [b"left", b"right"]


def test_the_last_batch_is_dropped_or_smaller(ten):
    assert [len(batch.images) for batch in batches(ten, batch_size=4)] == [4, 4]
    assert [len(batch.images) for batch in batches(ten, batch_size=4, drop_remainder=False)] == [4, 4, 2]


MOVES = (geometry.random_horizontal_flip, objects.random_jitter_boxes)


def test_a_pipeline_that_starts_later_yields_the_same_batches(ten):
    start = 14  # in the second epoch
    options = {"augmentations": MOVES, "shuffle": True, "num_epochs": 3, "seed": 4}
    whole = list(batches(ten, **options))
    rest = list(batches(ten, start=start, **options))
    assert len(rest) == len(whole) - start // 2
    for late, expected in zip(rest, whole[start // 2 :]):
        tf.nest.map_structure(np.testing.assert_array_equal, tuple(late), tuple(expected))


def test_shards_together_are_the_whole_stream(ten):
    options = {"augmentations": MOVES, "shuffle": True, "num_epochs": 2, "seed": 4}
    whole = {int(i): box for b in batches(ten, **options) for i, box in zip(b.record_index, b.groundtruth.boxes_norm)}
    seen = {}
    for shard in range(2):
        for batch in batches(ten, num_shards=2, shard=shard, drop_remainder=False, **options):
            assert all(int(index) % 2 == shard for index in batch.record_index)
            seen |= {int(index): box for index, box in zip(batch.record_index, batch.groundtruth.boxes_norm)}
    assert sorted(seen) == list(range(20))
    for index, box in seen.items():
        np.testing.assert_array_equal(box, whole[index])


def test_shards_of_a_later_start(ten):
    assert numbers(batches(ten, start=4, num_shards=2, shard=1, drop_remainder=False)) == [5, 7, 9]


def test_endless_pipelines_shuffle_each_epoch_anew(ten):
    drawn = numbers(batches(ten, shuffle=True, num_epochs=None, batch_size=10).take(3))
    epochs = [drawn[:10], drawn[10:20], drawn[20:]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_broken_records_are_skipped_counted_and_leave_gaps(tmp_path, caplog):
    serialized = [record(n) for n in range(8)]
    serialized[2] = record(2, b"\xff\xd8\xff broken")
    serialized[3] = b""
    serialized[5] = record(5, num_boxes=7)
    issue = IssueCounter()
    path = write(tmp_path / "broken", serialized)
    with caplog.at_level(logging.WARNING):
        dataset = batches(path, issue=issue, batch_size=1, num_epochs=2)
        indices = [int(batch.record_index[0]) for batch in dataset]
    assert indices == [0, 1, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15]
    assert issue.counts() == {"unreadable": 2, "missing_image": 2, "too_many_boxes": 4}
    assert "unreadable (at or before record 3 of the stream)" in caplog.text
    assert "2 unreadable, 2 missing_image, 4 too_many_boxes" in caplog.text


def test_unreadable_records_are_counted_by_the_shard_that_meets_them(tmp_path):
    path = write(tmp_path / "broken", [record(n, b"broken" if n in (1, 4, 5) else None) for n in range(6)])
    issue = IssueCounter()
    list(batches(path, issue=issue, batch_size=1, num_shards=2, shard=1))
    assert issue.counts() == {"unreadable": 2}


def test_an_epoch_without_a_usable_record_stops(tmp_path):
    path = write(tmp_path / "bad", [record(n, b"broken") for n in range(4)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="none of the records of a whole epoch is usable"):
        next(iter(batches(path, num_epochs=None)))


def test_nothing_that_is_not_finite_reaches_a_batch(tmp_path):
    message = tf.train.Example.FromString(record(1, num_boxes=3))
    features = message.features.feature
    features["image/object/bbox/ymin"].float_list.value[0] = float("nan")
    features["image/object/bbox/xmax"].float_list.value[1] = float("-inf")
    features["image/object/weight"].float_list.value.extend([float("nan")] * 3)
    features["image/object/area"].float_list.value.extend([float("nan")] * 3)
    path = write(tmp_path / "nan", [message.SerializeToString()] * 8)
    for batch in batches(path, augmentations=(crop.ssd_random_crop,), num_epochs=2):
        for field in tf.nest.flatten(batch):
            if field.dtype == tf.float32:
                assert np.isfinite(field).all()


def test_replicas_get_their_part_of_the_batch_as_it_is(ten, two_cpus):
    # tf.distribute must not shard the stream once more: two replicas see records 0 and 1, then 2 and 3.
    strategy = tf.distribute.MirroredStrategy(two_cpus)
    with strategy.scope():
        iterator = iter(strategy.experimental_distribute_dataset(batches(ten)))
        parts = [strategy.experimental_local_results(next(iterator).record_index) for _ in range(2)]
    assert [[int(part[0]) for part in pair] for pair in parts] == [[0, 1], [2, 3]]


def test_boxes_of_several_labels_are_merged_before_they_are_padded(tmp_path):
    path = write(tmp_path / "labels", [record(0, num_boxes=3), record(1, num_boxes=0)])
    [batch] = batches(path, merged_classes=4)
    truth = batch.groundtruth
    assert truth.classes.numpy().tolist() == [[0, -1, -1, -1, -1], [-1] * 5]  # ids 1, 2 and 3 on one box
    assert truth.label_sets.shape == (2, 5, 4)
    assert truth.label_sets[0, 0].numpy().tolist() == [True, True, True, False]
    assert not truth.label_sets.numpy()[0, 1:].any()
    assert not truth.label_sets.numpy()[1].any()
    [batch] = batches(path)
    assert batch.groundtruth.label_sets == ()
    assert batch.groundtruth.classes[0].numpy().tolist() == [0, 1, 2, -1, -1]


def test_colors_change_after_an_image_has_shrunk_by_the_same_numbers(tmp_path):
    # On a smooth image, resizing and recoloring commute to within the rounding of its pixels.
    rows, columns = np.mgrid[0:96, 0:128]
    pixels = np.stack([60 + rows, 40 + columns, 100 + (rows + columns) // 4], axis=-1).astype(np.uint8)
    with io.BytesIO() as stream:
        Image.fromarray(pixels).save(stream, "PNG")
        path = write(tmp_path / "one", [record(0, stream.getvalue())])
    flip = functools.partial(geometry.random_horizontal_flip, probability=1.0)
    steps = [flip, color.random_adjust_saturation, color.random_adjust_brightness]
    shrink = resize.FixedShapeResizer(height=32, width=32)
    large = next(iter(batches(path, resize.IdentityResizer(), steps, batch_size=1))).images[0]
    small = next(iter(batches(path, shrink, steps, batch_size=1))).images[0]
    unchanged = shrink(tf.constant(pixels[:, ::-1]))[0]
    assert np.abs(small - unchanged).mean() > 3.0
    np.testing.assert_allclose(small, shrink(large)[0], atol=1.0)


def test_a_data_service_reads_each_record_once_per_epoch(tmp_path):
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    config = service.WorkerConfig(dispatcher_address=dispatcher.target.removeprefix("grpc://"))
    workers = [service.WorkerServer(config) for _ in range(2)]
    broken = record(50, b"no image")
    path = write(tmp_path / "hundred", [*map(record, range(50)), broken, *map(record, range(51, 100))])
    order = []
    for shard in range(2):  # two trainers
        options = {"num_epochs": 2, "num_shards": 2, "shard": shard, "drop_remainder": False}
        order += numbers(batches(path, shuffle=True, batch_size=7, data_service=dispatcher.target, **options))
    assert sorted(order) == sorted(2 * [number for number in range(100) if number != 50])
    assert order != sorted(order)
    assert len(workers) == 2
