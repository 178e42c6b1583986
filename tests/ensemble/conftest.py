"""Evaluations small enough to work out by hand, written as `detzoo evaluate` writes them."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.report import write_results
from detzoo.evaluate.runner import COCO_METRICS, EvaluationResult, measure

NAMES = {1: "cat", 2: "dog"}
OBJECT = [10.0, 20.0, 50.0, 100.0]  # 40 x 80 pixels of an image of 100 x 200
IMAGES = ("cat0", "cat1", "cat2", "cat3", "dog0", "dog1", "dog2", "dog3")  # one object each


def evaluated_image(image_id, score, box=OBJECT):
    """Returns one image with one object, which is found exactly with ``score``, or not found if ``score`` is None."""
    found = 0 if score is None else 1
    class_index = 0 if image_id.startswith("cat") else 1
    return EvaluatedImage(
        image_id=image_id,
        shape=(100, 200),
        gt_boxes_px=np.array([box], np.float32),
        gt_classes=np.array([class_index], np.int32),
        gt_is_crowd=np.zeros(1, bool),
        gt_is_difficult=np.zeros(1, bool),
        gt_area_px=np.array([3200.0], np.float32),
        boxes_px=np.array([box] * found, np.float32).reshape(-1, 4),
        scores=np.array([score] * found, np.float32),
        classes=np.array([class_index] * found, np.int32),
    )


@pytest.fixture
def write_evaluation(tmp_path):
    """A function: name, scores by image that is found -> the folder of an evaluation."""

    def write(name, scores, images=IMAGES, names=NAMES, **facts):
        evaluated = [evaluated_image(image_id, scores.get(image_id)) for image_id in images]
        metrics, per_class = measure(evaluated, names, [COCO_METRICS])
        write_results(EvaluationResult(metrics, per_class, evaluated, names, 1.0), tmp_path / name, facts)
        return tmp_path / name

    return write


@pytest.fixture
def three_models(write_evaluation):
    """A is best, B finds less of the same, C is worst and finds what A misses.

    A finds all cats and 2 of 4 dogs, B all cats and 1 of these dogs, C 1 cat and the other 2 dogs with one of A's.
    Without wrong detections the average precision is the share of pycocotools' 101 recalls (0, .01, ..., 1) that are
    reached: 1 for all 4, 76/101 for 3, 51/101 for 2, 26/101 for 1.

           cat      dog      mAP
        A  1        51/101   152/202 = 0.7525
        B  1        26/101   127/202 = 0.6287
        C  26/101   76/101   102/202 = 0.5050

    In units of 1/101 the vectors are A (101, 51), B (101, 26), C (26, 76), so that the cosines are
    A B (101 101 + 51 26) / sqrt((101^2 + 51^2) (101^2 + 26^2)) = 11527 / sqrt(12802 * 10877) = 0.97684
    A C (101 26 + 51 76) / sqrt((101^2 + 51^2) (26^2 + 76^2)) = 6502 / sqrt(12802 * 6452) = 0.71542
    B C (101 26 + 26 76) / sqrt((101^2 + 26^2) (26^2 + 76^2)) = 4602 / sqrt(10877 * 6452) = 0.54934
    """
    cats_of_a = {"cat0": 0.9, "cat1": 0.9, "cat2": 0.6, "cat3": 0.6}
    cats_of_b = dict.fromkeys(cats_of_a, 0.8)  # above two of A's: left in, they would be wrong detections in between
    return [
        write_evaluation("runs/a/evaluation", {**cats_of_a, "dog0": 0.9, "dog1": 0.7}, saved_model="a/export"),
        write_evaluation("runs/b/evaluation", {**cats_of_b, "dog0": 0.8}, checkpoint="b/ckpt-9"),
        write_evaluation("runs/c/evaluation", {"cat0": 0.7, "dog1": 0.8, "dog2": 0.6, "dog3": 0.5}),
    ]
