"""Data sets with fractions for pixels, and with width and height in place of the maximum."""

from __future__ import annotations

import pathlib

import pytest

from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject
from detzoo.datasets.box_units import settle_box_units
from detzoo.files.issues import DataIssue, IssueLog

NAN = float("nan")


def settle(*boxes, size=(48, 64)):
    objects = tuple(AnnotatedObject(box, "cat", f"box {index}") for index, box in enumerate(boxes))
    image = AnnotatedImage(pathlib.Path("a.png"), "a.png", "a.png", objects, declared_size=size)
    log = IssueLog()
    (settled,) = settle_box_units([image], log)
    return [item.box for item in settled.objects], settled.boxes_are_normalized, [tuple(f) for f in log.findings()]


def test_boxes_that_all_lie_within_0_to_1_are_fractions():
    boxes = [(0.1, 0.2, 0.5, 1.001), (NAN, 0, 1, 1)]
    assert settle(*boxes)[1:] == (True, [(DataIssue.FRACTIONS, "box 0", "1 boxes")])
    assert settle(*boxes, (0, 0, 1, 1.5))[1:] == (False, [])
    assert settle() == ([], False, [])


# In 48 x 64: (30, 30) to (15, 20) has its corners exchanged, or is 15 high and 20 wide.
EITHER = (30.0, 30.0, 15.0, 20.0)


def test_one_box_that_may_have_exchanged_corners_or_a_size_is_refused():
    boxes, _, findings = settle((5.0, 5.0, 20.0, 20.0), EITHER)
    assert boxes == [(5, 5, 20, 20)]
    assert findings == [(DataIssue.CORNER_OR_SIZE, "box 1", "ymin 30, xmin 30, ymax 15, xmax 20")]


@pytest.mark.parametrize("size", [(48, 64), None])
def test_a_box_that_cannot_have_a_size_shows_that_corners_are_meant(size):
    # 40 + 45 > 64: the other box has corners, so this data set does.
    boxes = [EITHER, (10.0, 40.0, 30.0, 45.0)]
    assert settle(*boxes, size=size) == (boxes, False, [])


def test_a_data_set_of_sizes_is_read_as_such():
    boxes, _, findings = settle(EITHER, EITHER, EITHER, (5.0, 5.0, 20.0, 20.0))
    # ymin 30 + height 15, xmin 30 + width 20; 5 + 20.
    assert boxes == [(30, 30, 45, 50)] * 3 + [(5, 5, 25, 25)]
    assert findings == [(DataIssue.SIZE_FOR_CORNER, "box 0", "4 boxes")]
