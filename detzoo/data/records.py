"""TFRecord files -> one endless (or single-pass) stream of numbered, serialized records.

The first stage of the input pipeline. Shuffling, skipping and sharding work on the numbers of records; a record is read
only after that, at its byte offset, known from the framing headers of the files. So the order is a pure function of
(seed, position), a stream that starts at position k reads no record before k, and each of n workers reads only the
records of its shard.
"""

from __future__ import annotations

import abc
import array
import collections
import concurrent.futures
import dataclasses
import functools
import logging
import os
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from detzoo.contracts import Tensor
from detzoo.data.issue_counter import IssueCounter, count_vector
from detzoo.data.record_keys import BYTES, CONTEXT_FEATURES, CONTEXT_LENGTH, FLOAT
from detzoo.errors import DataError

logger = logging.getLogger(__name__)

# A TFRecord: length uint64, its checksum uint32, the data, its checksum uint32.
_HEADER_BYTES = 12
_FOOTER_BYTES = 4

_PARALLEL_READS = 16  # records (and, before the first record, files) read at once; hides the latency of remote files

_SERVICE_BLOCK = 16  # positions that a worker of a tf.data service takes at once

# Weighted sources: positions in which the share of each source is exact, and the steps in which weights are rounded.
_WEIGHTED_BLOCK = 1024
_WEIGHT_STEPS = 2**20

CHECKED_RECORDS = 100  # records that are checked, before the first batch, for the keys that a detector needs

# The stages have no Python control flow on tensors; not converting them halves the time until the first batch.
as_written = tf.autograph.experimental.do_not_convert

_EMPTY_MESSAGE = "input_path is empty; give a TFRecord file or a glob, such as data/train-?????-of-00010"
_SHARDED_NAME = re.compile(r"^(?P<stem>.+)@(?P<shards>\d+)(?P<extension>\.[\w.]+)?$")


@dataclasses.dataclass(frozen=True)
class RecordFile:
    """One TFRecord file, the number of its whole records, and the offset of each.

    ``offsets`` is int64 [num_records + 1] in bytes; the last one is the end of the last whole record.
    """

    path: str
    num_records: int
    truncated: bool = False
    offsets: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1, np.int64), compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """Options of a stream; the fields of an ``InputReader``."""

    shuffle: bool = True
    shuffle_buffer_size: int = 2048  # records
    sample_1_of_n: int = 1
    num_readers: int = 64  # files read in turns
    read_block_length: int = 32  # records taken from a file before the next one's turn


def match_files(pattern: str) -> list[str]:
    """Returns the files of one ``input_path`` entry, sorted.

    The entry is a path, a glob (``train-?????-of-00010``), ``stem@10`` for ten shards, or several, comma-separated.

    Raises:
        DataError: A part of the pattern matches no file.
    """
    paths: list[str] = []
    for part in filter(None, (part.strip() for part in pattern.split(","))):
        sharded = _SHARDED_NAME.match(part)
        if sharded and not tf.io.gfile.exists(part):
            shards = int(sharded["shards"])
            part = f"{sharded['stem']}-?????-of-{shards:05d}{sharded['extension'] or ''}"
        matches = sorted(path for path in tf.io.gfile.glob(part) if not tf.io.gfile.isdir(path))
        if not matches:
            raise DataError(_no_match_message(part))
        paths.extend(matches)
    if not paths:
        raise DataError(_EMPTY_MESSAGE)
    return paths


def _no_match_message(pattern: str) -> str:
    folder = os.path.dirname(pattern) or "."
    if tf.io.gfile.exists(folder):
        names = sorted(tf.io.gfile.listdir(folder))
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        hint = f"the folder {folder} exists and holds: {listed or 'nothing'}"
    else:
        hint = f"the folder {folder} does not exist"
    return f"no TFRecord file matches {pattern!r} ({hint}; relative paths start at {os.getcwd()})"


def scan_file(path: str) -> RecordFile:
    """Finds the whole records of a file by its framing headers, without reading the data between them.

    A file that has not changed since is not scanned again in this process.
    """
    stat = tf.io.gfile.stat(path)
    return _scan_file(path, stat.length, stat.mtime_nsec)


@functools.lru_cache(maxsize=4096)
def _scan_file(path: str, size: int, mtime_nsec: int) -> RecordFile:
    del mtime_nsec  # part of the key only
    offsets = array.array("q", [0])
    offset = 0
    # Unbuffered: a buffer would read kilobytes for each header of 12 bytes.
    with tf.io.gfile.GFile(path, "rb") if "://" in path else open(path, "rb", buffering=0) as file:
        while offset + _HEADER_BYTES <= size:
            file.seek(offset)
            header = file.read(_HEADER_BYTES)
            (length,) = struct.unpack("<Q", header[:8])
            offset += _HEADER_BYTES + length + _FOOTER_BYTES
            # No checksum is 0 with a length of 0: a crash left the end of the file unwritten.
            if offset > size or not any(header):
                break
            offsets.append(offset)
    return RecordFile(path, len(offsets) - 1, offsets[-1] != size, np.array(offsets, np.int64))


def scan_files(patterns: Sequence[str], issues: IssueCounter | None = None) -> list[RecordFile]:
    """Scans all files of the ``input_path`` entries; truncated files are counted as data issues.

    Raises:
        DataError: An entry matches no file, or no file holds a record.
    """
    if not patterns:
        raise DataError(_EMPTY_MESSAGE)
    paths = [path for pattern in patterns for path in match_files(pattern)]
    with concurrent.futures.ThreadPoolExecutor(_PARALLEL_READS) as pool:
        files = list(pool.map(scan_file, paths))
    for file in files:
        if file.truncated:
            logger.warning("%s ends within a record; its first %d records are read", file.path, file.num_records)
            if issues is not None:
                issues.add(count_vector(truncated_file=1), where=file.path)
    if not sum(file.num_records for file in files):
        raise DataError(f"the files matching {', '.join(patterns)} hold no records")
    return files


def dataset_options() -> tf.data.Options:
    """Returns the options of every dataset of records: a fixed order, sharded here and not by ``tf.distribute``."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # An iterator's end waits for the tuning thread, which sleeps up to a minute if it misses its notification.
    options.autotune.enabled = False
    return options


def _records_at(path: Tensor, offset: Tensor, size: Tensor) -> tf.data.Dataset:
    """Returns the records of a file from an offset on, read in pieces of ``size`` bytes."""
    # TFRecordDataset of TensorFlow 2.20 has no argument for offsets.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=size, byte_offsets=[offset]
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


def read_record(path: str, offset: int, end: int) -> bytes:
    """Reads the record between two offsets of a file, see ``RecordFile``.

    Raises:
        tf.errors.DataLossError: It is damaged.
    """
    return _records_at(path, offset, end - offset).take(1).get_single_element().numpy()


class _Table(NamedTuple):
    """The places of R records in F files."""

    paths: Tensor  # string [F]
    files: Tensor  # int64 [R], row of paths
    offsets: Tensor  # int64 [R], bytes from the start of the file
    sizes: Tensor  # int64 [R], bytes with header and checksums

    def read(self, number: Tensor) -> Tensor:
        """Reads exactly the bytes of one record; raises inside the graph if it is damaged."""
        path = tf.gather(self.paths, tf.gather(self.files, number))
        rest = _records_at(path, tf.gather(self.offsets, number), tf.gather(self.sizes, number))
        return rest.take(1).get_single_element()


class RecordStream(abc.ABC):
    """An endless sequence of records; the record at a position is a pure function of (seed, position)."""

    num_records: int  # in an epoch

    def stream(
        self, start: int = 0, num_epochs: int | None = None, num_shards: int = 1, shard: int = 0
    ) -> tf.data.Dataset:
        """Returns the stream from position ``start``, endless or for ``num_epochs`` epochs counted from position 0.

        Law: the stream from k is the stream from 0 without its first k records, and shard i of n has the positions p
        with ``p % n == i``. A stream reads only the records that it yields. A damaged record leaves a gap.

        Returns:
            Dataset of (index int64, record string): the position and its record. Each epoch ends with an empty record
            of index ``-1 - end``, where ``end`` is the next position; every shard has it.
        """
        numbered = self._numbered(start, num_epochs)
        if num_shards > 1:
            own = as_written(lambda index, _: (index < 0) | (index % num_shards == shard))
            numbered = numbered.filter(own)
        records = numbered.map(as_written(self._read_numbered), _PARALLEL_READS, deterministic=True).ignore_errors()
        return records.with_options(dataset_options())

    def _read_numbered(self, index: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        return index, tf.cond(number < 0, lambda: tf.constant(""), lambda: self._read(number))

    @abc.abstractmethod
    def first_records(self, count: int) -> tf.data.Dataset:
        """Returns up to ``count`` serialized records from the beginnings of the files, never shuffled."""

    @abc.abstractmethod
    def _numbered(self, start: int, num_epochs: int | None) -> tf.data.Dataset:
        """Returns ``stream`` with the number of each record instead of its content; -1 at the end of an epoch."""

    @abc.abstractmethod
    def _read(self, number: Tensor) -> Tensor:
        """Returns the record of a number, a string scalar; may raise inside the graph."""


class RecordSource(RecordStream):
    """The stream of one set of files: position p is one of the records of epoch ``p // num_records``."""

    def __init__(self, files: Sequence[RecordFile], options: ReadOptions, seed: int) -> None:
        self._options = options
        self._seed = seed
        # The place of a record in the whole set decides if it is sampled, not the order of reading.
        sampled = slice(None, None, options.sample_1_of_n)
        rows = np.repeat(np.arange(len(files)), [file.num_records for file in files])[sampled]
        self._counts = np.bincount(rows, minlength=len(files))
        self.num_records = len(rows)
        self.table = _Table(
            paths=tf.constant([file.path for file in files]),
            files=tf.constant(rows, tf.int64),
            offsets=tf.constant(np.concatenate([file.offsets[:-1] for file in files])[sampled]),
            sizes=tf.constant(np.concatenate([np.diff(file.offsets) for file in files])[sampled]),
        )

    def first_records(self, count: int) -> tf.data.Dataset:
        """Returns up to ``count`` serialized records from the beginnings of the files, in turns and never shuffled."""
        cycle_length = min(count, len(self._counts))
        numbers = self._in_turns(tf.range(len(self._counts)), cycle_length, 1).take(count)
        records = numbers.map(as_written(self._read), _PARALLEL_READS, deterministic=True).ignore_errors()
        return records.with_options(dataset_options())

    def divisible_stream(
        self, start: int = 0, num_epochs: int | None = None, num_shards: int = 1, shard: int = 0
    ) -> tf.data.Dataset:
        """Returns the records of ``stream``, without the ends of epochs, for the workers of a tf.data service.

        They divide its first dataset, that of blocks of positions. So the record at a position is computed from the
        position alone: an epoch is shuffled as a whole.
        """
        end = tf.int64.max if num_epochs is None else num_epochs * self.num_records

        def one_block(first: Tensor) -> tf.data.Dataset:
            return tf.data.Dataset.range(first, tf.minimum(first, end - _SERVICE_BLOCK) + _SERVICE_BLOCK)

        def numbered(position: Tensor) -> tuple[Tensor, Tensor]:
            number = position % self.num_records
            if self._options.shuffle:
                seed = tf.stack([tf.constant(self._seed, tf.int64), position // self.num_records])
                last = tf.constant(self.num_records - 1, tf.int64)
                number = tf.random.experimental.index_shuffle(number, seed, last)
            return position, number

        positions = tf.data.Dataset.range(start, end, _SERVICE_BLOCK).flat_map(as_written(one_block))
        own = positions.filter(as_written(lambda position: position % num_shards == shard))
        records = own.map(as_written(numbered)).map(as_written(self._read_numbered), _PARALLEL_READS)
        return records.ignore_errors()

    def numbers(self, start: int = 0) -> tf.data.Dataset:
        """Returns the numbers of the records from position ``start`` on, endless."""
        numbers = self._numbered(start, None).map(as_written(lambda _, number: number))
        return numbers.filter(as_written(lambda number: number >= 0))

    def _numbered(self, start: int, num_epochs: int | None) -> tf.data.Dataset:
        first_epoch = start // self.num_records
        last_epoch = num_epochs if num_epochs is not None else tf.int64.max

        def one_epoch(epoch: Tensor) -> tf.data.Dataset:
            begin = epoch * self.num_records
            numbered = self._order(epoch).enumerate(start=begin).skip(tf.maximum(start - begin, 0))
            end = tf.data.Dataset.from_tensors((-1 - (begin + self.num_records), tf.constant(-1, tf.int64)))
            return numbered.concatenate(end)

        return tf.data.Dataset.range(first_epoch, last_epoch).flat_map(as_written(one_epoch))

    def _order(self, epoch: Tensor) -> tf.data.Dataset:
        """Returns the numbers of the records of one epoch, int64, in its order."""
        options = self._options
        seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
        files = tf.range(len(self._counts))
        if options.shuffle:
            files = tf.random.experimental.stateless_shuffle(files, seed)
        cycle_length = max(1, min(options.num_readers, len(self._counts)))
        numbers = self._in_turns(files, cycle_length, max(1, options.read_block_length))
        if not options.shuffle:
            return numbers
        buffer_size = max(1, min(options.shuffle_buffer_size, self.num_records))
        shuffle_seed = tf.random.stateless_uniform([], seed + 1, minval=None, maxval=None, dtype=tf.int64)
        return numbers.shuffle(buffer_size, seed=shuffle_seed, reshuffle_each_iteration=False)

    def _in_turns(self, files: Tensor, cycle_length: int, block_length: int) -> tf.data.Dataset:
        """Returns the numbers of the records of some files, in the order in which readers take turns."""
        ends = np.cumsum(self._counts)
        columns = tuple(tf.gather(tf.constant(column), files) for column in (ends - self._counts, ends))
        return tf.data.Dataset.from_tensor_slices(columns).interleave(
            tf.data.Dataset.range, cycle_length=cycle_length, block_length=block_length
        )

    def _read(self, number: Tensor) -> Tensor:
        return self.table.read(number)


class WeightedSources(RecordStream):
    """Several sources drawn from at random with given weights; each source repeats its records separately.

    Positions form blocks of 1,024. The number of positions before a block that belong to each source has a closed form,
    the share of its weight to within the number of sources; within a block the order is shuffled. So a stream can start
    at any position without drawing those before, and shares are exact. An "epoch" has as many records as all sources.
    """

    def __init__(self, sources: Sequence[RecordSource], weights: Sequence[float], seed: int) -> None:
        total = sum(weights)
        if len(sources) != len(weights) or min(weights) < 0 or not 0 < total < float("inf"):
            raise DataError(
                f"sample_from_datasets_weights {list(weights)} do not fit {len(sources)} input_path entries: "
                "give one weight of 0 or more for each entry, not all 0"
            )
        self._sources = list(sources)
        self._shares = [max(1, round(weight / total * _WEIGHT_STEPS)) if weight else 0 for weight in weights]
        self._seed = seed
        self.num_records = sum(source.num_records for source in sources)
        tables = [source.table for source in sources]
        first_files = np.cumsum([0, *(len(table.paths) for table in tables)])
        moved = [table._replace(files=table.files + first) for table, first in zip(tables, first_files)]
        self._table = _Table(*(tf.concat(columns, axis=0) for columns in zip(*moved)))

    def first_records(self, count: int) -> tf.data.Dataset:
        """Returns up to ``count`` serialized records, as many of each source."""
        share = -(-count // len(self._sources))
        first, *others = (source.first_records(share) for source in self._sources)
        for records in others:
            first = first.concatenate(records)
        return first

    def _numbered(self, start: int, num_epochs: int | None) -> tf.data.Dataset:
        first_block, num_skipped = divmod(start, _WEIGHTED_BLOCK)
        skipped = self._sources_of_block(first_block)[:num_skipped].numpy()
        drawn = self._drawn_before(first_block).numpy() + np.bincount(skipped, minlength=len(self._sources))
        blocks = tf.data.Dataset.range(first_block, tf.int64.max)
        choices = blocks.map(as_written(self._sources_of_block)).unbatch().skip(num_skipped)
        numbers, first_number = [], 0
        for source, count in zip(self._sources, drawn.tolist()):
            moved = as_written(lambda number, first=first_number: number + first)
            numbers.append(source.numbers(count).map(moved))
            first_number += source.num_records
        chosen = tf.data.Dataset.choose_from_datasets(numbers, choices)
        numbered = tf.data.Dataset.zip(tf.data.Dataset.range(start, tf.int64.max), chosen)
        if num_epochs is not None:
            numbered = numbered.take(max(0, num_epochs * self.num_records - start))
        return numbered.flat_map(as_written(self._with_epoch_end))

    def _with_epoch_end(self, position: Tensor, number: Tensor) -> tf.data.Dataset:
        end = position + 1
        length = 1 + tf.cast(end % self.num_records == 0, tf.int64)
        mark = (-1 - end, tf.constant(-1, tf.int64))
        return tf.data.Dataset.from_tensor_slices(tuple(map(tf.stack, zip((position, number), mark)))).take(length)

    def _sources_of_block(self, block: Tensor | int) -> Tensor:
        """Returns the source of each position of a block, int64 [1024]."""
        block = tf.cast(block, tf.int64)
        counts = self._drawn_before(block + 1) - self._drawn_before(block)
        seed = tf.stack([tf.constant(self._seed, tf.int64), block])
        return tf.random.experimental.stateless_shuffle(
            tf.repeat(tf.range(len(self._shares), dtype=tf.int64), counts), seed
        )

    def _drawn_before(self, block: Tensor | int) -> Tensor:
        """Returns the number of positions before a block that belong to each source, int64 [sources].

        The first source takes its share of all positions, the next one its share of the rest, and so on. No count
        decreases from block to block, because the rest never does.
        """
        rest = tf.cast(block, tf.int64) * _WEIGHTED_BLOCK
        counts = []
        for row, share in enumerate(self._shares):
            counts.append(rest * share // max(1, sum(self._shares[row:])))
            rest -= counts[-1]
        return tf.stack(counts)

    def _read(self, number: Tensor) -> Tensor:
        return self._table.read(number)


def check_kind(source: RecordStream, is_sequence: bool) -> None:
    """Checks the kind of the first record of a source: tf.SequenceExample, or tf.Example.

    Raises:
        DataError: The record has the image of the other kind.
    """
    for serialized in source.first_records(1).ignore_errors().as_numpy_iterator():
        try:
            record = tf.train.SequenceExample.FromString(serialized)  # an example has its features in the same field
        except DecodeError:
            continue
        has_list = "image/encoded" in record.feature_lists.feature_list
        if is_sequence != has_list and (has_list or "image/encoded" in record.context.feature):
            kinds = ("TF_EXAMPLE", "TF_SEQUENCE_EXAMPLE")
            raise DataError(
                f"input_type is {kinds[is_sequence]}, but the records are {'sequences' if has_list else 'examples'}; "
                f"set input_type: {kinds[has_list]}"
            )


def check_context(source: RecordStream, length: int, is_sequence: bool) -> None:
    """Checks the first records of a source for the memory of Context R-CNN.

    Raises:
        DataError: More than half of the records have none, or a record's features have not ``length`` values.
    """
    lacking = number = 0
    for number, serialized in enumerate(source.first_records(CHECKED_RECORDS).ignore_errors().as_numpy_iterator(), 1):
        try:
            if is_sequence:
                features = tf.train.SequenceExample.FromString(serialized).context.feature
            else:
                features = tf.train.Example.FromString(serialized).features.feature
        except DecodeError:
            continue
        stored = features[CONTEXT_LENGTH].int64_list.value
        if stored and stored[0] != length:
            raise DataError(
                f"record {number} has {CONTEXT_LENGTH} {stored[0]}, but model.faster_rcnn.context_config."
                f"context_feature_length is {length}; set it to {stored[0]}"
            )
        lacking += not stored
    if 2 * lacking > number:
        raise DataError(
            f"load_context_features is true, but {lacking} of the first {number} records have no {CONTEXT_FEATURES}. "
            "`detzoo dataset context` writes records with the memory of their camera"
        )


def check_masks(source: RecordStream, png_masks: bool) -> None:
    """Checks the first records of a source for instance masks, PNG strings or floats.

    Raises:
        DataError: More than half of the records with objects have no masks of this kind.
    """
    kinds = {BYTES: "PNG_MASKS", FLOAT: "NUMERICAL_MASKS"}
    kind, other = (BYTES, FLOAT) if png_masks else (FLOAT, BYTES)
    found: collections.Counter[str] = collections.Counter()
    for serialized in source.first_records(CHECKED_RECORDS).ignore_errors().as_numpy_iterator():
        try:
            features = tf.train.Example.FromString(serialized).features.feature
        except DecodeError:
            continue
        if features["image/object/bbox/ymin"].float_list.value:
            masks = features["image/object/mask"]
            found[next((each for each in kinds if getattr(masks, each).value), "none")] += 1
    of_all = f"of the first {found.total()} records with objects have"
    if 2 * found[kind] >= found.total():
        return
    if found[other]:
        raise DataError(
            f"mask_type is {kinds[kind]}, but {found[other]} {of_all} masks of the other kind; set mask_type: "
            f"{kinds[other]}"
        )
    raise DataError(
        f"load_instance_masks is true, but {found.total() - found[kind]} {of_all} no image/object/mask. Write records "
        "with masks, e.g. `detzoo dataset coco --include_masks`, or set load_instance_masks: false and train without a "
        "mask head"
    )
