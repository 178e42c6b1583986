"""Records or image files -> a proposals.npz by selective search; a stopped search is resumed.

Flow: records or files -> (id, encoded image) -> ``selective_search`` in processes -> parts -> proposals.npz. Parts are
in a hidden folder next to the result, named by the options, until the search is complete.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from detzoo.data.proposals import read_arrays, write_proposals
from detzoo.datasets.selective_search import Proposed, SearchOptions
from detzoo.errors import DataError
from detzoo.progress import track

IMAGES_OF_A_PART = 100

logger = logging.getLogger(__name__)


class SearchSummary(NamedTuple):
    """Counts of a search."""

    num_images: int
    num_windows: int
    num_kept: int  # images that an earlier, stopped run had searched


def images_of_records(pattern: str) -> tuple[int, Iterator[tuple[str, bytes]]]:
    """Returns the number of records that match a pattern, and the id and encoded image of each.

    Raises:
        DataError: No file matches, or there is no record. While reading: a record has no ``image/source_id`` or image.
    """
    from detzoo.data.records import scan_files

    files = scan_files([pattern])
    return sum(file.num_records for file in files), _read_records(files)


def _read_records(files: Iterable[Any]) -> Iterator[tuple[str, bytes]]:
    import tensorflow as tf

    from detzoo.data.decode import parse_rules

    rules = parse_rules(("image/source_id", "image/encoded"))
    for file in files:
        records = tf.data.TFRecordDataset(file.path).take(file.num_records)
        for number, serialized in enumerate(records):
            found = tf.io.parse_single_example(serialized, rules)
            image_id = found["image/source_id"].numpy().decode("utf-8", "replace")
            encoded, where = found["image/encoded"].numpy(), f"{file.path}, record {number}"
            if not image_id:
                raise DataError(f"{where} has no image/source_id, by which its proposals would be found; convert again")
            if not encoded:
                raise DataError(
                    f"{where} ({image_id!r}) has no image/encoded; `detzoo dataset inspect` shows its records"
                )
            yield image_id, encoded


def images_of_files(files: Iterable[pathlib.Path]) -> Iterator[tuple[str, bytes]]:
    """Yields the name of each file, as its id, and its content; b"", with a warning, if it cannot be read."""
    from detzoo.files.images import UnusableImage, read_content

    for file in files:
        try:
            yield file.name, read_content(file)
        except UnusableImage as problem:
            logger.warning("%s cannot be read: %s", file, problem)
            yield file.name, b""


def write_searched(
    images: Iterable[tuple[str, bytes]],
    num_images: int,
    output: pathlib.Path,
    options: SearchOptions,
    search: Callable[[Iterable[tuple[str, bytes]]], Iterator[tuple[str, Proposed]]],
) -> SearchSummary:
    """Searches images and writes their proposals; resumes a stopped search with the same options.

    ``output``, a proposals.npz, is replaced as a whole at the end.

    Args:
        images: Id and encoded file of each image.
        num_images: Their number.
        output: The file to write.
        options: Options of the search.
        search: Function that yields the windows of images with these options, in their order.

    Raises:
        DataError: Two images have one id. Finished images are kept.
    """
    digest = hashlib.sha256(repr(options).encode()).hexdigest()[:8]
    parts = output.with_name(f".{output.name}.{digest}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    known = {image_id: name for name in sorted(parts.glob("*.npz")) for image_id in _read_part(name)}
    if known:
        logger.info("%d images were searched before, in %s; resuming", len(known), parts)
    order: dict[str, None] = {}
    searched = search(_unknown(images, order, known))
    numbers = itertools.count(len(list(parts.glob("*.npz"))))
    part: list[tuple[str, Proposed]] = []
    try:
        for found in track(searched, num_images - len(known), "selective search"):
            part.append(found)
            if len(part) == IMAGES_OF_A_PART:
                _write_part(parts, next(numbers), part)
                part = []
    finally:
        if part:
            _write_part(parts, next(numbers), part)
    by_id: dict[str, Proposed] = {}
    for name in sorted(parts.glob("*.npz")):
        by_id |= _read_part(name)
    results = [by_id[image_id] for image_id in order]
    write_proposals(output, list(order), [each.boxes_norm for each in results], [each.scores for each in results])
    shutil.rmtree(parts)
    return SearchSummary(len(order), sum(len(each.scores) for each in results), len(known))


def _unknown(images: Iterable[tuple[str, bytes]], order: dict[str, None], known: Any) -> Iterator[tuple[str, bytes]]:
    """Yields the images that are not searched yet; records the order of all."""
    for image_id, encoded in images:
        if image_id in order:
            raise DataError(f"two images have the id {image_id!r}; proposals are found by it, so ids must differ")
        order[image_id] = None
        if image_id not in known:
            yield image_id, encoded


def _write_part(folder: pathlib.Path, number: int, part: list[tuple[str, Proposed]]) -> None:
    ids, proposed = zip(*part)
    boxes, scores = [each.boxes_norm for each in proposed], [each.scores for each in proposed]
    write_proposals(folder / f"{number:06d}.npz", ids, boxes, scores)


def _read_part(file: pathlib.Path) -> dict[str, Proposed]:
    with file.open("rb") as stream:
        ids, offsets, boxes, scores, _ = read_arrays(str(file), stream)
    rows = [slice(begin, end) for begin, end in itertools.pairwise(offsets)]
    return {image_id: Proposed(boxes[row], scores[row]) for image_id, row in zip(ids, rows)}
