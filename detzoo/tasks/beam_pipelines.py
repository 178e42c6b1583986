"""Conversion, detection and searches as Apache Beam pipelines, on one machine or many (extra ``beam``).

The workers run the functions of the ordinary commands. The commanding process reads the annotations or lists the
images, writes the work of the pipeline as small files next to the output, and gives the finished files their names.

    images with objects -> work files -> convert -> rank among the usable images -> shard -> draft of each shard
                                              `-> data issues, objects per class -> summary
    any items           -> work files -> function of items -> its results, in the order of the items
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import logging
import os
import pathlib
import pickle
import shlex
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from detzoo.datasets.annotations import AnnotatedImage
from detzoo.datasets.conversion import Converted
from detzoo.datasets.record_writer import shard_paths
from detzoo.errors import DataError, UsageError
from detzoo.files.issues import KEPT_PER_KIND, DataIssue, Finding, IssueLog
from detzoo.files.pixel_limit import VARIABLE

ITEMS_PER_FILE = 64  # what a worker does at a time, and again if it fails
RECORDS, FINDINGS, OBJECTS, SKIPPED = "records", "findings", "objects", "skipped"
_LOCAL = ("--direct_running_mode=multi_processing", f"--direct_num_workers={os.cpu_count() or 1}")

logger = logging.getLogger(__name__)


def options_of(runner: str, given: str | None) -> Any:
    """Returns Beam's options for a runner; ``given`` are further ones, as on a command line.

    Raises:
        UsageError: The options cannot be read.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        options = shlex.split(given or "")
    except ValueError as problem:
        raise UsageError(f"--beam_options {given!r}: {problem}") from None
    if runner == "DirectRunner" and not any(text.startswith("--direct_running_mode") for text in options):
        options = [*_LOCAL, *options]
    return PipelineOptions([f"--runner={runner}", *options])


class BeamRecords:
    """Writer of records for ``conversion.convert_splits`` that converts by a pipeline.

    The shards have the same records in the same order as those of the ordinary command.

    Args:
        options: Beam's options.
    """

    def __init__(self, options: Any) -> None:
        self._options = options

    def __call__(
        self,
        stack: contextlib.ExitStack,
        work: Callable[[AnnotatedImage], Converted],
        images: Sequence[AnnotatedImage],
        prefix: str,
        num_shards: int,
        log: IssueLog,
    ) -> tuple[int, collections.Counter[str]]:
        """Writes drafts, which get their names when the stack closes without an error.

        Returns:
            The number of records, and the objects of each class.
        """
        import apache_beam as beam

        shards = shard_paths(prefix, num_shards)
        folder = stack.enter_context(_scratch(shards[0].parent))
        stack.push(_Publisher(folder, shards))
        parts = _write_work(folder, images)
        with _reported(), beam.Pipeline(options=self._options) as pipeline:
            convert = beam.FlatMap(_convert_part, work, os.environ.get(VARIABLE))
            convert = convert.with_outputs(FINDINGS, OBJECTS, SKIPPED, main=RECORDS)
            done = pipeline | "Work" >> beam.Create(parts) | beam.Reshuffle() | "Convert" >> convert
            skipped = done[SKIPPED] | beam.combiners.ToList() | "Sort" >> beam.Map(sorted)
            records = done[RECORDS] | "Place" >> beam.Map(_place, beam.pvalue.AsSingleton(skipped), num_shards)
            every_shard = pipeline | "Shards" >> beam.Create([(number, None) for number in range(num_shards)])
            counts = (
                ((records, every_shard) | "All" >> beam.Flatten())
                | "Group" >> beam.GroupByKey()
                | "Write" >> beam.Map(_write_shard, folder)
            )
            first = done[FINDINGS] | "First" >> beam.combiners.Top.SmallestPerKey(KEPT_PER_KIND)
            number = done[FINDINGS] | "Count" >> beam.combiners.Count.PerKey()
            of_class = done[OBJECTS] | "Sum" >> beam.CombinePerKey(sum)
            kinds = {"first": first, "number": number, "of_class": of_class, "records": counts}
            rows = [each | f"Name {name}" >> beam.Map(_named, name) for name, each in kinds.items()]
            _ = (
                rows
                | "Join" >> beam.Flatten()
                | "One" >> beam.GroupByKey()
                | "Summary" >> beam.Map(_write_summary, f"{folder}/summary")
            )
        return _read_summary(f"{folder}/summary", log)


def apply_by_beam(
    options: Any,
    folder: str | pathlib.Path,
    load: Callable[[], Callable[[Iterable[Any]], Iterator[Any]]],
    items: Iterable[Any],
) -> Iterator[Any]:
    """Yields what a function makes of items by a pipeline, in the order of the items.

    Args:
        options: Beam's options; ``temp_location``, if it is given, is used in place of ``folder``.
        folder: Folder that all workers reach; its new files are removed at the end.
        load: Function without arguments, called once per worker; it returns the function of items.
        items: The items.
    """
    import apache_beam as beam

    class Apply(beam.DoFn):
        """Applies the function to a work file; the file of results replaces that of an earlier attempt."""

        def __init__(self) -> None:
            self._megapixels = os.environ.get(VARIABLE)

        def setup(self) -> None:
            _set_limit(self._megapixels)
            self._function = load()

        def process(self, part: str) -> None:
            def counted() -> Iterator[Any]:
                for result in self._function(item for _, item in _unpickled(part)):
                    beam.metrics.Metrics.counter("detzoo", "images").inc()
                    yield result

            _write_pickled(f"{part}.done", counted())

    with _scratch(options.get_all_options().get("temp_location") or folder) as scratch:
        parts = _write_work(scratch, items)
        with _reported(), beam.Pipeline(options=options) as pipeline:
            _ = pipeline | beam.Create(parts) | beam.Reshuffle() | beam.ParDo(Apply())
        for part in parts:
            yield from _unpickled(f"{part}.done")


def _convert_part(part: str, work: Callable[[AnnotatedImage], Converted], megapixels: str | None) -> Iterator[Any]:
    """Yields records with the numbers of their images, and tagged findings, counts of objects and unusable images."""
    from apache_beam.metrics import Metrics
    from apache_beam.pvalue import TaggedOutput

    _set_limit(megapixels)
    for number, image in _unpickled(part):
        converted = work(image)
        Metrics.counter("detzoo", "images").inc()
        for place, finding in enumerate(converted.findings):
            Metrics.counter("data issues", finding.issue.name).inc()
            yield TaggedOutput(FINDINGS, (finding.issue.name, (number, place, finding.where, finding.detail)))
        if converted.record is None:
            yield TaggedOutput(SKIPPED, number)
            continue
        for name, count in collections.Counter(converted.class_names).items():
            Metrics.counter("objects", name).inc(count)
            yield TaggedOutput(OBJECTS, (name, count))
        yield number, converted.record


def _set_limit(megapixels: str | None) -> None:
    if megapixels is not None:
        os.environ[VARIABLE] = megapixels


def _place(row: tuple[int, bytes], skipped: Sequence[int], num_shards: int) -> tuple[int, tuple[int, bytes]]:
    """Returns the shard of a record, and its rank among the images that could be used."""
    rank = row[0] - bisect.bisect_left(skipped, row[0])
    return rank % num_shards, (rank, row[1])


def _write_shard(row: tuple[int, Iterable[tuple[int, bytes] | None]], folder: str) -> int:
    """Writes the draft of one shard, and returns the number of its records."""
    ranked = sorted(each for each in row[1] if each is not None)
    draft = f"{folder}/shard-{row[0]:05d}"
    attempt = f"{draft}.{uuid.uuid4().hex}"
    with tf.io.TFRecordWriter(attempt) as writer:
        for _, record in ranked:
            writer.write(record)
    tf.io.gfile.rename(attempt, draft, overwrite=True)
    return len(ranked)


def _named(row: Any, name: str) -> tuple[int, Any]:
    return 0, (name, row)


def _write_summary(row: tuple[int, Iterable[Any]], file: str) -> None:
    _write_pickled(file, row[1])


def _read_summary(file: str, log: IssueLog) -> tuple[int, collections.Counter[str]]:
    """Adds the findings to the log; returns the number of records and the objects of each class."""
    found: dict[str, list[Any]] = collections.defaultdict(list)
    for name, row in _unpickled(file):
        found[name].append(row)
    numbers = dict(found["number"])
    for name, first in found["first"]:
        issue = DataIssue[name]
        log.extend([Finding(issue, where, detail) for _, _, where, detail in sorted(first)], numbers[name])
    return sum(found["records"]), collections.Counter(dict(found["of_class"]))


def _write_work(folder: str, items: Iterable[Any]) -> list[str]:
    """Writes numbered items to files, and returns the files."""
    parts: list[str] = []
    batch: list[Any] = []
    for row in enumerate(items):
        batch.append(row)
        if len(batch) == ITEMS_PER_FILE:
            parts.append(f"{folder}/work-{len(parts):06d}")
            _write_pickled(parts[-1], batch)
            batch = []
    if batch:
        parts.append(f"{folder}/work-{len(parts):06d}")
        _write_pickled(parts[-1], batch)
    return parts


def _write_pickled(file: str, items: Iterable[Any]) -> None:
    attempt = f"{file}.{uuid.uuid4().hex}"
    with tf.io.TFRecordWriter(attempt) as writer:
        for item in items:
            writer.write(pickle.dumps(item))
    tf.io.gfile.rename(attempt, file, overwrite=True)


def _unpickled(file: str) -> Iterator[Any]:
    """Yields the items of a file that this run has written."""
    for record in tf.data.TFRecordDataset(file):
        yield pickle.loads(record.numpy())


@contextlib.contextmanager
def _scratch(parent: Any) -> Iterator[str]:
    """Yields the path of a new folder that is removed at the end."""
    folder = f"{parent}/.beam-{uuid.uuid4().hex[:12]}"
    tf.io.gfile.makedirs(folder)
    try:
        yield folder
    finally:
        tf.io.gfile.rmtree(folder)


class _Publisher(contextlib.AbstractContextManager[None]):
    """Moves the drafts of shards to their names at the end, unless there is an error."""

    def __init__(self, folder: str, shards: Sequence[Any]) -> None:
        self._folder, self._shards = folder, shards

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            for number, shard in enumerate(self._shards):
                tf.io.gfile.rename(f"{self._folder}/shard-{number:05d}", str(shard), overwrite=True)


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Turns an error of a pipeline into one sentence; Beam's log has the details."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as problem:
        lines = [line for line in str(problem).strip().splitlines() if line.strip()] or [type(problem).__name__]
        raise DataError(f"the Beam pipeline failed: {lines[-1].strip()[:500]}") from problem
