"""Layouts of YOLO lines: boxes, keypoints, oriented boxes, outlines, confidences."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.datasets.yolo_lines import YoloLine, layouts_of, object_of
from detzoo.errors import DataError
from detzoo.files.issues import DataIssue, IssueLog

BOX = "0.5 0.5 0.25 0.5"  # y 0.25..0.75, x 0.375..0.625
RECTANGLE = "0.3 0.3 0.7 0.3 0.7 0.6 0.3 0.6"
SQUARE_POSE = "0.40 0.30 0.60 0.30 0.45 0.70 0.55 0.70"


def read(*texts, keypoints=None, from_yaml=False):
    lines = [YoloLine(f"a.txt:{i}", "cat", [float(word) for word in text.split()]) for i, text in enumerate(texts, 1)]
    log = IssueLog()
    layouts = layouts_of(lines, keypoints, from_yaml)
    return [object_of(line, layouts, log) for line in lines], log


@pytest.mark.parametrize(
    ("text", "options", "box", "issue"),
    [
        (BOX, {}, (0.25, 0.375, 0.75, 0.625), None),
        (BOX + " 0.91", {}, (0.25, 0.375, 0.75, 0.625), DataIssue.CONFIDENCE),
        (RECTANGLE, {}, (0.3, 0.3, 0.6, 0.7), DataIssue.ORIENTED_BOX),
        (RECTANGLE + " 0.5", {}, (0.3, 0.3, 0.6, 0.7), DataIssue.ORIENTED_BOX),
        (f"{BOX} {SQUARE_POSE}", {}, (0.25, 0.375, 0.75, 0.625), DataIssue.KEYPOINTS),
        (f"{BOX} {SQUARE_POSE}", {"keypoints": (4, 2)}, (0.25, 0.375, 0.75, 0.625), DataIssue.KEYPOINTS),
        (f"{BOX} {SQUARE_POSE} 0.9", {"keypoints": (4, 2)}, (0.25, 0.375, 0.75, 0.625), DataIssue.KEYPOINTS),
        (f"{BOX} 0.4 0.3 2 0.6 0.3 0 0.5 0.7 1", {}, (0.25, 0.375, 0.75, 0.625), DataIssue.KEYPOINTS),
        (f"{BOX} 0.4 0.3 2 0.6 0.3 0 0.5 0.7 1 0.9", {}, (0.25, 0.375, 0.75, 0.625), DataIssue.KEYPOINTS),
        # A predicted pose has confidences in place of visibilities.
        (f"{BOX} 0.4 0.3 0.98 0.6 0.3 0.4 0.5 0.7 0.99", {}, (0.25, 0.375, 0.75, 0.625), DataIssue.KEYPOINTS),
        # Keypoints that are not seen lie at 0, 0.
        (f"{BOX} 0.4 0.3 0 0 0.5 0.7", {}, (0.25, 0.375, 0.75, 0.625), DataIssue.KEYPOINTS),
        ("0.9 0.9 0.1 0.1 0.86 0.86 0.9 0.9 0.94 0.94 0.87 0.93", {}, (0.85, 0.85, 0.95, 0.95), DataIssue.KEYPOINTS),
    ],
)  # fmt: skip
def test_a_line_is_read_by_its_layout(text, options, box, issue):
    (item,), log = read(text, **options)
    np.testing.assert_allclose(item.box, box, atol=1e-9)
    assert item.mask is None
    assert issue is None or log.counts()[issue] == 1


@pytest.mark.parametrize(
    "texts",
    [
        ["0.1 0.1 0.5 0.1 0.5 0.5"],
        ["0.5 0.1 0.9 0.5 0.5 0.9 0.1 0.5 0.3 0.2"],
        [RECTANGLE, "0.1 0.1 0.5 0.1 0.5 0.5"],
        ["0.40 0.40 0.44 0.40 0.46 0.43 0.44 0.46 0.41 0.45"],
        ["0.1 0.1 0.5 0.1 0.5 0.5 0.87", "0.1 0.1 0.5 0.1 0.5 0.5 0.3 0.4 0.9"],
    ],
)
def test_outlines(texts):
    items, _ = read(*texts)
    assert all(item.mask is not None for item in items)


def test_small_outlines_are_not_taken_for_poses():
    # Polygons of ten points, of 2 to 40 % of the image, wherever they lie: a data set has one layout.
    random = np.random.default_rng(0)
    angles = np.arange(10) / 10 * 2 * np.pi
    texts = []
    for _ in range(60):
        radius = random.uniform(0.01, 0.2)
        centre = random.uniform(radius, 1 - radius, 2)
        points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1) * random.uniform(0.7, 1, (10, 1))
        texts.append(" ".join(f"{value:.4f}" for value in points.ravel()))
    assert all(item.mask is not None for item in read(*texts)[0])
    # One polygon alone may have either meaning; it is an outline, or an error that asks, but never a box of others.
    for text in texts:
        values = [float(word) for word in text.split()]
        try:
            (item,), _ = read(text)
        except DataError:
            continue
        np.testing.assert_allclose(item.box, (min(values[1::2]), min(values[::2]), max(values[1::2]), max(values[::2])))


def test_random_poses_are_not_taken_for_outlines():
    random = np.random.default_rng(1)
    texts = []
    for _ in range(60):
        size = random.uniform(0.05, 0.6, 2)
        centre = random.uniform(size / 2, 1 - size / 2)
        points = centre + size * random.uniform(-0.5, 0.5, (7, 2))
        texts.append(" ".join(f"{value:.4f}" for value in (*centre, *size, *points.ravel())))
    items, log = read(*texts)
    assert all(item.mask is None for item in items)
    assert log.counts() == {DataIssue.KEYPOINTS: 60}


def test_what_may_be_either_asks_for_a_data_yaml():
    # A box with four keypoints on an arc around its centre, or an outline with one corner drawn in.
    either = "0.5 0.5 0.45 0.5 0.40 0.30 0.60 0.30 0.60 0.70 0.45 0.70"
    with pytest.raises(DataError, match=r"a\.txt:1: lines of 12 numbers .*may be outlines, or boxes with keypoints"):
        read(either)
    assert read(either, from_yaml=True)[0][0].mask is not None
    assert read(either, keypoints=(4, 2))[0][0].mask is None


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("0.5 0.5 0.1", {}, "3 numbers behind the class"),
        (BOX + " 0.1 0.2", {"keypoints": (3, 2)}, "6 numbers behind the class"),
        ("32 24 10 10", {}, "32 is no fraction"),
        ("10 10 30 10 30 30", {}, "30 is no fraction"),
    ],
)
def test_what_is_no_layout_is_skipped_and_named(text, options, message):
    items, log = read(text, **options)
    assert items == [None]
    ((issue, where, detail),) = log.findings()
    assert (issue, where) == (DataIssue.ANNOTATION_UNREADABLE, "a.txt:1")
    assert message in detail
