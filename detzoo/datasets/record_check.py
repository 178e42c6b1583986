"""One serialized record -> the objects that training takes from it, and what it repairs, skips or ignores.

The rules are those of ``data.decode``, in NumPy and with a reason for each. ``dataset inspect`` counts, reports and
draws a ``CheckedRecord``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.config.label_map import LabelMap
from detzoo.data.record_keys import CLIP_TOLERANCE, KEYS, OBJECT, SIDES
from detzoo.datasets.annotations import shown_box
from detzoo.files import images
from detzoo.files.issues import DataIssue, Finding

OPTIONAL_KEYS = ("image/source_id", "image/height", "image/width")

Features = Mapping[str, list]
_Report = Callable[[DataIssue, str], None]


class CheckedRecord(NamedTuple):
    """The usable part of a record. ``usable`` is False if training drops the whole record."""

    usable: bool
    where: str
    findings: list[Finding]
    features: Features = {}  # noqa: RUF012  # nobody changes it
    name: str = ""
    size: tuple[int, int] = (0, 0)  # (height, width) of the decoded image
    boxes_norm: np.ndarray = np.zeros((0, 4))  # [N, 4] of ymin, xmin, ymax, xmax; clipped to the image
    class_names: tuple[str, ...] = ()  # N names
    num_crowd: int = 0
    num_difficult: int = 0
    num_masks: int = 0
    digest: bytes = b""  # of the encoded image


class UnusableRecord(Exception):
    """Training drops the record; carries the finding's kind and detail."""

    def __init__(self, issue: DataIssue, detail: str = "") -> None:
        super().__init__(detail)
        self.issue, self.detail = issue, detail


def check_record(serialized: bytes, where: str, label_map: LabelMap | None) -> CheckedRecord:
    """Checks one record.

    Args:
        serialized: A tf.Example.
        where: File and number of the record, for the findings.
        label_map: The label map of the training; None accepts every class.
    """
    findings: list[Finding] = []
    try:
        features = parse_features(serialized)
        return _check_features(features, where, label_map, findings)
    except (UnusableRecord, images.UnusableImage) as reason:
        return CheckedRecord(False, where, [Finding(reason.issue, where, reason.detail)])


def parse_features(serialized: bytes) -> dict[str, list]:
    """Returns the list of values for each key of a tf.Example.

    Raises:
        UnusableRecord: It is empty, not a tf.Example, or has a key of another type than training reads.
    """
    if not serialized:
        raise UnusableRecord(DataIssue.RECORD_EMPTY)
    try:
        message = tf.train.Example.FromString(serialized)
    except Exception as error:  # google.protobuf.message.DecodeError, by whichever protobuf backend is loaded
        raise UnusableRecord(DataIssue.RECORD_UNREADABLE, str(error)) from None
    features = {}
    for key, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        features[key] = list(getattr(feature, kind).value) if kind else []
        rule = KEYS.get(key)
        if not kind or rule is None or not rule.is_decoded:
            continue
        if kind != rule.kind:
            raise UnusableRecord(DataIssue.KEY_TYPE, f"{key} is {kind}; {rule.kind} is read")
        if not rule.is_list and len(features[key]) != 1:
            raise UnusableRecord(DataIssue.KEY_TYPE, f"{key} has {len(features[key])} values; 1 is read")
    if not features:
        raise UnusableRecord(DataIssue.RECORD_EMPTY, "no keys")
    return features


def image_of(features: Features) -> np.ndarray:
    """Returns the decoded image, uint8 [H, W, 3], as stored (no EXIF rotation).

    Raises:
        UnusableRecord: There is none.
        UnusableImage: It cannot be decoded.
    """
    image, _ = images.decode_image(_encoded_image(features), "")
    return np.asarray(images.to_rgb(image))


def masks_of(features: Features) -> list[np.ndarray] | None:
    """Returns the PNG masks, bool [H, W] each; None if there are none, or floats, or broken ones."""
    encoded = features.get(f"{OBJECT}/mask", [])
    if not encoded or not isinstance(encoded[0], bytes):
        return None
    try:
        return [np.asarray(images.open_header(mask).convert("L")) > 0 for mask in encoded]
    except Exception:  # Pillow raises many kinds; check_record has reported it
        return None


def _check_features(
    features: Features, where: str, label_map: LabelMap | None, findings: list[Finding]
) -> CheckedRecord:
    def report(issue: DataIssue, detail: str = "") -> None:
        findings.append(Finding(issue, where, detail))

    encoded = _encoded_image(features)
    boxes, texts, labels = _objects(features)
    count = len(boxes)
    size = _check_image(encoded, features, report)
    for key in OPTIONAL_KEYS:
        if not features.get(key):
            report(DataIssue.KEY_ABSENT, key)
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    rows = np.flatnonzero(_usable_boxes(boxes, low, high, report))
    names = {row: _class_name(texts[row], int(labels[row]), label_map, report) for row in rows}
    kept = np.array([row for row in rows if names[row] is not None], np.int64)
    for key, issue in (("weight", DataIssue.WEIGHT_WRONG), ("area", DataIssue.AREA_WRONG)):
        values = _column(features, key, count)[kept]
        for value in values[~KEYS[f"{OBJECT}/{key}"].accepts(values)]:
            report(issue, f"{key} {value:g}")
    if not count:
        report(DataIssue.NO_BOXES)
    problem = _mask_problem(features.get(f"{OBJECT}/mask", []), count, size)
    if problem:
        report(DataIssue.MASK_UNUSABLE, problem)
    # As in decode, a group of Open Images is a crowd.
    is_crowd = _column(features, "is_crowd", count) + _column(features, "group_of", count) > 0
    return CheckedRecord(
        usable=True,
        where=where,
        findings=findings,
        features=features,
        name=_text(features.get("image/filename")) or _text(features.get("image/source_id")) or where,
        size=size,
        boxes_norm=np.clip(np.concatenate([low, high], axis=1)[kept], 0.0, 1.0),
        class_names=tuple(name for name in names.values() if name is not None),
        num_crowd=int(is_crowd[kept].sum()),
        num_difficult=int((_column(features, "difficult", count)[kept] > 0).sum()),
        num_masks=0 if problem or not features.get(f"{OBJECT}/mask") else count,
        digest=hashlib.sha256(encoded).digest(),
    )


def _encoded_image(features: Features) -> bytes:
    encoded = features.get("image/encoded") or [b""]
    if not encoded[0]:
        raise UnusableRecord(DataIssue.KEY_MISSING, "image/encoded")
    return encoded[0]


def _column(features: Features, key: str, count: int) -> np.ndarray:
    """Returns the numbers of the objects, [count]; zeros if the list has another length, as in decode."""
    values = features.get(f"{OBJECT}/{key}", [])
    return np.array(values) if len(values) == count else np.zeros(count)


def _objects(features: Features) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Returns the boxes float64 [N, 4], and a text (or "") and a label (or 0) for each."""
    columns = {side: features.get(f"{OBJECT}/bbox/{side}", []) for side in SIDES}
    texts, labels = features.get(f"{OBJECT}/class/text", []), features.get(f"{OBJECT}/class/label", [])
    count = max(map(len, columns.values()))
    if any(len(values) != count for values in columns.values()):
        lengths = ", ".join(f"{side} {len(values)}" for side, values in columns.items())
        issue = DataIssue.LENGTHS_DIFFER if all(columns.values()) else DataIssue.KEY_MISSING
        raise UnusableRecord(issue, f"{OBJECT}/bbox: {lengths}")
    if max(len(texts), len(labels)) != count:
        issue = DataIssue.LENGTHS_DIFFER if texts or labels else DataIssue.KEY_MISSING
        raise UnusableRecord(issue, f"{count} boxes, class/text {len(texts)}, class/label {len(labels)}")
    boxes = np.array(list(columns.values()), np.float64).T.reshape(-1, 4)
    shown = [text.decode("utf-8", "replace") for text in texts]
    return boxes, shown if len(shown) == count else [""] * count, _column(features, "class/label", count)


def _check_image(encoded: bytes, features: Features, report: _Report) -> tuple[int, int]:
    """Reports what is unusual about the image; returns its (height, width)."""
    image, flaws = images.decode_image(encoded, "")
    for issue, detail in flaws:
        kind = issue.text.partition(";")[0]
        report(DataIssue.IMAGE_UNUSUAL, f"{kind}: {detail}" if detail else kind)
    height, width = ((features.get(f"image/{side}") or [0])[0] for side in ("height", "width"))
    if height and width and (height, width) != (image.height, image.width):
        report(DataIssue.SIZE_WRONG, f"stated {width} x {height}, is {image.width} x {image.height}")
    return image.height, image.width


def _usable_boxes(boxes: np.ndarray, low: np.ndarray, high: np.ndarray, report: _Report) -> np.ndarray:
    """Returns bool [N] of the boxes that training keeps; reports the others and those that it repairs."""
    finite = np.isfinite(boxes).all(axis=1)
    flat = finite & (low == high).any(axis=1)
    outside = finite & ~flat & ((low >= 1.0) | (high <= 0.0)).any(axis=1)
    usable = finite & ~flat & ~outside
    found = {
        DataIssue.BOX_NOT_FINITE: ~finite,
        DataIssue.BOX_WITHOUT_AREA: flat,
        DataIssue.BOX_OUTSIDE: outside,
        DataIssue.BOX_INVERTED: usable & (boxes[:, :2] > boxes[:, 2:]).any(axis=1),
        DataIssue.BOX_CLIPPED: usable & ((low < -CLIP_TOLERANCE) | (high > 1.0 + CLIP_TOLERANCE)).any(axis=1),
    }
    for issue, concerned in found.items():
        for box in boxes[concerned]:
            report(issue, shown_box(box))
    return usable


def _class_name(text: str, label: int, label_map: LabelMap | None, report: _Report) -> str | None:
    """Returns the name of an object's class as training looks it up; None, and a report, if it is unknown."""
    if label_map is None:
        known = bool(text) or KEYS[f"{OBJECT}/class/label"].accepts(label)
        name = text or f"id {label}"
    else:
        class_id = label_map.id_by_any_name.get(text, 0) if text else label
        name = label_map.names.get(class_id, "")
        known = class_id in label_map.names
        if known and text and label and label != class_id:
            report(DataIssue.LABEL_CONTRADICTS, f"{text} is {class_id}, label is {label}")
    if known:
        return name
    report(DataIssue.CLASS_NOT_IN_LABEL_MAP if text else DataIssue.CLASS_WITHOUT_NAME, text or f"label {label}")
    return None


def _mask_problem(masks: Sequence, count: int, size: tuple[int, int]) -> str:
    """Returns why the masks do not fit image or objects; "" if they do or if there are none."""
    if not masks:
        return ""
    if not isinstance(masks[0], bytes):
        expected = count * size[0] * size[1]
        return "" if len(masks) == expected else f"{len(masks)} numbers for {count} masks of {size[1]} x {size[0]}"
    if len(masks) != count:
        return f"{len(masks)} masks for {count} objects"
    for mask in filter(None, masks):
        try:
            picture = images.open_header(mask)
        except Exception as error:  # Pillow raises many kinds
            return str(error)
        if (picture.height, picture.width) != size:
            return f"mask of {picture.width} x {picture.height} for an image of {size[1]} x {size[0]}"
    return ""


def _text(values: list | None) -> str:
    return values[0].decode("utf-8", "replace") if values and isinstance(values[0], bytes) else ""
