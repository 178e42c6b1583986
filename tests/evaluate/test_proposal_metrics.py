"""Recall of proposals: cases worked by hand, and pycocotools without classes on random ones."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from detzoo.evaluate import proposals
from detzoo.evaluate.coco import MASKS, coco_detections, coco_groundtruth
from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.masks import encode_mask
from detzoo.evaluate.proposals import MASK_PROPOSAL_METRIC_NAMES, PROPOSAL_METRIC_NAMES, evaluate_proposals

MEDIUM = [10.0, 20.0, 50.0, 100.0]  # 40 x 80 = 3200 pixels: medium (32^2 .. 96^2)
SMALL = [60.0, 0.0, 80.0, 20.0]  # 400 pixels
AWAY = [60.0, 120.0, 90.0, 190.0]


def image(gt=(), found=(), crowd=(), image_id="1", classes=()):
    """Returns the image of the boxes ``gt`` and the boxes ``found``, best first."""
    boxes = np.array(gt, np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return EvaluatedImage(
        image_id,
        (100, 200),
        boxes,
        np.array(classes or range(len(gt)), np.int32),  # each object of another class
        np.array([row in crowd for row in range(len(gt))], bool),
        np.zeros(len(gt), bool),
        sides[:, 0] * sides[:, 1],
        np.array(found, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.1, len(found), dtype=np.float32),
        np.zeros(len(found), np.int32),
    )


def test_objects_of_all_classes_are_found_by_the_best_ten_hundred_or_thousand():
    # Found by the 1st proposal, by the 11th, and by none: one of three, then two of three.
    metrics = evaluate_proposals([image([MEDIUM, SMALL, AWAY], [MEDIUM, *[[0, 150, 5, 160]] * 9, SMALL])])
    assert tuple(metrics) == PROPOSAL_METRIC_NAMES
    assert metrics["AR@10"] == pytest.approx(1 / 3)
    assert metrics["AR@100"] == pytest.approx(2 / 3)
    assert metrics["AR@1000"] == pytest.approx(2 / 3)
    assert metrics["AR@1000 (small)"] == pytest.approx(1.0)
    assert metrics["AR@1000 (medium)"] == pytest.approx(0.5)  # AWAY is 30 x 70 = 2100 pixels
    assert metrics["AR@1000 (large)"] == -1.0


def test_an_overlap_of_62_percent_counts_at_three_of_ten_thresholds():
    # Columns 20..100 against 20..70: IoU 50/80 = .625, so found at .50, .55, .60 and not at .65 to .95.
    assert evaluate_proposals([image([MEDIUM], [[10.0, 20.0, 50.0, 70.0]])])["AR@10"] == pytest.approx(0.3)


def test_a_crowd_is_not_to_be_found():
    assert evaluate_proposals([image([MEDIUM, AWAY], [MEDIUM], crowd={1})])["AR@100"] == pytest.approx(1.0)
    assert evaluate_proposals([image([AWAY], [AWAY], crowd={0})])["AR@100"] == -1.0


def test_images_count_by_their_objects_however_they_are_taken_together(monkeypatch):
    # Images with 3 objects, 2 of them found, with none, and with 1, not found: 2 of 4.
    images = [image([MEDIUM, SMALL, AWAY], [MEDIUM, AWAY]), image(found=[MEDIUM]), image([MEDIUM])]
    for number in (1, 2, 3):
        monkeypatch.setattr(proposals, "_IMAGES_AT_ONCE", number)
        assert evaluate_proposals(images)["AR@1000"] == pytest.approx(0.5)
    assert set(evaluate_proposals([image(), image(found=[SMALL])]).values()) == {-1.0}


def random_image(generator, image_id):
    """Objects of 4 to 120 pixels; proposals are objects, moved and scaled, and boxes anywhere; more than 1000."""
    corner, size = generator.uniform(0, 150, (12, 2)), generator.uniform(4, 120, (12, 2))
    objects = np.concatenate([corner, corner + size], axis=1)
    near = np.repeat(objects, 60, axis=0) + generator.normal(0, 0.08, (720, 4)) * np.tile(np.repeat(size, 60, 0), 2)
    anywhere = generator.uniform(0, 200, (500, 2))
    boxes = np.concatenate([near, np.concatenate([anywhere, anywhere + generator.uniform(1, 90, (500, 2))], axis=1)])
    boxes = boxes[generator.permutation(len(boxes))]
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    one = image(objects, boxes, crowd={2, 7}, image_id=image_id, classes=list(generator.integers(0, 3, 12)))
    return one._replace(scores=generator.uniform(0, 1, len(boxes)).astype(np.float32))


def test_the_numbers_are_those_of_pycocotools_without_classes(monkeypatch):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    generator = np.random.default_rng(0)
    images = [random_image(generator, str(number)) for number in range(5)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = coco_groundtruth(images, {1: "a", 2: "b", 3: "c"})
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(list(coco_detections(images))), "bbox")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = [10, 100, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][:, 0].mean(axis=0)  # [areas, max detections]
    monkeypatch.setattr(proposals, "_IMAGES_AT_ONCE", 2)
    metrics = evaluate_proposals(images)
    np.testing.assert_allclose(list(metrics.values()), [*recall[0], *recall[1:, 2]], rtol=1e-12)
    assert 0.1 < metrics["AR@10"] < metrics["AR@100"] < metrics["AR@1000"] < 1.0


def filled(boxes):
    """Masks of 100 x 200 pixels that fill whole boxes."""
    masks = []
    for ymin, xmin, ymax, xmax in np.asarray(boxes, int).reshape(-1, 4):
        mask = np.zeros((100, 200), np.uint8)
        mask[ymin:ymax, xmin:xmax] = 1
        masks.append(encode_mask(mask))
    return masks


def masked(gt=(), found=(), gt_masks=None, masks=None, **options):
    """An image whose objects and proposals fill their boxes, unless boxes of their masks are given."""
    return image(gt, found, **options)._replace(
        gt_masks=filled(gt if gt_masks is None else gt_masks), masks=filled(found if masks is None else masks)
    )


def test_masks_count_where_boxes_would_not():
    # The boxes are the same, but the mask covers the left half of the object: IoU .5, found at one of ten thresholds.
    half = masked([MEDIUM], [MEDIUM], masks=[[10, 20, 50, 60]])
    metrics = evaluate_proposals([half], MASKS)
    assert tuple(metrics) == MASK_PROPOSAL_METRIC_NAMES
    assert metrics["mask AR@10"] == metrics["mask AR@1000"] == pytest.approx(0.1)
    assert metrics["mask AR@1000 (medium)"] == pytest.approx(0.1)
    assert metrics["mask AR@1000 (small)"] == -1.0
    # A box that is far off does not matter where the mask is right.
    assert evaluate_proposals([masked([MEDIUM], [AWAY], masks=[MEDIUM])], MASKS)["mask AR@10"] == pytest.approx(1.0)


def test_masks_of_the_best_ten_hundred_or_thousand():
    elsewhere = [[0, 150, 5, 160]] * 9
    metrics = evaluate_proposals([masked([MEDIUM, SMALL, AWAY], [MEDIUM, *elsewhere, SMALL])], MASKS)
    assert metrics["mask AR@10"] == pytest.approx(1 / 3)
    assert metrics["mask AR@100"] == pytest.approx(2 / 3)
    assert metrics["mask AR@1000 (small)"] == pytest.approx(1.0)
    assert metrics["mask AR@1000 (medium)"] == pytest.approx(0.5)


def test_masks_of_crowds_and_of_images_without_objects_or_proposals():
    crowd = masked([MEDIUM, AWAY], [MEDIUM], crowd={1})
    assert evaluate_proposals([crowd], MASKS)["mask AR@100"] == pytest.approx(1.0)
    assert evaluate_proposals([masked([], [MEDIUM])], MASKS)["mask AR@100"] == -1.0
    assert evaluate_proposals([masked([MEDIUM]), masked([], [AWAY], image_id="2")], MASKS)["mask AR@100"] == 0.0
