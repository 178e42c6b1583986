"""TFRecord files -> one endless (or single-pass) stream of numbered, serialized records.

The first stage of the input pipeline. The order is a pure function of (seed, epoch), and a stream can start at any
position: whole epochs are skipped by arithmetic, because the framing headers of the files were counted, and the rest
of an epoch is skipped before anything is decoded.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import struct
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from detzoo.contracts import Tensor
from detzoo.data.dirt_counter import DirtCounter, count_vector
from detzoo.errors import DataError

logger = logging.getLogger(__name__)

# A TFRecord: length uint64, its checksum uint32, the data, its checksum uint32.
_HEADER_BYTES = 12
_FOOTER_BYTES = 4

CHECKED_RECORDS = 100  # of which is asked, before the first batch, whether they hold what a detector needs

_EMPTY_MESSAGE = "input_path is empty; give a TFRecord file or a glob, such as data/train-?????-of-00010"
_SHARDED_NAME = re.compile(r"^(?P<stem>.+)@(?P<shards>\d+)(?P<extension>\.[\w.]+)?$")


@dataclasses.dataclass(frozen=True)
class RecordFile:
    """One TFRecord file and how many whole records it holds."""

    path: str
    num_records: int
    truncated: bool = False


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How files become a stream; the fields of an ``InputReader``."""

    shuffle: bool = True
    shuffle_buffer_size: int = 2048  # records
    sample_1_of_n: int = 1
    num_readers: int = 64  # files read in turns
    read_block_length: int = 32  # records taken from a file before the next one's turn


def match_files(pattern: str) -> list[str]:
    """The files of one ``input_path`` entry, sorted.

    Args:
        pattern: a path, a glob (``train-?????-of-00010``), ``stem@10`` for ten shards, or several, comma-separated.

    Raises:
        DataError: a part of the pattern matches no file.
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
    """Counts the whole records of a file by its framing headers, without reading the data between them."""
    count, offset = 0, 0
    with tf.io.gfile.GFile(path, "rb") if "://" in path else open(path, "rb") as file:
        size = tf.io.gfile.stat(path).length
        while offset + _HEADER_BYTES <= size:
            file.seek(offset)
            (length,) = struct.unpack("<Q", file.read(_HEADER_BYTES)[:8])
            if offset + _HEADER_BYTES + length + _FOOTER_BYTES > size:
                break
            offset += _HEADER_BYTES + length + _FOOTER_BYTES
            count += 1
    return RecordFile(path, count, truncated=offset != size)


def scan_files(patterns: Sequence[str], dirt: DirtCounter | None = None) -> list[RecordFile]:
    """All files of the ``input_path`` entries with their record counts; truncated ones are counted as dirt.

    Raises:
        DataError: an entry matches no file, or no file holds a record.
    """
    if not patterns:
        raise DataError(_EMPTY_MESSAGE)
    files = [scan_file(path) for pattern in patterns for path in match_files(pattern)]
    for file in files:
        if file.truncated:
            logger.warning("%s ends within a record; its first %d records are read", file.path, file.num_records)
            if dirt is not None:
                dirt.add(count_vector(truncated_file=1), where=file.path)
    if not sum(file.num_records for file in files):
        raise DataError(f"the files matching {', '.join(patterns)} hold no records")
    return files


class RecordSource:
    """The stream of one set of files. Element: (index int64, record string); index -1 - e ends the epoch before e.

    Position p of the stream is record ``p % num_records`` of epoch ``p // num_records``.
    """

    def __init__(self, files: Sequence[RecordFile], options: ReadOptions, seed: int) -> None:
        self._options = options
        self._seed = seed
        # Which of a file's records are sampled depends on their place in the whole set, not on the order of reading.
        firsts, counts, before = [], [], 0
        for file in files:
            first = -before % options.sample_1_of_n
            firsts.append(first)
            counts.append(max(0, -(-(file.num_records - first) // options.sample_1_of_n)))
            before += file.num_records
        self._paths = [file.path for file in files]
        self._firsts, self._counts = firsts, counts
        self.num_records = sum(counts)

    def stream(self, start: int = 0, num_epochs: int | None = None) -> tf.data.Dataset:
        """The stream from position ``start``, endless or for ``num_epochs`` epochs counted from position 0.

        At the end of each epoch stands an empty record with the index ``-1 - end``, where ``end`` is the position
        that follows.
        """
        first_epoch = start // self.num_records
        last_epoch = num_epochs if num_epochs is not None else tf.int64.max

        def one_epoch(epoch: Tensor) -> tf.data.Dataset:
            begin = epoch * self.num_records
            records = self._epoch(epoch).enumerate(start=begin).skip(tf.maximum(start - begin, 0))
            end = tf.data.Dataset.from_tensors((-1 - (begin + self.num_records), ""))
            return records.concatenate(end)

        return tf.data.Dataset.range(first_epoch, last_epoch).flat_map(one_epoch)

    def first_records(self, count: int) -> tf.data.Dataset:
        """Up to ``count`` serialized records from the beginnings of the files, in turns and never shuffled."""
        columns = (self._paths, tf.constant(self._firsts, tf.int64), tf.constant(self._counts, tf.int64))
        files = tf.data.Dataset.from_tensor_slices(columns)
        return files.interleave(self._read_file, cycle_length=min(count, len(self._paths))).take(count)

    def _epoch(self, epoch: Tensor) -> tf.data.Dataset:
        """The serialized records of one epoch, in its order."""
        options = self._options
        seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
        order = tf.range(len(self._paths))
        if options.shuffle:
            order = tf.random.experimental.stateless_shuffle(order, seed)
        columns = (tf.constant(self._paths), tf.constant(self._firsts, tf.int64), tf.constant(self._counts, tf.int64))
        files = tf.data.Dataset.from_tensor_slices(tuple(tf.gather(column, order) for column in columns))
        records = files.interleave(
            self._read_file,
            cycle_length=max(1, min(options.num_readers, len(self._paths))),
            block_length=max(1, options.read_block_length),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        if not options.shuffle:
            return records
        buffer_size = max(1, min(options.shuffle_buffer_size, self.num_records))
        shuffle_seed = tf.random.stateless_uniform([], seed + 1, minval=None, maxval=None, dtype=tf.int64)
        return records.shuffle(buffer_size, seed=shuffle_seed, reshuffle_each_iteration=False)

    def _read_file(self, path: Tensor, first: Tensor, count: Tensor) -> tf.data.Dataset:
        """Exactly ``count`` records of one file: what a damaged block makes unreadable comes as empty records."""
        records = tf.data.TFRecordDataset(path).ignore_errors()
        if self._options.sample_1_of_n > 1:
            records = records.skip(first).shard(self._options.sample_1_of_n, 0)
        return records.concatenate(tf.data.Dataset.from_tensors("").repeat()).take(count)


class WeightedSources:
    """Several sources drawn from at random with given weights; each has its own epochs.

    Which source position p comes from is a pure function of (seed, p), so a stream can start anywhere here too.
    """

    num_records: int

    def __init__(self, sources: Sequence[RecordSource], weights: Sequence[float], seed: int) -> None:
        if len(sources) != len(weights) or min(weights) < 0 or sum(weights) <= 0:
            raise DataError(
                f"sample_from_datasets_weights {list(weights)} do not fit {len(sources)} input_path entries: "
                "give one weight of 0 or more for each entry, not all 0"
            )
        self._sources = list(sources)
        self._logits = tf.math.log(tf.constant([list(weights)], tf.float32))
        self._seed = seed
        self.num_records = sum(source.num_records for source in sources)

    def _choose(self, position: Tensor) -> Tensor:
        seed = tf.stack([tf.constant(self._seed, tf.int64), position])
        return tf.random.stateless_categorical(self._logits, 1, seed)[0, 0]

    def stream(self, start: int = 0, num_epochs: int | None = None) -> tf.data.Dataset:
        """The endless stream from position ``start``, with the elements of ``RecordSource.stream``.

        An "epoch" ends after as many records as all sources hold together; ``num_epochs`` counts these.
        """
        positions = tf.data.Dataset.range(start, tf.int64.max)
        drawn = self._drawn_before(start)
        streams = [source.stream(count).filter(_is_record) for source, count in zip(self._sources, drawn)]
        chosen = tf.data.Dataset.choose_from_datasets(streams, positions.map(self._choose), stop_on_empty_dataset=True)
        numbered = tf.data.Dataset.zip(positions, chosen).map(lambda position, record: (position, record[1]))
        if num_epochs is not None:
            numbered = numbered.take(max(0, num_epochs * self.num_records - start))
        return numbered.flat_map(self._with_epoch_end)

    def first_records(self, count: int) -> tf.data.Dataset:
        """Up to ``count`` serialized records, as many of each source."""
        share = -(-count // len(self._sources))
        first, *others = (source.first_records(share) for source in self._sources)
        for records in others:
            first = first.concatenate(records)
        return first

    def _with_epoch_end(self, position: Tensor, record: Tensor) -> tf.data.Dataset:
        end = position + 1
        ends_here = tf.cast(end % self.num_records == 0, tf.int64)
        mark = tf.data.Dataset.from_tensors((-1 - end, "")).take(ends_here)
        return tf.data.Dataset.from_tensors((position, record)).concatenate(mark)

    def _drawn_before(self, start: int) -> list[int]:
        """How many records each source gave to the positions before ``start``."""
        if start == 0:
            return [0] * len(self._sources)
        chosen = tf.vectorized_map(self._choose, tf.range(start, dtype=tf.int64))
        return [int(count) for count in tf.math.bincount(tf.cast(chosen, tf.int32), minlength=len(self._sources))]


def _is_record(index: Tensor, record: Tensor) -> Tensor:
    del record
    return index >= 0


def check_masks(source: RecordSource | WeightedSources, png_masks: bool) -> None:
    """Looks for instance masks in the first records of a source.

    Args:
        source: where the records come from.
        png_masks: whether masks are expected as PNG strings, not as floats.

    Raises:
        DataError: more than half of those that have objects have no masks of this kind.
    """
    wanted, other = ("bytes_list", "float_list") if png_masks else ("float_list", "bytes_list")
    with_objects, with_masks, with_others = 0, 0, 0
    for serialized in source.first_records(CHECKED_RECORDS).ignore_errors().as_numpy_iterator():
        features = _features(serialized)
        if features is None or not features["image/object/bbox/ymin"].float_list.value:
            continue
        masks = features["image/object/mask"]
        with_objects += 1
        with_masks += bool(getattr(masks, wanted).value)
        with_others += bool(getattr(masks, other).value)
    if 2 * with_masks >= with_objects:
        return
    names = {"bytes_list": "PNG_MASKS", "float_list": "NUMERICAL_MASKS"}
    if with_others:
        raise DataError(
            f"mask_type is {names[wanted]}, but {with_others} of the first {with_objects} records with objects have "
            f"masks of the other kind; set mask_type: {names[other]}"
        )
    raise DataError(
        f"load_instance_masks is true, but {with_objects - with_masks} of the first {with_objects} records with "
        "objects have no image/object/mask. Write records with masks, e.g. `detzoo dataset coco --include_masks`, or "
        "set load_instance_masks: false and train without a mask head"
    )


def _features(serialized: bytes) -> Any:
    """The features of a serialized tf.Example, None where it is none."""
    try:
        return tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        return None
