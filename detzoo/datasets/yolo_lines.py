"""Lines of YOLO label files -> boxes and outlines, by the layout that all lines of a data set share.

The numbers behind the class are ``centre_x centre_y width height``, these and keypoints (pose), the corners of an
oriented box, or the points of an outline, in fractions of the image. A further number is a confidence. Only
``kpt_shape`` of a data.yaml states the layout. Without it, geometry decides over all lines of one length.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detzoo.datasets.annotations import AnnotatedObject, box_of_polygons, mask_from_polygons
from detzoo.errors import DataError
from detzoo.files.issues import DataIssue, IssueLog

BOX_NUMBERS = 4
CORNER_NUMBERS = 8
MAX_COORDINATE = 2.0  # beyond it the numbers are no fractions of the image
MAX_CROSSING_ROWS = 200  # lines whose edges are compared
TOLERANCE = 0.02  # by which keypoints leave their box, and boxes the image
BOX, POSE, OUTLINE, ORIENTED = "box", "pose", "outline", "oriented"


class YoloLine(NamedTuple):
    """One object: its file and line, class name, and the numbers behind the class."""

    where: str
    class_name: str
    values: list[float]


def layouts_of(lines: Sequence[YoloLine], keypoints: tuple[int, int] | None, from_yaml: bool) -> dict[int, str]:
    """Returns the layout of lines by their count of numbers, a confidence included.

    Args:
        lines: All lines of the data set.
        keypoints: ``kpt_shape``, (keypoints, numbers per keypoint), or None.
        from_yaml: A data.yaml is given, so that without ``kpt_shape`` there are no keypoints.

    Raises:
        DataError: The lines of one length may be outlines or poses.
    """
    by_count: dict[int, list[list[float]]] = {}
    for line in lines:
        by_count.setdefault(len(line.values), []).append(line.values)
    layouts = {count: BOX for count in by_count if count in (BOX_NUMBERS, BOX_NUMBERS + 1)}
    if keypoints is not None:
        pose = BOX_NUMBERS + keypoints[0] * keypoints[1]
        return layouts | {count: POSE for count in by_count if count in (pose, pose + 1)}
    others = sorted(count for count in by_count if count >= 6)
    are_equal = len({count - count % 2 for count in others}) == 1  # outlines of real objects differ in length
    for count in others:
        rows = np.array(by_count[count])
        if _are_triples(rows, are_equal):
            layouts[count] = POSE
        elif are_equal:
            layouts[count] = _outline_or_pose(rows[:, : count - count % 2], from_yaml, lines)
        else:
            layouts[count] = OUTLINE
    return layouts


def _are_triples(rows: np.ndarray, are_equal: bool) -> bool:
    """Returns True for keypoints of x, y and a visibility: 0, 1, 2, or a confidence in predicted lines."""
    count = rows.shape[1]
    keypoints = rows[:, BOX_NUMBERS : count - (count - BOX_NUMBERS) % 3]
    if count % 3 == 0 or not (np.isin(keypoints[:, 2::3], (0, 1, 2)).all() or (are_equal and count % 2)):
        return False
    return bool(_are_in_boxes(rows[:, :BOX_NUMBERS], keypoints, 3).mean() > 0.8)


def _outline_or_pose(rows: np.ndarray, from_yaml: bool, lines: Sequence[YoloLine]) -> str:
    """Returns the layout of rows of one even count.

    A pose has its keypoints in its box. An outline has its second point near the others, its edges do not cross, and
    its first point lies at the border of the others.
    """
    outline = ORIENTED if rows.shape[1] == CORNER_NUMBERS else OUTLINE
    if _are_in_boxes(rows[:, :BOX_NUMBERS], rows[:, BOX_NUMBERS:], 2).mean() < 0.8:
        return outline
    points = rows.reshape(len(rows), -1, 2)
    others = np.delete(points, 1, axis=1)
    low, high = others.min(axis=1), others.max(axis=1)
    reach = (high - low).max(axis=1, keepdims=True)
    is_near = ((points[:, 1] >= low - reach) & (points[:, 1] <= high + reach)).all(axis=1)
    if is_near.mean() < 0.5 or np.mean([_has_crossing(row) for row in points[:MAX_CROSSING_ROWS]]) > 0.2:
        return POSE
    low, high = points[:, 2:].min(axis=1), points[:, 2:].max(axis=1)
    margin = (high - low) / 5
    is_among = ((points[:, 0] > low + margin) & (points[:, 0] < high - margin)).all(axis=1)
    if is_among.mean() < 0.5 or from_yaml:
        return outline
    raise DataError(
        f"{lines[0].where}: lines of {rows.shape[1]} numbers behind the class may be outlines, or boxes with keypoints;"
        " give a data.yaml as --class_names: with `kpt_shape: [keypoints, 2 or 3]` they are keypoints, else outlines"
    )


def _has_crossing(points: np.ndarray) -> bool:
    """Returns True if two edges of a closed polygon [points, 2] cross; edges that only touch do not."""
    edges = np.roll(points, -1, axis=0) - points
    to_points = points[None] - points[:, None]
    sides = edges[:, None, 0] * to_points[..., 1] - edges[:, None, 1] * to_points[..., 0]  # of point j at edge i
    divides = sides * np.roll(sides, -1, axis=1) < -1e-12
    return bool((divides & divides.T).any())


def _are_in_boxes(boxes: np.ndarray, keypoints: np.ndarray, step: int) -> np.ndarray:
    """Returns bool [rows]: the box (centre, size) is in the image, and all keypoints but those at 0, 0 in the box."""
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    points = keypoints[:, : keypoints.shape[1] // step * step].reshape(len(boxes), -1, step)[..., :2]
    inside = (points >= low[:, None] - TOLERANCE) & (points <= high[:, None] + TOLERANCE)
    return (
        (low >= -TOLERANCE).all(axis=1)
        & (high <= 1 + TOLERANCE).all(axis=1)
        & (inside.all(axis=2) | (points == 0).all(axis=2)).all(axis=1)
    )


def object_of(line: YoloLine, layouts: dict[int, str], log: IssueLog) -> AnnotatedObject | None:
    """Returns the object of a line; None, with an entry in the log, if the line cannot be read."""
    where, name, values = line
    layout = layouts.get(len(values))
    if layout is None:
        detail = f"{len(values)} numbers behind the class; accepted are 4, pairs of 6 or more, or those of kpt_shape"
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, detail)
        return None
    used = values if layout in (OUTLINE, ORIENTED) else values[:BOX_NUMBERS]
    if layout is not POSE and len(values) % 2:
        log.add(DataIssue.CONFIDENCE, where, f"{values[-1]:g}")
        used = used[: len(values) - 1]
    if max(map(abs, used)) > MAX_COORDINATE and np.isfinite(used).all():
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, f"{max(used, key=abs):g} is no fraction of the image")
        return None
    if layout in (BOX, POSE):
        if layout is POSE:
            log.add(DataIssue.KEYPOINTS, where)
        x, y, width, height = used
        return AnnotatedObject((y - height / 2, x - width / 2, y + height / 2, x + width / 2), name, where)
    box = box_of_polygons([used]) if np.isfinite(used).all() else (float("nan"),) * 4
    if layout is ORIENTED:
        log.add(DataIssue.ORIENTED_BOX, where)
        return AnnotatedObject(box, name, where)
    return AnnotatedObject(box, name, where, mask=functools.partial(_draw_outline, tuple(used)))


def _draw_outline(outline: tuple[float, ...], height: int, width: int) -> np.ndarray:
    points = np.clip(np.reshape(outline, (-1, 2)), 0.0, 1.0) * (width, height)
    return mask_from_polygons([points.ravel().tolist()], height, width)
