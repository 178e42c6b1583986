"""Annotations -> repaired images and boxes -> TFRecord shards and a label map. Never aborts on one bad image.

Every importer ends here. Images are read, checked and repaired by several threads (decoding and hashing release the
interpreter lock) and written in the order of the annotations, so that the same input gives the same bytes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from detzoo.config.label_map import LabelMap, load_label_map, parse_label_map
from detzoo.datasets import record_writer, repair
from detzoo.datasets.annotations import AnnotatedImage, Annotations
from detzoo.errors import DataError, UsageError
from detzoo.files import images
from detzoo.files.issues import Action, DataIssue, Finding, IssueLog
from detzoo.files.remote import RemotePath
from detzoo.folders import LABEL_MAP_FILE, write_atomically
from detzoo.progress import track

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

IMAGES_IN_FLIGHT_PER_THREAD = 4
MAX_WAITING_BYTES = 256e6
MAX_STRICT_LINES = 50  # findings listed in the message of --strict


@dataclasses.dataclass(frozen=True)
class ConversionResult:
    """Files and counts that a conversion wrote."""

    shards: list[pathlib.Path]
    label_map_path: pathlib.Path
    num_images: int
    objects_per_class: dict[str, int]
    with_masks: bool
    log: IssueLog


class Converted(NamedTuple):
    """The record of an image, None without a usable one; the classes of its objects; and its data issues."""

    record: bytes | None
    class_names: list[str]
    findings: list[Finding]


# Writes the images of a split as drafts, which get their names when the stack closes without an error. Arguments: the
# stack, the function of an image, the images, the prefix, the number of shards, the log. Returns the number of records
# and the objects of each class.
SplitWriter = Callable[
    [contextlib.ExitStack, Callable[[AnnotatedImage], Converted], Sequence[AnnotatedImage], str, int, IssueLog],
    tuple[int, collections.Counter[str]],
]


def write_here(
    stack: contextlib.ExitStack,
    work: Callable[[AnnotatedImage], Converted],
    images: Sequence[AnnotatedImage],
    prefix: str,
    num_shards: int,
    log: IssueLog,
) -> tuple[int, collections.Counter[str]]:
    """Converts the images of a split by the threads of this process, see ``SplitWriter``."""
    if "://" in prefix:
        raise UsageError(f"--output_path {prefix} is on another file system, which --runner writes to")
    writer = stack.enter_context(record_writer.ShardedWriter(prefix, num_shards))
    per_class: collections.Counter[str] = collections.Counter()
    for result in track(in_parallel(work, images), len(images), "converting"):
        log.extend(result.findings)
        if result.record is not None:
            writer.write(result.record)
            per_class.update(result.class_names)
    return writer.num_records, per_class


def convert(
    annotations: Annotations,
    output_prefix: str,
    *,
    num_shards: int,
    label_map_path: str | None = None,
    strict: bool = False,
    with_masks: bool = False,
    log: IssueLog | None = None,
    write: SplitWriter = write_here,
) -> ConversionResult:
    """Writes one data set, see ``convert_splits``."""
    [result] = convert_splits(
        {output_prefix: annotations},
        num_shards=num_shards,
        label_map_path=label_map_path,
        strict=strict,
        with_masks=with_masks,
        log=log,
        write=write,
    )
    return result


def convert_splits(
    splits: Mapping[str, Annotations],
    *,
    num_shards: int,
    label_map_path: str | None = None,
    strict: bool = False,
    with_masks: bool = False,
    log: IssueLog | None = None,
    write: SplitWriter = write_here,
) -> list[ConversionResult]:
    """Writes ``PREFIX-00000-of-000NN.tfrecord`` for each prefix and ``label_map.pbtxt`` in the same folder.

    Either all files are written or none.

    Args:
        splits: Images and objects by the path of their shards up to the number. The prefixes have one folder, and
            the annotations the same class names.
        num_shards: Number of files per split.
        label_map_path: Label map with the ids to use; without it the ids are those of the annotations.
        strict: Anything skipped or repaired is an error, and nothing is written.
        with_masks: Write instance masks.
        log: Findings made while reading the annotations; the conversion adds more.
        write: Converts and writes the images of a split.

    Raises:
        DataError: No image or no object of a split could be used; or ``strict`` and something was found.
        UsageError: The folder has a label map with other classes, or a prefix cannot be used.
    """
    log = log if log is not None else IssueLog()
    class_names = next(iter(splits.values())).class_names
    if not label_map_path and not class_names:
        raise DataError(_nothing_message(splits, None, log))
    keypoint_names = next(iter(splits.values())).keypoint_names
    label_map = load_label_map(label_map_path) if label_map_path else LabelMap(class_names)
    label_map.keypoints |= {
        label_map.id_by_name[name]: labels for name, labels in keypoint_names.items() if name in label_map.id_by_name
    }
    num_keypoints = max(map(len, keypoint_names.values()), default=0)
    shards = {prefix: record_writer.shard_paths(prefix, num_shards) for prefix in splits}
    label_map_file = next(iter(shards.values()))[0].parent / LABEL_MAP_FILE
    _check_label_map_file(label_map, label_map_file, is_given=bool(label_map_path))
    work = functools.partial(_convert_image, label_map=label_map, with_masks=with_masks, num_keypoints=num_keypoints)
    results = []
    with contextlib.ExitStack() as writers:
        for prefix, annotations in splits.items():
            num_records, per_class = write(writers, work, annotations.images, prefix, num_shards, log)
            counts = {name: per_class[name] for _, name in sorted(label_map.names.items())}
            files = (shards[prefix], label_map_file)
            results.append(ConversionResult(*files, num_records, counts, with_masks, log))
        if strict and log.num_strict:
            raise DataError(_strict_message(log))
        for prefix, written in zip(splits, results):
            if not any(written.objects_per_class.values()) and not splits[prefix].is_test_set:
                raise DataError(_nothing_message({prefix: splits[prefix]}, written.num_images, log, len(splits) > 1))
        # The shards get their names when this block is left without an error: never shards without their label map.
        try:
            if isinstance(label_map_file, RemotePath):
                label_map_file.write_bytes(label_map.to_text().encode())
            else:
                write_atomically(label_map_file, label_map.to_text())
        except OSError as error:
            raise DataError(f"cannot write {label_map_file}: {error.strerror}") from None
    for prefix in splits:
        _warn_of_other_shards(prefix, num_shards)
    return results


def _nothing_message(
    splits: Mapping[str, Annotations], num_records: int | None, log: IssueLog, is_one_of_several: bool = False
) -> str:
    """Returns the message of an import without any object: the first reason, and the table of all."""
    num_images = sum(len(annotations.images) for annotations in splits.values())
    usable = "" if num_records is None else f", {num_records} of them usable"
    of_images = f"of {num_images} annotated images{usable}"
    if num_records == 0 and num_images:
        of_images = f"not one of {num_images} images could be used"
    if is_one_of_several:
        of_images = f"{next(iter(splits))}, {of_images}"
    order = list(Action)
    first = sorted(log.findings(), key=lambda finding: order.index(finding.issue.action))[:1]
    lines = [f"no object could be imported: {of_images}", *map(str, first), log.table()]
    return "\n".join(lines)


def in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], num_bytes: Callable[[Result], int] | None = None
) -> Iterator[Result]:
    """Maps by threads; yields results in order, with few items in flight, so that memory stays bounded.

    If ``items`` raises an exception, the results of the items before it are yielded first.

    Args:
        work: Function that runs in the threads.
        items: Its arguments; they are produced in the thread of the caller.
        num_bytes: Memory of a result; items of large results are limited to ``MAX_WAITING_BYTES`` in flight.
    """
    num_threads = os.cpu_count() or 1
    most = num_threads * IMAGES_IN_FLIGHT_PER_THREAD
    in_flight = num_threads if num_bytes else most  # until the first result is measured
    waiting: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    iterator = iter(items)
    problem: BaseException | None = None
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        try:
            while waiting or problem is None:
                try:
                    while problem is None and len(waiting) < in_flight:
                        waiting.append(pool.submit(work, next(iterator)))
                except BaseException as error:  # KeyboardInterrupt, too
                    problem = error
                if waiting:
                    result = waiting.popleft().result()
                    if num_bytes:
                        in_flight = int(min(most, max(2, MAX_WAITING_BYTES // max(1, num_bytes(result)))))
                    yield result
        finally:
            for future in waiting:
                future.cancel()
    if problem is not None and not isinstance(problem, StopIteration):
        raise problem


def _convert_image(
    annotated: AnnotatedImage, *, label_map: LabelMap, with_masks: bool, num_keypoints: int = 0
) -> Converted:
    """Returns the serialized record of one image, or the reason why there is none."""
    if annotated.unusable is not None:
        return Converted(None, [], [Finding(annotated.unusable[0], annotated.filename, annotated.unusable[1])])
    if annotated.record is not None:
        return Converted(annotated.record(), [item.class_name for item in annotated.objects], [])
    try:
        image = images.repair_image(annotated.read(), annotated.path.name)
    except images.UnusableImage as error:
        return Converted(None, [], [Finding(error.issue, annotated.filename, error.detail)])
    findings = [Finding(issue, annotated.filename, detail) for issue, detail in image.flaws]
    repaired, box_findings = repair.repair_objects(annotated, image, with_masks=with_masks)
    findings.extend(box_findings)
    objects = []
    some_masks = any(item.mask is not None for item in repaired)
    for item in repaired:
        source = item.source
        class_id = label_map.id_by_any_name.get(source.class_name)
        if class_id is None:
            findings.append(Finding(DataIssue.CLASS_NOT_IN_LABEL_MAP, source.where, source.class_name))
            continue
        if with_masks and item.mask is None and some_masks:
            findings.append(Finding(DataIssue.MASK_MISSING, source.where))
        objects.append(record_writer.LabelledObject(class_id, label_map.names[class_id], item))
    if not objects:
        findings.append(Finding(DataIssue.NO_BOXES, annotated.filename))
    verified = None
    if annotated.verified_classes is not None:  # of which most are not in the label map of boxes
        ids = map(label_map.id_by_any_name.get, annotated.verified_classes)
        verified = [(number, label_map.names[number]) for number in ids if number is not None]
    record = record_writer.encode_example(
        image,
        annotated.filename,
        annotated.source_id,
        objects,
        with_masks=with_masks,
        num_keypoints=num_keypoints,
        verified_classes=verified,
    )
    return Converted(record, [item.class_name for item in objects], findings)


def _check_label_map_file(label_map: LabelMap, path: pathlib.Path, *, is_given: bool) -> None:
    """Refuses to replace a label map that other shards in the folder may depend on."""
    if not path.is_file():
        return
    present = parse_label_map(path.read_bytes().decode(), str(path))
    if present.names == label_map.names:
        return
    ours, theirs = set(label_map.names.items()), set(present.names.items())
    lacking, beyond = (
        ", ".join(f"{name} (id {class_id})" for class_id, name in sorted(some)[:5]) or "none"
        for some in (ours - theirs, theirs - ours)
    )
    advice = "--label_map names another file" if is_given else f"--label_map {path} uses its ids"
    raise UsageError(
        f"{path} is there already, with other classes, and records in the folder may need it: {advice};"
        f" or write to another folder.\nIn this data set only: {lacking}\nIn that file only: {beyond}"
    )


def _warn_of_other_shards(output_prefix: str, num_shards: int) -> None:
    others = record_writer.other_shards(output_prefix, num_shards)
    if others:
        logger.warning(
            "the folder has %d shards of an earlier run with another --num_shards, too (%s, ...); a pattern such as"
            " %s-* reads both: remove them, or name the count in the pattern",
            *(len(others), others[0], output_prefix),
        )


def _strict_message(log: IssueLog) -> str:
    shown = log.strict_findings()[:MAX_STRICT_LINES]
    lines = [f"  {finding} [{finding.issue.action.value}]" for finding in shown]
    if log.num_strict > len(shown):
        lines.append(f"  ... and {log.num_strict - len(shown)} more")
    return "\n".join([f"--strict: {log.num_strict} findings, nothing written", *lines])
