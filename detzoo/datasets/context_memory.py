"""Records -> records with the memory of Context R-CNN: features of boxes in the images of the same camera.

Two passes: every image is given to a detector, whose best features go to a temporary file; then the records are written
again, each with the features of its group (one camera, and with a time horizon one period).

A feature is the mean of a box's features over its cells, followed by the box's centre and size (x, y, width, height in
fractions of the image) and by the time of the image (year, month, day, hour and minute, each scaled to about 0 to 1).

References:
    Beery et al., arXiv:1912.03538, section 4.2. Keys and scales are those of the Object Detection API.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import functools
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from detzoo.data.record_keys import CONTEXT_FEATURES, CONTEXT_LENGTH, OBJECT, SIDES
from detzoo.datasets.record_writer import ShardedWriter
from detzoo.errors import DataError
from detzoo.progress import track

DATE = "image/date_captured"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
# Period of a group -> attributes of the date that its images share. A week is seven days of a month.
HORIZONS = {
    "year": ("year",),
    "month": ("year", "month"),
    "week": ("year", "month", "week"),
    "day": ("year", "month", "day"),
    "hour": ("year", "month", "day", "hour"),
    "minute": ("year", "month", "day", "hour", "minute"),
}
# Attribute of a date -> its lowest value, and the range that becomes 1.
_SCALES = {"year": (1990, 40.0), "month": (1, 12.0), "day": (1, 31.0), "hour": (0, 24.0), "minute": (0, 60.0)}
_CACHED_MEMORIES = 64


@dataclasses.dataclass(frozen=True)
class MemoryOptions:
    """Options of the memory."""

    # Key of a record whose equal values make a group: ``image/location`` or ``image/seq_id``.
    group_by: str = "image/location"
    time_horizon: str = ""  # one of ``HORIZONS``, by which groups are split further; "" for all times
    subsample: int = 1  # one of this many images of a group, in the order of time, gives features
    max_features: int = 2000  # features of a memory at most; larger groups are split in the order of time
    images_per_sequence: int = 0  # images of a tf.SequenceExample at most; 0 writes a tf.Example per image


class Boxes(NamedTuple):
    """The detections of an image that give features, best first."""

    boxes_norm: np.ndarray  # float32 [k, 4]
    features: np.ndarray  # float32 [k, C]


class MemorySummary(NamedTuple):
    """Counts and files of the written records."""

    num_images: int
    num_groups: int
    num_features: int
    feature_length: int
    largest: int  # features of the largest memory
    paths: list[pathlib.Path]


class _Place(NamedTuple):
    """The place of a record, whose file is read from ``offset`` to ``end``."""

    path: str
    number: int
    offset: int
    end: int

    def __str__(self) -> str:
        return f"{self.path}, record {self.number}"


class _Described(NamedTuple):
    """The findings of the first pass in a record."""

    features: np.ndarray  # float32 [k, F]
    group: tuple[Any, ...]
    time: str


class _Image(NamedTuple):
    """A record of the first pass."""

    place: _Place
    group: tuple[Any, ...]
    time: str
    rows: slice  # of the file of features


Detect = Callable[[bytes], Boxes]  # from an encoded image to the boxes that give features


def add_memory(
    pattern: str,
    describe: Callable[[Iterable[Any]], Iterator[Any]],
    output_path: str,
    options: MemoryOptions,
    num_shards: int = 1,
) -> MemorySummary:
    """Writes the records of a pattern again, with the memory of their group.

    Args:
        pattern: TFRecord files of tf.Examples: a path, a glob, stem@10, or several, separated by commas.
        describe: The first pass: ``describe_records`` with a detection and the options, here or on other machines.
        output_path: Prefix of the files to write.
        options: Options of the memory.
        num_shards: Number of files.

    Raises:
        DataError: A record has no image, group or date, or its date has another format.
    """
    from detzoo.data.records import scan_files

    places = [
        _Place(file.path, number, *map(int, file.offsets[number : number + 2]))
        for file in scan_files([pattern])
        for number in range(file.num_records)
    ]
    with ShardedWriter(output_path, num_shards) as writer, tempfile.TemporaryFile(dir=writer.paths[0].parent) as stored:
        images: list[_Image] = []
        length = 0
        for (rows, group, time), place in zip(track(describe(places), len(places), "detect"), places):
            if images and rows.shape[1] != length:
                raise DataError(
                    f"{place}: its features have {rows.shape[1]} values, those before {length}: some records "
                    f"have {DATE} and others have not; add it to all, or remove it from all"
                )
            length, first = rows.shape[1], images[-1].rows.stop if images else 0
            stored.write(rows.tobytes())
            images.append(_Image(place, group, time, slice(first, first + len(rows))))
        stored.flush()
        num_rows = images[-1].rows.stop
        values = np.memmap(stored, np.float32, "r", shape=(num_rows, length)) if num_rows else np.zeros([0, length])
        groups, members = _split(images, options)

        @functools.lru_cache(maxsize=_CACHED_MEMORIES)
        def memory_of(group: int) -> np.ndarray:
            return np.concatenate([values[:0], *(values[rows] for rows in members[group])])

        if options.images_per_sequence:
            _write_sequences(writer, images, groups, memory_of, options, length)
        else:
            for image, group in track(zip(images, groups), len(images), "write"):
                example = _example_at(image.place)
                _set_memory(example.features.feature, memory_of(group), length)
                writer.write(example.SerializeToString(deterministic=True))
    sizes = [sum(rows.stop - rows.start for rows in member) for member in members]
    return MemorySummary(len(images), len(members), sum(sizes), length, max(sizes), writer.paths)


def time_features(date: datetime.datetime) -> list[float]:
    """Returns year, month, day, hour and minute, each scaled to about 0 to 1."""
    return [(getattr(date, name) - lowest) / scale for name, (lowest, scale) in _SCALES.items()]


def box_features(box_norm: Sequence[float]) -> list[float]:
    """Returns x and y of the centre, width and height of a box [ymin, xmin, ymax, xmax]."""
    ymin, xmin, ymax, xmax = box_norm
    return [(xmin + xmax) / 2, (ymin + ymax) / 2, xmax - xmin, ymax - ymin]


def describe_records(detect: Detect, options: MemoryOptions, places: Iterable[Any]) -> Iterator[Any]:
    """Yields the findings of the first pass in the records at some places, see ``add_memory``."""
    for place in places:
        example = _example_at(place)
        time = _text(example, DATE) or _text(example, "image/source_id")
        yield _Described(_features(example, detect, place), _group_of(example, options, place), time)


def _example_at(place: _Place) -> Any:
    """Returns a record as tf.train.Example."""
    import tensorflow as tf

    from detzoo.data.records import read_record

    try:
        return tf.train.Example.FromString(read_record(place.path, place.offset, place.end))
    except tf.errors.DataLossError:
        raise DataError(f"{place} is damaged; `detzoo dataset inspect` lists such records") from None


def _features(example: Any, detect: Detect, place: _Place) -> np.ndarray:
    """Returns the features of an image, float32 [k, F]."""
    encoded = example.features.feature["image/encoded"].bytes_list.value
    if not encoded:
        raise DataError(f"{place} has no image/encoded; `detzoo dataset inspect` shows its records")
    found = detect(encoded[0])
    date = _date(example, place)
    time = time_features(date) if date else []
    rows = [[*vector, *box_features(box), *time] for box, vector in zip(found.boxes_norm, found.features)]
    return np.array(rows, np.float32).reshape(len(rows), found.features.shape[1] + len(SIDES) + len(time))


def _group_of(example: Any, options: MemoryOptions, place: _Place) -> tuple[Any, ...]:
    name = _text(example, options.group_by)
    if not name:
        raise DataError(
            f"{place} has no {options.group_by}, by which the images of a camera are found; accepted: a text"
        )
    if not options.time_horizon:
        return (name,)
    date = _date(example, place)
    if date is None:
        raise DataError(f"{place} has no {DATE}, which --time_horizon={options.time_horizon} needs")
    parts = {"week": date.day // 7}
    return (name, *(parts.get(part, getattr(date, part, None)) for part in HORIZONS[options.time_horizon]))


def _date(example: Any, place: _Place) -> datetime.datetime | None:
    text = _text(example, DATE)
    try:
        return datetime.datetime.strptime(text, DATE_FORMAT) if text else None
    except ValueError:
        raise DataError(f"{place}: {DATE} is {text!r}; accepted: such as 2020-06-30 23:59:00") from None


def _text(example: Any, key: str) -> str:
    values = example.features.feature[key].bytes_list.value if key in example.features.feature else []
    return values[0].decode("utf-8", "replace") if values else ""


def _split(images: Sequence[_Image], options: MemoryOptions) -> tuple[list[int], list[list[slice]]]:
    """Returns the number of each image's group, and of each group the rows of its features."""
    by_group: dict[tuple[Any, ...], list[int]] = collections.defaultdict(list)
    for row, image in enumerate(images):
        by_group[image.group].append(row)
    groups, members = [0] * len(images), list[list[slice]]()
    for rows in by_group.values():
        rows.sort(key=lambda row: images[row].time)
        size = options.max_features + 1  # of the current memory: none yet
        for order, row in enumerate(rows):
            own = images[row].rows if order % options.subsample == 0 else slice(0, 0)
            count = min(own.stop - own.start, options.max_features)
            if size + count > options.max_features:
                members.append([])
                size = 0
            size += count
            groups[row] = len(members) - 1
            members[-1].append(slice(own.start, own.start + count))
    return groups, members


def _set_memory(features: Any, memory: np.ndarray, length: int) -> None:
    """Stores a memory in the features of a record, instead of any earlier one."""
    for key in (CONTEXT_FEATURES, CONTEXT_LENGTH):
        features[key].Clear()
    features[CONTEXT_FEATURES].float_list.value.extend(memory.ravel())
    features[CONTEXT_LENGTH].int64_list.value.append(length)


def _write_sequences(
    writer: ShardedWriter,
    images: Sequence[_Image],
    groups: Sequence[int],
    memory_of: Callable[[int], np.ndarray],
    options: MemoryOptions,
    length: int,
) -> None:
    """Writes one sequence per group, or several of at most ``images_per_sequence`` images, in the order of time."""
    order = sorted(range(len(images)), key=lambda row: (groups[row], images[row].time))
    parts = [
        rows[start : start + options.images_per_sequence]
        for _, group in itertools.groupby(order, key=lambda row: groups[row])
        for rows in [list(group)]
        for start in range(0, len(rows), options.images_per_sequence)
    ]
    for rows in track(parts, len(parts), "write", "sequences"):
        sequence = _sequence([_example_at(images[row].place).features.feature for row in rows])
        _set_memory(sequence.context.feature, memory_of(groups[rows[0]]), length)
        writer.write(sequence.SerializeToString(deterministic=True))


# Key of a tf.Example -> list of a sequence.
_LISTS = {
    "image/encoded": "image/encoded",
    "image/source_id": "image/source_id",
    DATE: DATE,
    "image/location": "image/location",
    **{f"{OBJECT}/bbox/{side}": f"region/bbox/{side}" for side in SIDES},
    f"{OBJECT}/class/label": "region/label/index",
    f"{OBJECT}/class/text": "region/label/string",
}


def _sequence(examples: Sequence[Any]) -> Any:
    """Returns the tf.train.SequenceExample of the features of images."""
    import tensorflow as tf

    sequence = tf.train.SequenceExample()
    for key in ("image/format", "image/height", "image/width"):
        sequence.context.feature[key].CopyFrom(examples[0][key])
    for features in examples:
        for key, name in _LISTS.items():
            sequence.feature_lists.feature_list[name].feature.add().CopyFrom(features[key])
        annotated = sequence.feature_lists.feature_list["region/is_annotated"].feature.add()
        annotated.int64_list.value.append(1)
    return sequence
