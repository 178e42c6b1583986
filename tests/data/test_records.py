"""Streams of records: which files, which order, where a stream starts, and what a damaged file does to it."""

from __future__ import annotations

import logging
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from detzoo.data import records
from detzoo.data.dirt_counter import DirtCounter
from detzoo.errors import DataError


def write(path: pathlib.Path, names: list[str]) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in names:
            writer.write(name.encode())
    return str(path)


def write_shards(folder: pathlib.Path, sizes: list[int]) -> str:
    """Shards whose records are named "shard.number"."""
    for shard, size in enumerate(sizes):
        path = folder / f"train-{shard:05d}-of-{len(sizes):05d}.tfrecord"
        write(path, [f"{shard}.{number}" for number in range(size)])
    return str(folder / "train-*.tfrecord")


def source(pattern: str, seed: int = 0, **options) -> records.RecordSource:
    return records.RecordSource(records.scan_files([pattern]), records.ReadOptions(**options), seed)


def read(stream: tf.data.Dataset, count: int = 10**6) -> list[tuple[int, str]]:
    """(index, record) of the stream without the marks between epochs."""
    elements = ((int(index), record.numpy().decode()) for index, record in stream.take(count))
    return [(index, record) for index, record in elements if index >= 0]


def test_files_in_order_without_shuffling(tmp_path):
    pattern = write_shards(tmp_path, [3, 1, 2])
    stream = source(pattern, shuffle=False, num_readers=1).stream(num_epochs=2)
    names = ["0.0", "0.1", "0.2", "1.0", "2.0", "2.1"]
    assert read(stream) == list(enumerate(names * 2))


def test_readers_take_turns_in_blocks(tmp_path):
    pattern = write_shards(tmp_path, [4, 3])
    stream = source(pattern, shuffle=False, num_readers=2, read_block_length=2).stream(num_epochs=1)
    assert [name for _, name in read(stream)] == ["0.0", "0.1", "1.0", "1.1", "0.2", "0.3", "1.2"]


def test_end_of_epoch_is_marked_with_the_position_that_follows(tmp_path):
    stream = source(write_shards(tmp_path, [2, 1])).stream(num_epochs=2)
    assert [int(index) for index, _ in stream] == [0, 1, 2, -1 - 3, 3, 4, 5, -1 - 6]


def test_order_is_a_function_of_seed_and_epoch(tmp_path):
    pattern = write_shards(tmp_path, [7, 9, 4])
    first = [name for _, name in read(source(pattern, seed=1).stream(num_epochs=3))]
    assert first == [name for _, name in read(source(pattern, seed=1).stream(num_epochs=3))]
    assert first != [name for _, name in read(source(pattern, seed=2).stream(num_epochs=3))]
    epochs = [first[start : start + 20] for start in (0, 20, 40)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1
    assert len(set(epochs[0])) == 20


@pytest.mark.parametrize("start", [1, 6, 20, 33])
def test_a_stream_can_start_anywhere(tmp_path, start):
    pattern = write_shards(tmp_path, [7, 9, 4])
    whole = read(source(pattern, seed=3, shuffle_buffer_size=5).stream(num_epochs=3))
    assert read(source(pattern, seed=3, shuffle_buffer_size=5).stream(start, num_epochs=3)) == whole[start:]


def test_far_epochs_are_skipped_without_reading(tmp_path):
    pattern = write_shards(tmp_path, [7, 9])
    start = 16 * 10**9 + 3
    far = read(source(pattern).stream(start), 4)
    assert [index for index, _ in far] == [start, start + 1, start + 2, start + 3]


def test_one_of_n_is_counted_across_files(tmp_path):
    # Records 0, 3, 6 of the whole set of 4 + 1 + 3: shard 0 gives its 0 and 3, shard 2 its second (5 + 1).
    pattern = write_shards(tmp_path, [4, 1, 3])
    sampled = source(pattern, shuffle=False, num_readers=1, sample_1_of_n=3)
    assert sampled.num_records == 3
    assert [name for _, name in read(sampled.stream(num_epochs=1))] == ["0.0", "0.3", "2.1"]


def test_shard_notation_names_its_files(tmp_path):
    write_shards(tmp_path, [1, 1])
    assert len(records.match_files(f"{tmp_path}/train@2.tfrecord")) == 2
    both = f"{tmp_path}/train-00000-of-00002.tfrecord, {tmp_path}/train-00001-of-00002.tfrecord"
    assert len(records.match_files(both)) == 2


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("none-*", r"none-\*.*holds: train-00000-of-00001"), ("no/where", "does not exist"), ("train@3", "of-00003")],
)
def test_a_pattern_without_files_is_named(tmp_path, pattern, message):
    write_shards(tmp_path, [1])
    with pytest.raises(DataError, match=message):
        records.match_files(f"{tmp_path}/{pattern}")


def test_empty_patterns_and_empty_files_are_errors(tmp_path):
    with pytest.raises(DataError, match="input_path is empty"):
        records.match_files(" ")
    with pytest.raises(DataError, match="hold no records"):
        records.scan_files([write(tmp_path / "empty", [])])


def test_a_truncated_file_is_read_up_to_the_break(tmp_path, caplog):
    path = tmp_path / "cut"
    write(path, ["first", "second", "third"])
    path.write_bytes(path.read_bytes()[:-7])
    dirt = DirtCounter()
    with caplog.at_level(logging.WARNING):
        files = records.scan_files([str(path)], dirt)
    assert files == [records.RecordFile(str(path), 2, truncated=True)]
    assert dirt.counts() == {"truncated_file": 1}
    assert "its first 2 records are read" in caplog.text
    stream = records.RecordSource(files, records.ReadOptions(shuffle=False), 0).stream(num_epochs=2)
    assert [name for _, name in read(stream)] == ["first", "second"] * 2


def test_a_damaged_record_keeps_the_positions_of_the_others(tmp_path):
    path, other = tmp_path / "a", tmp_path / "b"
    write(path, ["first", "second", "third"])
    write(other, ["other"])
    content = bytearray(path.read_bytes())
    content[content.index(b"second")] ^= 1  # its checksum fails; TensorFlow reads no further in this file
    path.write_bytes(bytes(content))
    stream = source(f"{path},{other}", shuffle=False, num_readers=1).stream(num_epochs=1)
    assert read(stream) == [(0, "first"), (1, ""), (2, ""), (3, "other")]


@pytest.fixture
def weighted(tmp_path):
    first, second = write(tmp_path / "a", ["a0", "a1", "a2"]), write(tmp_path / "b", ["b0", "b1", "b2", "b3", "b4"])

    def build(weights: tuple[float, ...] = (3.0, 1.0), seed: int = 5) -> records.WeightedSources:
        return records.WeightedSources([source(first, seed), source(second, seed + 1)], weights, seed)

    return build


def test_weights_decide_how_often_a_source_is_drawn(weighted):
    drawn = read(weighted().stream(), 900)
    from_first = np.mean([name.startswith("a") for _, name in drawn])
    # 0.75 with a standard deviation of sqrt(0.75 * 0.25 / 800) = 0.015; every eighth element is a mark.
    assert abs(from_first - 0.75) < 0.05
    assert [index for index, _ in drawn] == list(range(len(drawn)))
    of_first = [name for _, name in drawn if name.startswith("a")]
    assert all(sorted(of_first[start : start + 3]) == ["a0", "a1", "a2"] for start in range(0, 300, 3))


def test_a_weight_of_zero_is_never_drawn(weighted):
    assert {name[0] for _, name in read(weighted((0.0, 1.0)).stream(), 60)} == {"b"}


@pytest.mark.parametrize("start", [1, 13, 40])
def test_weighted_streams_can_start_anywhere(weighted, start):
    whole = read(weighted().stream(num_epochs=6))
    assert len(whole) == 48
    assert read(weighted().stream(start, num_epochs=6)) == whole[start:]


def test_weights_must_fit_the_sources(weighted):
    for weights in ((1.0,), (-1.0, 2.0), (0.0, 0.0)):
        with pytest.raises(DataError, match="one weight of 0 or more for each entry"):
            weighted(weights)
