"""Annotations -> repaired images and boxes -> TFRecord shards and a label map. Never aborts on one bad image.

Every importer ends here. Images are read, checked and repaired by several threads (decoding and hashing release the
interpreter lock) and written in the order of the annotations, so that the same input gives the same bytes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from detzoo.config.label_map import LabelMap, load_label_map
from detzoo.datasets import examples, repair
from detzoo.datasets.annotations import AnnotatedImage, Annotations
from detzoo.errors import DataError, UsageError
from detzoo.files import images
from detzoo.files.issues import Action, DataIssue, Finding, IssueLog
from detzoo.folders import write_atomically
from detzoo.progress import track

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

IMAGES_IN_FLIGHT_PER_THREAD = 4
MAX_STRICT_LINES = 50  # findings listed in the message of --strict


@dataclasses.dataclass(frozen=True)
class ConversionResult:
    """What was written."""

    shards: list[pathlib.Path]
    label_map_path: pathlib.Path
    num_images: int
    objects_per_class: dict[str, int]
    num_classes: int
    with_masks: bool
    log: IssueLog


class _Converted(NamedTuple):
    record: bytes | None
    class_names: list[str]
    findings: list[Finding]


def convert(
    annotations: Annotations,
    output_prefix: str,
    *,
    num_shards: int,
    label_map_path: str | None = None,
    strict: bool = False,
    with_masks: bool = False,
    log: IssueLog | None = None,
) -> ConversionResult:
    """Writes ``output_prefix-00000-of-000NN.tfrecord`` and ``label_map.pbtxt`` in the same folder.

    Args:
        annotations: what an importer read.
        output_prefix: path of the shards up to their number.
        num_shards: how many files.
        label_map_path: ids to use; without it the data set's own, beginning with 1.
        strict: anything skipped or repaired is an error, and nothing is written.
        with_masks: write instance masks.
        log: findings made while reading the annotations; the conversion adds its own.

    Raises:
        DataError: no image or no object could be used; or ``strict`` and something was found.
        UsageError: the label map beside the output has other classes, or the prefix cannot be used.
    """
    log = log if log is not None else IssueLog()
    label_map = load_label_map(label_map_path) if label_map_path else _own_label_map(annotations, log)
    shards = examples.shard_paths(output_prefix, num_shards)
    beside = shards[0].parent / "label_map.pbtxt"
    _check_label_map_beside(label_map, beside, given=label_map_path)
    ids = label_ids(label_map)
    work = functools.partial(_convert_image, ids=ids, names=dict(label_map.names), with_masks=with_masks)
    per_class: collections.Counter[str] = collections.Counter()
    with examples.ShardedWriter(output_prefix, num_shards) as writer:
        converted = in_parallel(work, annotations.images)
        for result in track(converted, len(annotations.images), "converting"):
            log.extend(result.findings)
            if result.record is not None:
                writer.write(result.record)
                per_class.update(result.class_names)
        if strict and log.num_strict:
            raise DataError(_strict_message(log))
        if not per_class:
            raise DataError(_nothing_message(annotations, writer.num_records, log))
        # The shards get their names when this block is left without an error: never shards without their label map.
        _save_label_map(label_map, beside)
    _warn_of_other_shards(output_prefix, num_shards)
    counts = {name: per_class[name] for _, name in sorted(label_map.names.items())}
    return ConversionResult(shards, beside, writer.num_records, counts, label_map.num_classes, with_masks, log)


def _own_label_map(annotations: Annotations, log: IssueLog) -> LabelMap:
    if not annotations.class_names:
        raise DataError(_nothing_message(annotations, None, log))
    return LabelMap(dict(annotations.class_names))


def _nothing_message(annotations: Annotations, num_records: int | None, log: IssueLog) -> str:
    """The message of an import without any object: the first reason for it, and the table of all."""
    usable = "" if num_records is None else f", {num_records} of them usable"
    of_images = f"of {len(annotations.images)} annotated images{usable}"
    if num_records == 0 and annotations.images:
        of_images = f"not one of {len(annotations.images)} images could be used"
    order = list(Action)
    first = sorted(log.findings(), key=lambda finding: order.index(finding.issue.action))[:1]
    lines = [f"no object could be imported: {of_images}", *map(str, first), log.table()]
    return "\n".join(lines)


def label_ids(label_map: LabelMap) -> dict[str, int]:
    """Class name -> id, by name and, where it names no other class, by display name."""
    ids = {display: class_id for class_id, display in label_map.display_names.items() if display}
    ids.update({name: class_id for class_id, name in label_map.names.items()})
    return ids


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map`` by threads: results in order, and only a few items in flight, so that memory stays bounded."""
    num_threads = os.cpu_count() or 1
    waiting: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= num_threads * IMAGES_IN_FLIGHT_PER_THREAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _convert_image(
    annotated: AnnotatedImage, *, ids: dict[str, int], names: dict[int, str], with_masks: bool
) -> _Converted:
    """One image file and its objects -> one serialized record, or the reason why there is none."""
    if annotated.unusable is not None:
        return _Converted(None, [], [Finding(annotated.unusable[0], annotated.filename, annotated.unusable[1])])
    try:
        content = annotated.content if annotated.content is not None else images.read_content(annotated.path)
        image = images.repair_image(content, annotated.path.name)
    except images.UnusableImage as error:
        return _Converted(None, [], [Finding(error.issue, annotated.filename, error.detail)])
    findings = [Finding(issue, annotated.filename, detail) for issue, detail in image.flaws]
    repaired, box_findings = repair.repair_objects(annotated, image, with_masks=with_masks)
    findings.extend(box_findings)
    objects = []
    some_masks = any(item.mask is not None for item in repaired)
    for item in repaired:
        class_id = ids.get(item.source.class_name)
        if class_id is None:
            findings.append(Finding(DataIssue.CLASS_NOT_IN_LABEL_MAP, item.source.where, item.source.class_name))
            continue
        if with_masks and item.mask is None and some_masks:
            findings.append(Finding(DataIssue.MASK_MISSING, item.source.where))
        objects.append(_object_example(item, class_id, names[class_id], image.size, with_masks))
    if not objects:
        findings.append(Finding(DataIssue.NO_BOXES, annotated.filename))
    example = examples.ImageExample(
        encoded=image.encoded,
        image_format=image.image_format,
        filename=annotated.filename,
        source_id=annotated.source_id,
        size=image.size,
        objects=objects,
        with_masks=with_masks,
    )
    return _Converted(examples.encode_example(example), [item.class_name for item in objects], findings)


def _object_example(
    item: repair.RepairedObject, class_id: int, class_name: str, size: tuple[int, int], with_masks: bool
) -> examples.ObjectExample:
    """An object as it is written. A mask that is not known is written empty: the reader needs one for each object."""
    mask_png = b""
    if with_masks:
        mask_png = examples.encode_mask(item.mask if item.mask is not None else np.zeros(size, np.uint8))
    return examples.ObjectExample(
        box_norm=item.box_norm,
        class_id=class_id,
        class_name=class_name,
        area_px=item.area_px,
        is_crowd=item.source.is_crowd,
        is_difficult=item.source.is_difficult,
        is_truncated=item.source.is_truncated,
        is_group_of=item.source.is_group_of,
        view=item.source.view,
        mask_png=mask_png,
    )


def _check_label_map_beside(label_map: LabelMap, path: pathlib.Path, given: str | None) -> None:
    """Refuses to replace a label map that other shards in the folder may depend on."""
    if not path.is_file():
        return
    there = load_label_map(str(path))
    if dict(there.names) == dict(label_map.names):
        return
    ours, theirs = set(label_map.names.items()), set(there.names.items())
    lacking = ", ".join(f"{name} (id {class_id})" for class_id, name in sorted(ours - theirs)[:5]) or "none"
    beyond = ", ".join(f"{name} (id {class_id})" for class_id, name in sorted(theirs - ours)[:5]) or "none"
    advice = f"--label_map {path} uses its ids" if not given else "--label_map names another file"
    raise UsageError(
        f"{path} is there already, with other classes, and records beside it may need it: {advice};"
        f" or write to another folder.\nIn this data set only: {lacking}\nIn that file only: {beyond}"
    )


def _save_label_map(label_map: LabelMap, path: pathlib.Path) -> None:
    try:
        write_atomically(path, label_map.to_text())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from None


def _warn_of_other_shards(output_prefix: str, num_shards: int) -> None:
    others = examples.other_shards(output_prefix, num_shards)
    if others:
        logger.warning(
            "%d shards of an earlier run with another --num_shards lie beside the new ones (%s, ...); a pattern such"
            " as %s-* reads both: remove them, or name the count in the pattern",
            len(others),
            others[0],
            output_prefix,
        )


def _strict_message(log: IssueLog) -> str:
    shown = log.strict_findings()[:MAX_STRICT_LINES]
    lines = [f"  {finding} [{finding.issue.action.value}]" for finding in shown]
    if log.num_strict > len(shown):
        lines.append(f"  ... and {log.num_strict - len(shown)} more")
    return "\n".join([f"--strict: {log.num_strict} findings, nothing written", *lines])
