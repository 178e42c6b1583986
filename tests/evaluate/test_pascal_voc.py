"""Pascal VOC's average precision, worked by hand, and a check against COCO's at IoU .5."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detzoo.evaluate import coco, pascal_voc
from detzoo.evaluate.images import EvaluatedImage

NAMES = {1: "cat"}
BOX = [0.0, 0.0, 10.0, 20.0]
OTHER = [50.0, 50.0, 60.0, 80.0]
FAR = [80.0, 0.0, 90.0, 20.0]


def image(gt, detections, image_id="1", difficult=(), crowd=()):
    boxes = np.array(gt, np.float32).reshape(-1, 4)
    return EvaluatedImage(
        image_id,
        (100, 100),
        boxes,
        np.zeros(len(gt), np.int32),
        np.array([row in crowd for row in range(len(gt))], bool),
        np.array([row in difficult for row in range(len(gt))], bool),
        np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1),
        np.array([d[0] for d in detections], np.float32).reshape(-1, 4),
        np.array([d[1] for d in detections], np.float32),
        np.zeros(len(detections), np.int32),
    )


def average_precision(images, **kwargs):
    return pascal_voc.evaluate_voc(images, NAMES, **kwargs).mean_average_precision


def test_right_wrong_right_of_three_objects():
    # The detections of three objects are right, wrong, right. Recall is 1/3, 1/3, 2/3, and precision is 1, 1/2, 2/3.
    # The area is 1/3 * 1 + 1/3 * 2/3 = 5/9. Of the eleven points, the recalls 0..0.3 give 1 (4 of them), 0.4..0.6 give
    # 2/3 (3), and the rest give 0, so the mean is (4 + 2) / 11 = 6/11.
    images = [image([BOX, OTHER, FAR], [(BOX, 0.9), ([30, 30, 40, 40], 0.8), (OTHER, 0.7)])]
    assert average_precision(images) == pytest.approx(5 / 9)
    assert average_precision(images, eleven_points=True) == pytest.approx(6 / 11)


def test_a_second_detection_of_one_object_is_wrong():
    # Right, wrong, right of two objects. Recall is 1/2, 1/2, 1 and precision is 1, 1/2, 2/3, so the area is
    # 1/2 + 1/2 * 2/3.
    images = [image([BOX, OTHER], [(BOX, 0.9), (BOX, 0.8), (OTHER, 0.7)])]
    assert average_precision(images) == pytest.approx(5 / 6)


def test_a_difficult_object_is_neither_wanted_nor_wrong():
    images = [image([BOX, OTHER], [(OTHER, 0.9), (OTHER, 0.85), (BOX, 0.8)], difficult={1})]
    assert average_precision(images) == pytest.approx(1.0)
    assert average_precision([image([BOX, OTHER], [(OTHER, 0.9), (BOX, 0.8)], crowd={1})]) == pytest.approx(1.0)
    # Only difficult objects: nothing to measure.
    empty = pascal_voc.evaluate_voc([image([BOX], [(BOX, 0.9)], difficult={0})], NAMES)
    assert empty.mean_average_precision == -1.0
    assert math.isnan(empty.per_class["cat"])


def test_iou_of_exactly_one_half_finds_the_object():
    # 10 x 20 against 10 x 10 inside it: 100 / 200.
    assert average_precision([image([BOX], [([0, 0, 10, 10], 0.9)])]) == pytest.approx(1.0)
    assert average_precision([image([BOX], [([0, 0, 10, 9.9], 0.9)])]) == 0.0


def test_scores_are_ranked_over_all_images():
    # Image 2's wrong detection (.95) outranks image 1's right one: precision 1/2 at recall 1/2, then 2/3 at 1.
    images = [image([BOX], [(BOX, 0.9)]), image([OTHER], [(FAR, 0.95), (OTHER, 0.5)], image_id="2")]
    assert average_precision(images) == pytest.approx(2 / 3)


def test_the_mean_is_over_classes_that_have_objects():
    result = pascal_voc.evaluate_voc([image([BOX], [(BOX, 0.9)])], {1: "cat", 2: "dog"})
    assert result.mean_average_precision == pytest.approx(1.0)
    assert result.per_class["cat"] == pytest.approx(1.0)


def test_random_data_agree_with_coco_at_iou_one_half():
    # COCO samples the same curve at 101 recalls, so the two differ by about a percent at most.
    generator = np.random.default_rng(0)
    images = []
    for number in range(40):
        corners = generator.uniform(0, 60, (3, 2))
        gt = np.concatenate([corners, corners + generator.uniform(10, 40, (3, 2))], -1)
        noise = gt + generator.normal(0, 2.0, gt.shape)
        wrong = gt + generator.uniform(20, 40, gt.shape)
        found = [(box, score) for box, score in zip([*noise, *wrong], generator.uniform(0, 1, 6))]
        images.append(image(list(gt), found, image_id=str(number)))
    ours = average_precision(images)
    theirs = coco.evaluate_coco(images, NAMES).metrics["mAP@.50IOU"]
    assert 0.2 < ours < 0.95
    assert ours == pytest.approx(theirs, abs=0.015)
