"""One serialized record -> what training will take from it, and what it will repair, skip or ignore.

The rules are those of ``decode``, in plain Python and with a reason for each: this is what ``inspect`` reports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.config.label_map import LabelMap
from detzoo.data.decode import CLIP_TOLERANCE, LIST_TYPES, MAX_CLASS_ID, MAX_WEIGHT, SCALAR_TYPES
from detzoo.files import images
from detzoo.files.issues import DataIssue, Finding

NEEDED_SIDES = ("ymin", "xmin", "ymax", "xmax")
OPTIONAL_KEYS = ("image/source_id", "image/height", "image/width")
OBJECT = "image/object"
KIND_OF_TYPE = {tf.string: "bytes_list", tf.float32: "float_list", tf.int64: "int64_list"}
EXPECTED_KINDS = {key: KIND_OF_TYPE[dtype] for key, dtype in (SCALAR_TYPES | LIST_TYPES).items()}


class CheckedRecord(NamedTuple):
    """What is left of a record. ``usable`` is false where training will drop the whole record."""

    usable: bool
    findings: list[Finding]
    name: str = ""
    size: tuple[int, int] = (0, 0)  # (height, width) of the decoded image
    boxes_norm: np.ndarray = np.zeros((0, 4))  # [N, 4] of ymin, xmin, ymax, xmax; clipped to the image
    class_names: tuple[str, ...] = ()  # N names
    num_crowd: int = 0
    num_difficult: int = 0
    num_masks: int = 0
    digest: bytes = b""  # of the encoded image


class UnusableRecord(Exception):
    """The record will be dropped; carries the finding's kind and detail."""

    def __init__(self, issue: DataIssue, detail: str = "") -> None:
        super().__init__(detail)
        self.issue, self.detail = issue, detail


def check_record(serialized: bytes, where: str, label_map: LabelMap | None) -> CheckedRecord:
    """Checks one record.

    Args:
        serialized: a tf.Example.
        where: file and number of the record, for the findings.
        label_map: that of the training, or None to take every class for known.
    """
    try:
        features = parse_features(serialized)
        return _check_features(features, where, label_map)
    except UnusableRecord as reason:
        return CheckedRecord(False, [Finding(reason.issue, where, reason.detail)])


def parse_features(serialized: bytes) -> dict[str, list]:
    """Key -> list of values of a tf.Example.

    Raises:
        UnusableRecord: it is empty, not a tf.Example, or has a key of another type than training reads.
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
        expected = EXPECTED_KINDS.get(key)
        if kind and expected and kind != expected:
            raise UnusableRecord(DataIssue.KEY_TYPE, f"{key} is {kind}; {expected} is read")
        if kind and key in SCALAR_TYPES and len(features[key]) != 1:
            raise UnusableRecord(DataIssue.KEY_TYPE, f"{key} has {len(features[key])} values; 1 is read")
    if not features:
        raise UnusableRecord(DataIssue.RECORD_EMPTY, "no keys")
    return features


def image_of(features: Mapping[str, list]) -> np.ndarray:
    """The decoded image, uint8 [H, W, 3], as stored (no EXIF rotation).

    Raises:
        UnusableRecord: there is none.
        UnusableImage: it cannot be decoded.
    """
    image, _ = images.decode_image(_encoded_image(features), "")
    return np.asarray(images.to_rgb(image))


def masks_of(features: Mapping[str, list]) -> list[np.ndarray] | None:
    """The masks where they are PNG images, [H, W] of 0 and 1 each; None where there are none or they are broken."""
    encoded = features.get(f"{OBJECT}/mask", [])
    if not encoded or not isinstance(encoded[0], bytes):
        return None
    try:
        return [np.asarray(images.open_header(mask).convert("L")) > 0 for mask in encoded]
    except Exception:  # whatever Pillow stumbles over; check_record has reported it
        return None


def _check_features(features: Mapping[str, list], where: str, label_map: LabelMap | None) -> CheckedRecord:
    name = _text(features.get("image/filename")) or _text(features.get("image/source_id")) or where
    encoded = _encoded_image(features)
    boxes, texts, labels = _objects(features)
    size, findings = _check_image(encoded, features, where)
    for key in OPTIONAL_KEYS:
        if not features.get(key):
            findings.append(Finding(DataIssue.KEY_ABSENT, where, key))
    kept = [
        index
        for index, box in enumerate(boxes)
        if _keep_box(box, where, findings) and _is_known(texts[index], labels[index], label_map, where, findings)
    ]
    _check_numbers(features, len(boxes), kept, where, findings)
    if not len(boxes):
        findings.append(Finding(DataIssue.NO_BOXES, where))
    num_masks = _check_masks(features, len(boxes), size, where, findings)
    # As in decode, a group of Open Images is a crowd.
    is_crowd = _flags(features, "is_crowd", len(boxes)) | _flags(features, "group_of", len(boxes))
    is_difficult = _flags(features, "difficult", len(boxes))
    low = np.minimum(boxes[:, :2], boxes[:, 2:])
    high = np.maximum(boxes[:, :2], boxes[:, 2:])
    cleaned = np.clip(np.concatenate([low, high], axis=1)[kept], 0.0, 1.0)
    names = tuple(class_name(texts[index], labels[index], label_map) for index in kept)
    digest = hashlib.sha256(encoded).digest()
    num_crowd, num_difficult = int(is_crowd[kept].sum()), int(is_difficult[kept].sum())
    return CheckedRecord(True, findings, name, size, cleaned, names, num_crowd, num_difficult, num_masks, digest)


def _flags(features: Mapping[str, list], key: str, count: int) -> np.ndarray:
    """bool [count]; a list of another length counts as absent, as in decode."""
    values = features.get(f"{OBJECT}/{key}", [])
    return np.array(values, np.int64) > 0 if len(values) == count else np.zeros(count, bool)


def class_name(text: str, label: int, label_map: LabelMap | None) -> str:
    """The name that an object counts under."""
    if label_map is None:
        return text or f"id {label}"
    class_id = _class_id(text, label, label_map)
    return label_map.names[class_id] if class_id is not None else text or f"id {label}"


def _class_id(text: str, label: int, label_map: LabelMap) -> int | None:
    """As training looks it up: by name, by display name, and by id where there is no text."""
    if not text:
        return label if label in label_map.names else None
    by_display_name = {name: class_id for class_id, name in label_map.display_names.items()}
    return label_map.id_by_name.get(text, by_display_name.get(text))


def _encoded_image(features: Mapping[str, list]) -> bytes:
    encoded = features.get("image/encoded") or [b""]
    if not encoded[0]:
        raise UnusableRecord(DataIssue.KEY_MISSING, "image/encoded")
    return encoded[0]


def _objects(features: Mapping[str, list]) -> tuple[np.ndarray, list[str], list[int]]:
    """Boxes [N, 4], and a text (or "") and a label (or 0) for each."""
    columns = {side: features.get(f"{OBJECT}/bbox/{side}", []) for side in NEEDED_SIDES}
    texts, labels = features.get(f"{OBJECT}/class/text", []), features.get(f"{OBJECT}/class/label", [])
    count = max(map(len, columns.values()))
    missing = [side for side, values in columns.items() if len(values) != count]
    if missing:
        lengths = ", ".join(f"{side} {len(values)}" for side, values in columns.items())
        issue = DataIssue.LENGTHS_DIFFER if all(columns.values()) else DataIssue.KEY_MISSING
        raise UnusableRecord(issue, f"{OBJECT}/bbox: {lengths}")
    if max(len(texts), len(labels)) != count:
        issue = DataIssue.LENGTHS_DIFFER if texts or labels else DataIssue.KEY_MISSING
        raise UnusableRecord(issue, f"{count} boxes, class/text {len(texts)}, class/label {len(labels)}")
    boxes = np.array([columns[side] for side in NEEDED_SIDES], np.float64).T.reshape(-1, 4)
    shown = [text.decode("utf-8", "replace") for text in texts]
    numbers = [int(label) for label in labels]
    return boxes, shown if len(shown) == count else [""] * count, numbers if len(numbers) == count else [0] * count


def _check_image(encoded: bytes, features: Mapping[str, list], where: str) -> tuple[tuple[int, int], list[Finding]]:
    """(height, width) and what is unusual about the image."""
    try:
        image, flaws = images.decode_image(encoded, "")
    except images.UnusableImage as error:
        raise UnusableRecord(error.issue, error.detail) from None
    findings = []
    for issue, detail in flaws:
        kind = issue.text.partition(";")[0]
        findings.append(Finding(DataIssue.IMAGE_UNUSUAL, where, f"{kind}: {detail}" if detail else kind))
    stored = image.height, image.width
    stated = [(features.get(f"image/{side}") or [0])[0] for side in ("height", "width")]
    if all(stated) and tuple(stated) != stored:
        seen = f"stated {stated[1]} x {stated[0]}, is {stored[1]} x {stored[0]}"
        findings.append(Finding(DataIssue.SIZE_WRONG, where, seen))
    return stored, findings


def _keep_box(box: np.ndarray, where: str, findings: list[Finding]) -> bool:
    shown = "ymin {:g}, xmin {:g}, ymax {:g}, xmax {:g}".format(*box)
    if not np.isfinite(box).all():
        findings.append(Finding(DataIssue.BOX_NOT_FINITE, where, shown))
        return False
    low, high = np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])
    if (low == high).any():
        findings.append(Finding(DataIssue.BOX_WITHOUT_AREA, where, shown))
        return False
    if (low >= 1.0).any() or (high <= 0.0).any():
        findings.append(Finding(DataIssue.BOX_OUTSIDE, where, shown))
        return False
    if (box[:2] > box[2:]).any():
        findings.append(Finding(DataIssue.BOX_INVERTED, where, shown))
    if low.min() < -CLIP_TOLERANCE or high.max() > 1.0 + CLIP_TOLERANCE:
        findings.append(Finding(DataIssue.BOX_CLIPPED, where, shown))
    return True


def _check_numbers(
    features: Mapping[str, list], count: int, kept: Sequence[int], where: str, findings: list[Finding]
) -> None:
    """Finds weights and areas that training replaces; a list of another length counts as absent, as in decode."""
    limits = {"weight": (MAX_WEIGHT, DataIssue.WEIGHT_WRONG), "area": (np.finfo(np.float32).max, DataIssue.AREA_WRONG)}
    for key, (limit, issue) in limits.items():
        values = features.get(f"{OBJECT}/{key}", [])
        wrong = [values[row] for row in kept if not 0.0 <= values[row] <= limit] if len(values) == count else []
        findings.extend(Finding(issue, where, f"{key} {value:g}") for value in wrong)


def _is_known(text: str, label: int, label_map: LabelMap | None, where: str, findings: list[Finding]) -> bool:
    if label_map is None:
        known = bool(text) or 1 <= label <= MAX_CLASS_ID
        if not known:
            findings.append(Finding(DataIssue.CLASS_WITHOUT_NAME, where, f"label {label}"))
        return known
    class_id = _class_id(text, label, label_map)
    if class_id is None:
        issue = DataIssue.CLASS_NOT_IN_LABEL_MAP if text else DataIssue.CLASS_WITHOUT_NAME
        findings.append(Finding(issue, where, text or f"label {label}"))
        return False
    if text and label and label != class_id:
        findings.append(Finding(DataIssue.LABEL_CONTRADICTS, where, f"{text} is {class_id}, label is {label}"))
    return True


def _check_masks(
    features: Mapping[str, list], count: int, size: tuple[int, int], where: str, findings: list[Finding]
) -> int:
    """How many objects have a mask."""
    masks = features.get(f"{OBJECT}/mask", [])
    if not masks:
        return 0
    problem = _mask_problem(masks, count, size)
    if problem:
        findings.append(Finding(DataIssue.MASK_UNUSABLE, where, problem))
        return 0
    return count


def _mask_problem(masks: Sequence, count: int, size: tuple[int, int]) -> str:
    if not isinstance(masks[0], bytes):
        wanted = count * size[0] * size[1]
        return "" if len(masks) == wanted else f"{len(masks)} numbers for {count} masks of {size[1]} x {size[0]}"
    if len(masks) != count:
        return f"{len(masks)} masks for {count} objects"
    for mask in masks:
        if not mask:
            continue
        try:
            picture = images.open_header(mask)
        except Exception as error:  # whatever Pillow stumbles over
            return str(error)
        if (picture.height, picture.width) != size:
            return f"mask of {picture.width} x {picture.height} for an image of {size[1]} x {size[0]}"
    return ""


def _text(values: list | None) -> str:
    return values[0].decode("utf-8", "replace") if values and isinstance(values[0], bytes) else ""
