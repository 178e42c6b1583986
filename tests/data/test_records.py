"""Streams of records: which files, which order, where a stream starts, and what a damaged file does to it."""

from __future__ import annotations

import logging
import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf

from detzoo.data import records
from detzoo.data.issue_counter import IssueCounter
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
    issue = IssueCounter()
    with caplog.at_level(logging.WARNING):
        files = records.scan_files([str(path)], issue)
    assert files == [records.RecordFile(str(path), 2, truncated=True)]
    assert issue.counts() == {"truncated_file": 1}
    assert "its first 2 records are read" in caplog.text
    stream = records.RecordSource(files, records.ReadOptions(shuffle=False), 0).stream(num_epochs=2)
    assert [name for _, name in read(stream)] == ["first", "second"] * 2


def test_a_damaged_record_keeps_the_positions_of_the_others(tmp_path):
    path, other = tmp_path / "a", tmp_path / "b"
    write(path, ["first", "second", "third"])
    write(other, ["other"])
    content = bytearray(path.read_bytes())
    content[content.index(b"second")] ^= 1  # its checksum fails
    path.write_bytes(bytes(content))
    stream = source(f"{path},{other}", shuffle=False, num_readers=1).stream(num_epochs=1)
    assert read(stream) == [(0, "first"), (2, "third"), (3, "other")]


def test_zeros_that_a_crash_left_at_the_end_of_a_file_are_no_records(tmp_path):
    path = tmp_path / "zeros"
    write(path, ["first", ""])  # an empty record has a checksum that is not 0
    path.write_bytes(path.read_bytes() + bytes(64))
    assert records.scan_file(str(path)) == records.RecordFile(str(path), 2, truncated=True)


def test_a_file_that_grew_is_scanned_again(tmp_path):
    path = write(tmp_path / "a", ["first"])
    assert records.scan_file(path).num_records == 1
    write(tmp_path / "a", ["first", "second"])
    assert records.scan_file(path).num_records == 2


@pytest.fixture
def bytes_read():
    """A function: what -> bytes that this process reads while ``what`` runs."""
    counters = pathlib.Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("this system does not count the bytes that a process reads")

    def count(what) -> int:
        before = int(counters.read_text().split()[1])
        what()
        return int(counters.read_text().split()[1]) - before

    return count


RECORD_BYTES, NUM_LARGE = 50_000, 400


@pytest.fixture
def large(tmp_path):
    """400 records of 50,000 bytes (and their framing) in two files, 20 MB: a function that makes their source."""
    for file in range(2):
        write(tmp_path / f"large-{file}", ["x" * RECORD_BYTES] * (NUM_LARGE // 2))
    return lambda: source(f"{tmp_path}/large-*")


def test_a_scan_reads_the_headers_alone(large, bytes_read):
    # 12 bytes for each record; what TensorFlow and this counter read besides is below 10,000 bytes.
    assert 12 * NUM_LARGE <= bytes_read(large) < 12 * NUM_LARGE + 10_000


@pytest.mark.parametrize("start", [0, 200, 399])
def test_a_start_within_an_epoch_reads_nothing_of_what_stands_before(large, bytes_read, start):
    stream = large().stream(start)
    # One record, and those that are read at once ahead of it (16 running, 16 finished, 1 delivered): not hundreds.
    assert bytes_read(lambda: next(iter(stream))) < 34 * RECORD_BYTES


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_a_shard_reads_its_own_records_only(large, bytes_read, num_shards):
    stream = large().stream(0, 1, num_shards, num_shards - 1)
    read_bytes = bytes_read(lambda: read(stream))
    own = NUM_LARGE // num_shards * (RECORD_BYTES + 16)  # length, data and two checksums
    assert own <= read_bytes < own + 10_000


@pytest.mark.parametrize("num_shards", [2, 3])
@pytest.mark.parametrize("start", [0, 23])
def test_shards_take_turns_in_the_whole_stream(tmp_path, num_shards, start):
    made = source(write_shards(tmp_path, [7, 9, 4]), seed=3)
    whole = list(made.stream(start, 2).as_numpy_iterator())
    for shard in range(num_shards):
        # The marks at the end of epochs have negative indices; every shard has them.
        own = [item for item in whole if item[0] < 0 or item[0] % num_shards == shard]
        assert list(made.stream(start, 2, num_shards, shard).as_numpy_iterator()) == own


@pytest.fixture
def weighted(tmp_path):
    first, second = write(tmp_path / "a", ["a0", "a1", "a2"]), write(tmp_path / "b", ["b0", "b1", "b2", "b3", "b4"])

    def build(weights: tuple[float, ...] = (3.0, 1.0), seed: int = 5) -> records.WeightedSources:
        return records.WeightedSources([source(first, seed), source(second, seed + 1)], weights, seed)

    return build


def test_weights_decide_how_often_a_source_is_drawn(weighted):
    drawn = read(weighted().stream(), 2400)
    from_first = np.array([name.startswith("a") for _, name in drawn])
    # Every eighth element but one is a mark: over 2,048 positions are left. In each block of 1,024, 3 of 4 are exact.
    assert [int(from_first[first : first + 1024].sum()) for first in (0, 1024)] == [768, 768]
    # Within a block the order is random: 64 of 256 windows of 4 positions would all hold 3 if it were not; a random
    # one does with probability 4 * 0.75**3 * 0.25 = 0.42, 108 of 256 with a standard deviation of 8.
    threes = int((from_first[:1024].reshape(256, 4).sum(axis=1) == 3).sum())
    assert 68 <= threes <= 148
    assert [index for index, _ in drawn] == list(range(len(drawn)))
    of_first = [name for _, name in drawn if name.startswith("a")]
    assert all(sorted(of_first[start : start + 3]) == ["a0", "a1", "a2"] for start in range(0, 300, 3))


def test_shares_of_three_sources_are_exact_anywhere(tmp_path):
    sources = [source(write(tmp_path / name, [name] * 2000)) for name in "abc"]
    drawn = read(records.WeightedSources(sources, (1.0, 0.004, 0.096), seed=2).stream(10**12), 10_010)
    assert drawn[0][0] == 10**12
    counts = {name: sum(record == name for _, record in drawn[:10_000]) for name in "abc"}
    # 10,000 / 1.1 = 9,090.9, 36.4 and 872.7; off by less than 3, and the two blocks that are cut at the ends scatter:
    # 1,024 positions hold 931, 3.7 and 89.4, of which a part varies by up to sqrt(1024 * p * (1 - p)) / 2 = 5.
    assert abs(counts["a"] - 9090.9) < 35
    assert abs(counts["b"] - 36.4) < 10
    assert abs(counts["c"] - 872.7) < 35


def test_a_far_position_of_weighted_sources_is_found_at_once(weighted):
    began = time.process_time()  # of this process alone: others share the machine
    far = read(weighted().stream(10**8), 20)
    assert time.process_time() - began < 1.0
    assert [index for index, _ in far] == list(range(10**8, 10**8 + len(far)))


def test_weighted_shards_take_turns_in_the_whole_stream(weighted):
    whole = read(weighted().stream(5, num_epochs=4))
    for shard in range(3):
        own = [(index, name) for index, name in whole if index % 3 == shard]
        assert read(weighted().stream(5, 4, 3, shard)) == own


def test_a_weight_of_zero_is_never_drawn(weighted):
    assert {name[0] for _, name in read(weighted((0.0, 1.0)).stream(), 60)} == {"b"}


@pytest.mark.parametrize("start", [1, 13, 1023, 1024, 1100])
def test_weighted_streams_can_start_anywhere(tmp_path, start):
    sources = [source(write(tmp_path / name, [f"{name}{i}" for i in range(400)])) for name in "ab"]
    made = records.WeightedSources(sources, (3.0, 1.0), seed=5)
    whole = read(made.stream(num_epochs=2))
    assert len(whole) == 2 * 800
    assert read(made.stream(start, num_epochs=2)) == whole[start:]


def test_weights_must_fit_the_sources(weighted):
    for weights in ((1.0,), (-1.0, 2.0), (0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)):
        with pytest.raises(DataError, match="one weight of 0 or more for each entry"):
            weighted(weights)
