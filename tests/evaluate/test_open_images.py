"""Open Images' average precision, worked by hand: groups, classes that nobody verified, and what Pascal VOC shares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.open_images import evaluate_open_images
from detzoo.evaluate.pascal_voc import evaluate_voc

NAMES = {1: "cat"}
GROUP = [0.0, 0.0, 40.0, 50.0]
IN_GROUP = [10.0, 10.0, 30.0, 20.0]  # 20 x 10, all of it in the group; IoU 200 / 2000
HALF_IN_GROUP = [30.0, 0.0, 50.0, 10.0]  # 100 of its 200 in the group
LESS_IN_GROUP = [31.0, 0.0, 51.0, 10.0]  # 90 of 200
OBJECT = [60.0, 60.0, 80.0, 90.0]
NOTHING = [90.0, 0.0, 99.0, 9.0]


def image(gt, detections, groups=(), classes=None, found_classes=None, verified=None, difficult=()):
    boxes = np.array(gt, np.float32).reshape(-1, 4)
    rows = np.arange(len(gt))
    return EvaluatedImage(
        "1",
        (100, 100),
        boxes,
        np.zeros(len(gt), np.int32) if classes is None else np.array(classes, np.int32),
        np.isin(rows, list(groups)),
        np.isin(rows, list(difficult)),
        np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1),
        np.array([d[0] for d in detections], np.float32).reshape(-1, 4),
        np.array([d[1] for d in detections], np.float32),
        np.zeros(len(detections), np.int32) if found_classes is None else np.array(found_classes, np.int32),
        verified_classes=None if verified is None else np.array(verified, np.int64),
    )


def version_2(*images, names=NAMES):
    return evaluate_open_images(images, names).mean_average_precision


def challenge(*images, names=NAMES):
    return evaluate_open_images(images, names, challenge=True).mean_average_precision


def test_detections_in_a_group_do_not_count_or_find_one_object():
    # Two detections in the group, then one of the object. In V2 only the object's detection counts, so AP is 1.
    # In the challenge there are two objects. The best detection (.9) finds the group, and the other one is ignored, so
    # AP is 1 as well.
    found = image([GROUP, OBJECT], [(IN_GROUP, 0.9), (HALF_IN_GROUP, 0.8), (OBJECT, 0.7)], groups=[0])
    assert version_2(found) == pytest.approx(1.0)
    assert challenge(found) == pytest.approx(1.0)
    # Pascal VOC compares with the union: .1 and 100 / 2100 are no hits, so that two wrong ones come first: 1/3.
    assert evaluate_voc([found], NAMES).mean_average_precision == pytest.approx(1 / 3)


def test_a_group_that_nothing_finds_is_missed_in_the_challenge_only():
    # Recall 1/2 at precision 1, then no more.
    missed = image([GROUP, OBJECT], [(OBJECT, 0.7)], groups=[0])
    assert version_2(missed) == pytest.approx(1.0)
    assert challenge(missed) == pytest.approx(0.5)


def test_less_than_half_in_the_group_is_wrong():
    # Wrong (.9), right (.8): precision 1/2 at recall 1. Challenge: at recall 1/2 of two objects.
    outside = image([GROUP, OBJECT], [(LESS_IN_GROUP, 0.9), (OBJECT, 0.8)], groups=[0])
    assert version_2(outside) == pytest.approx(0.5)
    assert challenge(outside) == pytest.approx(0.25)


def test_the_score_of_a_group_is_that_of_its_best_detection():
    # The ranking is wrong .85, group .8, object .7. Precision is 0, 1/2, 2/3. Its envelope is 2/3, and so is the area.
    # V2: wrong, right of one object: 1/2.
    ranked = image([GROUP, OBJECT], [(NOTHING, 0.85), (IN_GROUP, 0.8), (IN_GROUP, 0.75), (OBJECT, 0.7)], groups=[0])
    assert challenge(ranked) == pytest.approx(2 / 3)
    assert version_2(ranked) == pytest.approx(0.5)


def test_a_second_detection_of_an_object_may_lie_in_a_group():
    # The group covers the object: the second detection falls to the group instead of being wrong.
    around = [50.0, 50.0, 90.0, 99.0]
    twice = image([OBJECT, around], [(OBJECT, 0.9), (OBJECT, 0.8), (NOTHING, 0.1)], groups=[1])
    assert version_2(twice) == pytest.approx(1.0)
    assert challenge(twice) == pytest.approx(1.0)
    assert version_2(image([OBJECT], [(NOTHING, 0.9), (OBJECT, 0.8), (OBJECT, 0.7)])) == pytest.approx(0.5)


def test_an_object_is_matched_before_a_group():
    # The one detection covers both: it finds the object, and the group stays missed.
    both = image([GROUP, GROUP], [(GROUP, 0.9)], groups=[1])
    assert version_2(both) == pytest.approx(1.0)
    assert challenge(both) == pytest.approx(0.5)


def test_classes_that_nobody_verified_are_left_out_in_the_challenge_only():
    # Image 1 has a cat and says nothing of dogs; image 2 says that there is no dog, and none is in it.
    def of(verified_first, verified_second):
        first = image([OBJECT], [(OBJECT, 0.9), (NOTHING, 0.95)], found_classes=[0, 1], verified=verified_first)
        second = image([OBJECT], [(OBJECT, 0.8)], classes=[1], found_classes=[1], verified=verified_second)
        return first, second

    names = {1: "cat", 2: "dog"}
    # Dog: wrong .95, right .8 -> 1/2; cat 1.
    assert version_2(*of([], []), names=names) == pytest.approx(0.75)
    # Image 1 is not verified for dogs. Image 2 has the box of a dog, which verifies it.
    assert challenge(*of([], []), names=names) == pytest.approx(1.0)
    assert challenge(*of([0], [0]), names=names) == pytest.approx(1.0)
    # Image 1 is verified to have no dog. Without any information about labels, all classes count.
    assert challenge(*of([1], []), names=names) == pytest.approx(0.75)
    assert challenge(*of(None, None), names=names) == pytest.approx(0.75)


def test_difficult_objects_are_objects_and_empty_detections_nothing():
    empty = [60.0, 60.0, 60.0, 90.0]
    hard = image([OBJECT], [(empty, 0.9), (OBJECT, 0.8)], difficult=[0])
    assert version_2(hard) == pytest.approx(1.0)


def test_a_class_of_groups_only():
    only = image([GROUP], [(IN_GROUP, 0.9)], groups=[0])
    result = evaluate_open_images([only], NAMES)
    assert result.mean_average_precision == -1.0
    assert math.isnan(result.per_class["cat"])
    assert challenge(only) == pytest.approx(1.0)


def test_without_groups_it_is_pascal_voc():
    generator = np.random.default_rng(3)
    images = []
    for _ in range(30):
        corners = generator.uniform(0, 60, (3, 2))
        gt = np.concatenate([corners, corners + generator.uniform(10, 40, (3, 2))], -1)
        noise = gt + generator.normal(0, 4.0, gt.shape)
        wrong = gt + generator.uniform(20, 40, (3, 1))
        images.append(image(list(gt), list(zip([*noise, *wrong], generator.uniform(0, 1, 6), strict=True))))
    expected = evaluate_voc(images, NAMES).mean_average_precision
    assert 0.2 < expected < 0.95
    assert version_2(*images) == pytest.approx(expected)
    assert challenge(*images) == pytest.approx(expected)


def test_many_classes_and_images_as_image_by_image(monkeypatch):
    monkeypatch.setattr("detzoo.evaluate.grouped_boxes.PAIRS_AT_ONCE", 7)
    generator = np.random.default_rng(8)
    images = []
    for _ in range(25):
        corners = generator.uniform(0, 60, (6, 2))
        gt = np.concatenate([corners, corners + generator.uniform(10, 40, (6, 2))], -1)
        classes = generator.integers(0, 4, 6)
        rows = generator.integers(0, 6, 20)
        found = gt[rows] + generator.normal(0, 2.0, (20, 4))
        images.append(
            image(
                list(gt),
                list(zip(found, generator.uniform(0, 1, 20).round(1), strict=True)),
                groups=generator.integers(0, 6, 1),
                classes=classes,
                found_classes=np.where(generator.uniform(size=20) < 0.8, classes[rows], 4),
                difficult=generator.integers(0, 6, 1),
            )
        )
    names = {number: str(number) for number in range(1, 6)}
    for result, is_open_images in ((evaluate_voc(images, names), False), (evaluate_open_images(images, names), True)):
        for class_id, name in names.items():
            judged = [_judge(each, class_id - 1, is_open_images) for each in images]
            ranked = sorted((row for rows, _ in judged for row in rows), key=lambda row: -row[0])
            expected = _area([is_right for _, is_right in ranked], sum(count for _, count in judged))
            assert result.per_class[name] == pytest.approx(expected, nan_ok=True)
        assert 0.1 < result.mean_average_precision < 0.9


def _judge(each, class_index, is_open_images):
    """Returns (score, is right) of an image's detections that count, and the number of its objects."""
    ignored = each.gt_is_crowd | (each.gt_is_difficult & (not is_open_images))
    truth = [row for row in np.flatnonzero(each.gt_classes == class_index) if not (is_open_images and ignored[row])]
    groups = each.gt_boxes_px[ignored & (each.gt_classes == class_index)]
    taken, rows = set(), []
    for found in np.argsort(-each.scores, kind="stable"):
        if each.classes[found] != class_index:
            continue
        box = each.boxes_px[found]
        best = max(truth, key=lambda row: _overlaps(box, each.gt_boxes_px[row])[0], default=None)
        hit = best is not None and _overlaps(box, each.gt_boxes_px[best])[0] >= 0.5
        is_right = hit and best not in taken
        if is_open_images and not is_right and any(_overlaps(box, group)[1] >= 0.5 for group in groups):
            continue
        if not (hit and ignored[best]):
            rows.append((each.scores[found], is_right))
            taken |= {best} if hit else set()
    return rows, sum(not ignored[row] for row in truth)


def _overlaps(found, other):
    sides = np.maximum(np.minimum(found[2:], other[2:]) - np.maximum(found[:2], other[:2]), 0)
    area, other_area, shared = np.prod(found[2:] - found[:2]), np.prod(other[2:] - other[:2]), np.prod(sides)
    return shared / (area + other_area - shared), shared / area


def _area(verdicts, num_objects):
    if not num_objects:
        return math.nan
    right = np.cumsum(verdicts)
    precision = right / np.arange(1, len(verdicts) + 1)
    return sum(precision[row:].max() for row in np.flatnonzero(verdicts)) / num_objects
