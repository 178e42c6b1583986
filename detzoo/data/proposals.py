"""Proposals that are read from a file instead of a first stage: Fast R-CNN's way (arXiv:1504.08083).

``detzoo evaluate`` of a first stage alone writes them, ``InputReader.proposals_path`` reads them:

    proposals.npz   image_ids text [I], offsets int64 [I + 1], boxes float32 [T, 4] (ymin, xmin, ymax, xmax in fractions
                    of the true image), scores float32 [T]; image i has the rows offsets[i] to offsets[i + 1]
    *.json          a list in COCO's results format, {"image_id": ..., "bbox": [x, y, width, height], "score": ...}, in
                    pixels of the original image. Decoding the image makes them fractions

An image is found by its ``image/source_id``, as text. Boxes outside of their image, and images without an entry, are
reported before the first image is decoded.
"""

from __future__ import annotations

import logging
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.data.decode import Decoded, as_bytes, parse_rules
from detzoo.data.issue_counter import count_vector
from detzoo.data.records import CHECKED_RECORDS, RecordStream
from detzoo.errors import DataError
from detzoo.files.fields import as_name, as_number, shown
from detzoo.files.text_files import decode, parse_json
from detzoo.folders import check_regular, draft_of

ARRAYS = ("image_ids", "offsets", "boxes", "scores")
ENTRY_FIELDS = ("image_id", "bbox", "score")

_ZIP_MAGIC = b"PK"
# A box may leave the image by this fraction of it: programs round to pixels, or count their last one in.
_OUTSIDE = 0.05
_SHOWN_IDS = 3

logger = logging.getLogger(__name__)


class ProposalTable:
    """The proposals of a data set, best first within each image, from a file at ``path``.

    Args:
        path: File they are from, for messages.
        image_ids: I texts.
        offsets: int64 [I + 1], rows of each image.
        boxes: float32 [T, 4], [ymin, xmin, ymax, xmax].
        scores: float32 [T].
        in_pixels: True if the boxes are pixels of the original image, False if they are fractions of it.
    """

    def __init__(
        self,
        path: str,
        image_ids: Sequence[str],
        offsets: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray,
        in_pixels: bool,
    ) -> None:
        self.path, self.image_ids, self.in_pixels = path, list(image_ids), in_pixels
        self._offsets, self._boxes, self._scores = offsets, boxes, scores
        rises = np.flatnonzero(scores[1:] > scores[:-1]) + 1
        if not np.isin(rises, offsets).all():  # sorting those of all of COCO takes two minutes
            rows = np.repeat(np.arange(len(self.image_ids)), np.diff(offsets))
            order = np.lexsort((-scores, rows))  # stable: equal scores keep their order
            self._boxes, self._scores = boxes[order], scores[order]
        self._row: dict[bytes, int] = {}
        for row, image_id in enumerate(self.image_ids):
            self._row.setdefault(image_id.encode("utf-8", "replace"), row)
        repeated = len(self.image_ids) - len(self._row)
        if repeated:
            logger.warning("%s has %d images more than one time; the first entry counts", path, repeated)

    def __contains__(self, image_id: bytes) -> bool:
        return image_id in self._row

    def lookup(self, image_id: Any) -> tuple[np.ndarray, np.ndarray, np.bool_]:
        """Returns boxes [R, 4], scores [R], and True if the image has an entry; R is 0 without one."""
        row = self._row.get(as_bytes(image_id))
        begin, end = (0, 0) if row is None else self._offsets[row : row + 2]
        return self._boxes[begin:end], self._scores[begin:end], np.bool_(row is not None)


def attach_proposals(record: Decoded, table: ProposalTable) -> Decoded:
    """Adds the proposals of its image to a record; an image without an entry is counted as a data issue."""
    boxes, scores, found = tf.numpy_function(
        table.lookup, [record.image_id], [tf.float32, tf.float32, tf.bool], stateful=False
    )
    boxes = tf.ensure_shape(boxes, [None, 4])
    if table.in_pixels:
        boxes /= tf.cast(tf.tile(tf.shape(record.sample.image)[:2], [2]), tf.float32)
    sample = record.sample._replace(
        proposals_norm=tf.clip_by_value(boxes, 0.0, 1.0), proposal_scores=tf.ensure_shape(scores, [None])
    )
    missing = tf.cast(record.usable & ~found, tf.int64) * tf.constant(count_vector(missing_proposals=1))
    return record._replace(sample=sample, issues=record.issues + missing)


def check_images(table: ProposalTable, source: RecordStream, *, all_records: bool) -> None:
    """Compares the records of a source with a table: the first ones, or ``all_records``.

    Of all records, each must have an entry (not in a list in COCO's format, where an image without proposals has none),
    and boxes in pixels must lie in their image.

    Raises:
        DataError: A record does not fit, or fewer than half of the records have an entry.
    """
    prefix = f"proposals_path {table.path}"
    rules = parse_rules(("image/source_id", "image/height", "image/width"))
    records = source.first_records(source.num_records if all_records else CHECKED_RECORDS)
    parsed = records.map(lambda record: tf.io.parse_single_example(record, rules)).ignore_errors()
    ids, strange = [], []
    for features in parsed.as_numpy_iterator():
        image_id = features["image/source_id"]
        ids.append(image_id)
        if image_id not in table:
            strange.append(image_id)
        elif all_records and table.in_pixels:
            _check_inside(table, image_id, features["image/height"], features["image/width"])
    if 2 * len(strange) > len(ids):
        if not any(ids):
            raise DataError(
                f"{prefix}: the records have no image/source_id, so that their proposals cannot be found; the file has "
                f"ids such as {table.image_ids[0]!r}"
            )
        raise DataError(
            f"{prefix}: image ids do not match, {len(strange)} of the {'' if all_records else 'first '}{len(ids)} "
            f"records have no entry in the file. A record has image/source_id {_text(next(filter(None, strange)))!r}, "
            f"the file has {table.image_ids[0]!r}; give the proposals of these records"
        )
    if all_records and strange and not table.in_pixels:
        raise DataError(
            f"{prefix}: {len(strange)} of the {len(ids)} records have no entry in the file, such as "
            f"{', '.join(repr(_text(name)) for name in strange[:_SHOWN_IDS])}; give the proposals of all these "
            "records, an image without any as an entry of no rows"
        )


def _text(image_id: bytes) -> str:
    return image_id.decode("utf-8", "replace")


def _check_inside(table: ProposalTable, image_id: bytes, height: int, width: int) -> None:
    """Raises DataError if a box, in pixels, lies outside of its image; no check if the record states no size."""
    if height < 1 or width < 1:
        return
    boxes = table.lookup(image_id)[0]
    size = np.array([height, width, height, width], np.float32)
    outside = ((boxes < -_OUTSIDE * size) | (boxes > (1.0 + _OUTSIDE) * size)).any(axis=1)
    if outside.any():
        ymin, xmin, ymax, xmax = (float(side) for side in boxes[outside][0])
        box = [round(value, 1) for value in (xmin, ymin, xmax - xmin, ymax - ymin)]
        raise DataError(
            f"proposals_path {table.path}: a box of image {_text(image_id)!r} is {box}, outside of the image of "
            f"{width} x {height} pixels; accepted: [x, y, width, height] in pixels of the record's image"
        )


def write_proposals(
    path: str | pathlib.Path,
    image_ids: Sequence[str],
    boxes_norm: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
) -> None:
    """Writes a proposals.npz as a whole, with boxes [R, 4], fractions of the true image, and scores [R] per image."""
    with draft_of(path) as draft, draft.open("wb") as file:
        np.savez(
            file,
            image_ids=np.array(list(image_ids), np.str_),
            offsets=np.cumsum([0, *(len(rows) for rows in scores)], dtype=np.int64),
            boxes=np.concatenate([np.zeros([0, 4], np.float32), *boxes_norm], dtype=np.float32),
            scores=np.concatenate([np.zeros([0], np.float32), *scores], dtype=np.float32),
        )


def read_proposals(path: str) -> ProposalTable:
    """Reads a proposals.npz or a JSON list; boxes that are not finite or lack area are dropped and counted.

    Raises:
        DataError: There is no such file, it is neither of these, or it holds no proposal.
    """
    try:
        if "://" not in path:
            check_regular(path)
        with tf.io.gfile.GFile(path, "rb") if "://" in path else open(path, "rb") as file:
            is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
            file.seek(0)
            ids, offsets, boxes, scores, numbers = read_arrays(path, file) if is_zip else _read_entries(file)
        good = np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if not good.any():
            reason = "none has finite numbers and an area" if len(good) else "it is empty"
            raise ValueError(f"holds no proposal: {reason}")
    except (OSError, tf.errors.OpError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem).splitlines()[0]
        raise DataError(f"proposals_path {path} cannot be read: {reason}") from None
    except ValueError as problem:
        raise DataError(f"proposals_path {path}: {problem}") from None
    if not good.all():
        logger.warning(
            "%s: %d of %d boxes are not finite or have no area and are dropped, the first is number %d",
            *(path, len(good) - good.sum(), len(good), numbers[~good].min()),
        )
        offsets, boxes, scores = np.concatenate([[0], np.cumsum(good)])[offsets], boxes[good], scores[good]
    return ProposalTable(path, ids, offsets, boxes, scores, in_pixels=not is_zip)


# Image ids, offsets, boxes, scores, and each box's number in the file.
_Arrays = tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def read_arrays(path: str, file: Any) -> _Arrays:
    """Returns the arrays of an open proposals.npz; raises a DataError or ValueError for others than the module's."""
    accepted = f"accepted: an npz with the arrays {', '.join(ARRAYS)}, as `detzoo evaluate` writes"
    try:
        with np.load(file, allow_pickle=False) as stored:
            missing = [name for name in ARRAYS if name not in stored]
            if missing:
                found = ", ".join(stored.files) or "nothing"
                raise DataError(f"proposals_path {path} has no {', '.join(missing)} (it has: {found}); {accepted}")
            ids, offsets, boxes, scores = arrays = [stored[name] for name in ARRAYS]
    except DataError:
        raise
    except Exception as problem:  # of zip, zlib, struct and NumPy, by the byte that is broken
        raise DataError(f"proposals_path {path} cannot be read: {str(problem)[:200]}; {accepted}") from None
    total = len(boxes) if boxes.ndim else -1
    shapes_fit = boxes.shape == (total, 4) and scores.shape == (total,) and offsets.shape == (ids.size + 1,)
    kinds = "".join(array.dtype.kind for array in arrays)
    if not shapes_fit or ids.ndim != 1 or not re.fullmatch("[US][iu][fiu][fiu]", kinds):
        found = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in zip(ARRAYS, arrays))
        raise ValueError(
            f"it has {found}; accepted: image_ids text [I], offsets int64 [I + 1], boxes float32 [T, 4], scores "
            "float32 [T]"
        )
    offsets = offsets.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets must rise from 0 to {total}, the number of boxes")
    boxes = boxes.astype(np.float32)
    leaves = ((boxes < -_OUTSIDE) | (boxes > 1.0 + _OUTSIDE)).any(axis=1)
    far = np.flatnonzero(leaves & np.isfinite(boxes).all(axis=1))
    if len(far):
        image_id = ids[np.searchsorted(offsets, far[0], side="right") - 1]
        raise ValueError(
            f"box {far[0]} is {boxes[far[0]].tolist()} (image {str(image_id)!r}), outside of the image; accepted: "
            "fractions of the image, [ymin, xmin, ymax, xmax] in 0..1"
        )
    texts = [_text(name) if isinstance(name, bytes) else str(name) for name in ids]
    return texts, offsets, boxes, scores.astype(np.float32), np.arange(total)


def _read_entries(file: Any) -> _Arrays:
    try:
        entries = parse_json(decode(file.read())[0])
    except ValueError as problem:
        raise ValueError(
            f"is neither npz nor JSON ({problem}); accepted: the proposals.npz of `detzoo evaluate`, or a list in "
            "COCO's results format"
        ) from None
    if not isinstance(entries, list):
        raise ValueError(
            f"is a JSON {type(entries).__name__}; accepted: a list in COCO's results format, "
            '[{"image_id": ..., "bbox": [x, y, width, height], "score": ...}, ...]'
        )
    by_image: dict[str, list[tuple[float, ...]]] = {}
    for number, entry in enumerate(entries):
        try:
            image_id, values = _read_entry(entry)
        except ValueError as problem:
            raise ValueError(f"entry {number}: {problem}") from None
        by_image.setdefault(image_id, []).append((*values, number))
    rows = np.array([values for image in by_image.values() for values in image], np.float64).reshape(-1, 6)
    corner, size = rows[:, 1::-1], rows[:, 3:1:-1]
    offsets = np.cumsum([0, *(len(image) for image in by_image.values())], dtype=np.int64)
    with np.errstate(over="ignore"):  # what becomes infinite is dropped
        stated = np.concatenate([corner, corner + size, rows[:, 4:5]], axis=1).astype(np.float32)
    return list(by_image), offsets, stated[:, :4], stated[:, 4], rows[:, 5].astype(np.int64)


def _read_entry(entry: Any) -> tuple[str, tuple[float, ...]]:
    """Returns the image's id as text, and x, y, width, height and score."""
    accepted = f"accepted: an object with {', '.join(ENTRY_FIELDS)}"
    if not isinstance(entry, dict):
        raise ValueError(f"it is {shown(entry)}; {accepted}")
    for field in ENTRY_FIELDS:
        if field not in entry:
            raise ValueError(f"it has no {field} (it has: {', '.join(map(str, entry)) or 'nothing'}); {accepted}")
    image_id, box, score = (entry[field] for field in ENTRY_FIELDS)
    if not as_name(image_id):
        raise ValueError(f"image_id is {shown(image_id)}; accepted: a number or a text")
    try:
        x, y, width, height = map(as_number, box)
    except (TypeError, ValueError):
        raise ValueError(f"bbox is {shown(box)}; accepted: 4 numbers [x, y, width, height] in pixels") from None
    try:
        return as_name(image_id), (x, y, width, height, as_number(score))
    except ValueError:
        raise ValueError(f"score is {shown(score)}; accepted: a number") from None
