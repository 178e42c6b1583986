"""COCO's numbers through pycocotools, on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.evaluate.coco import (
    KEYPOINT_METRIC_NAMES,
    MASK_METRIC_NAMES,
    MASKS,
    METRIC_NAMES,
    KeypointMetric,
    coco_detections,
    coco_groundtruth,
    evaluate_coco,
    evaluate_keypoints,
)
from detzoo.evaluate.images import EvaluatedImage, numeric_image_ids
from detzoo.evaluate.masks import encode_mask

NAMES = {1: "cat", 3: "dog"}  # id 2 is a gap


def image(gt=(), detections=(), image_id="1", crowd=(), difficult=(), shape=(100, 200)):
    """Returns the image of ``gt`` as (box, class) and ``detections`` as (box, score, class)."""
    boxes = np.array([box for box, _ in gt], np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return EvaluatedImage(
        image_id,
        shape,
        boxes,
        np.array([c for _, c in gt], np.int32),
        np.array([row in crowd for row in range(len(gt))], bool),
        np.array([row in difficult for row in range(len(gt))], bool),
        sides[:, 0] * sides[:, 1],
        np.array([d[0] for d in detections], np.float32).reshape(-1, 4),
        np.array([d[1] for d in detections], np.float32),
        np.array([d[2] for d in detections], np.int32),
    )


CAT = [10.0, 20.0, 50.0, 100.0]  # 40 x 80 = 3200 pixels: medium (32^2 .. 96^2)


def test_a_perfect_detection_scores_one_and_empty_sizes_score_minus_one():
    result = evaluate_coco([image([(CAT, 0)], [(CAT, 0.9, 0)])], NAMES)
    assert tuple(result.metrics) == METRIC_NAMES
    for name in ("mAP", "mAP@.50IOU", "mAP@.75IOU", "mAP (medium)", "AR@1", "AR@100 (medium)"):
        assert result.metrics[name] == pytest.approx(1.0)
    assert result.metrics["mAP (small)"] == -1.0
    assert result.per_class["cat"].num_objects == 1
    assert result.per_class["dog"].average_precision == -1.0


def test_a_box_of_iou_62_percent_counts_at_three_of_ten_thresholds():
    # Columns 20..100 against 20..70: IoU 50/80 = .625, so right at .50, .55, .60 and wrong at .65 to .95.
    found = [10.0, 20.0, 50.0, 70.0]
    metrics = evaluate_coco([image([(CAT, 0)], [(found, 0.9, 0)])], NAMES).metrics
    assert metrics["mAP"] == pytest.approx(0.3)
    assert metrics["mAP@.50IOU"] == pytest.approx(1.0)
    assert metrics["mAP@.75IOU"] == 0.0


def test_a_wrong_detection_above_the_right_one_halves_the_precision():
    wrong = [60.0, 120.0, 90.0, 190.0]
    metrics = evaluate_coco([image([(CAT, 0)], [(wrong, 0.9, 0), (CAT, 0.8, 0)])], NAMES).metrics
    assert metrics["mAP"] == pytest.approx(0.5)
    assert metrics["AR@1"] == 0.0
    assert metrics["AR@10"] == pytest.approx(1.0)


def test_a_detection_on_a_crowd_is_neither_right_nor_wrong():
    crowd_box = [0.0, 100.0, 60.0, 200.0]
    inside = [10.0, 110.0, 50.0, 150.0]
    gt = [(CAT, 0), (crowd_box, 0)]
    with_crowd = evaluate_coco([image(gt, [(inside, 0.95, 0), (CAT, 0.9, 0)], crowd={1})], NAMES)
    assert with_crowd.metrics["mAP"] == pytest.approx(1.0)
    assert with_crowd.per_class["cat"].num_objects == 1
    without = evaluate_coco([image(gt, [(inside, 0.95, 0), (CAT, 0.9, 0)])], NAMES)
    assert without.metrics["mAP"] < 0.5


def test_masks_are_measured_beside_boxes():
    # Equal boxes; the object is the left half of its box, the detection all of it: IoU 1 by boxes and 1/2 by masks.
    whole, half = np.zeros((100, 200), np.uint8), np.zeros((100, 200), np.uint8)
    whole[10:50, 20:100] = 1
    half[10:50, 20:60] = 1
    one = image([(CAT, 0)], [(CAT, 0.9, 0)])._replace(gt_masks=[encode_mask(half)], masks=[encode_mask(whole)])
    assert evaluate_coco([one], NAMES).metrics["mAP"] == pytest.approx(1.0)
    by_masks = evaluate_coco([one], NAMES, MASKS)
    assert tuple(by_masks.metrics) == MASK_METRIC_NAMES == tuple(f"mask {name}" for name in METRIC_NAMES)
    assert by_masks.metrics["mask mAP"] == pytest.approx(0.1)  # at .50, not at .55 to .95
    assert by_masks.metrics["mask mAP@.50IOU"] == pytest.approx(1.0)
    assert by_masks.per_class["cat"].average_precision == pytest.approx(0.1)
    assert [entry["segmentation"] for entry in coco_detections([one])] == [encode_mask(whole)]


def test_an_area_from_the_record_decides_the_size():
    small = image([(CAT, 0)], [(CAT, 0.9, 0)])._replace(gt_area_px=np.array([900.0]))
    metrics = evaluate_coco([small], NAMES).metrics
    assert metrics["mAP (small)"] == pytest.approx(1.0)
    assert metrics["mAP (medium)"] == -1.0


def test_nothing_to_find_and_nothing_found():
    assert evaluate_coco([image()], NAMES).metrics["mAP"] == -1.0
    assert evaluate_coco([image(detections=[(CAT, 0.5, 0)])], NAMES).metrics["mAP"] == -1.0
    assert evaluate_coco([image([(CAT, 0)])], NAMES).metrics["mAP"] == 0.0


def test_a_class_without_a_name_is_not_measured():
    gap = evaluate_coco([image([(CAT, 0), (CAT, 1)], [(CAT, 0.9, 0), (CAT, 0.95, 1)])], NAMES)
    assert gap.metrics["mAP"] == pytest.approx(1.0)
    assert set(gap.per_class) == {"cat", "dog"}


def test_results_are_pixels_of_the_image_as_x_y_width_height(capsys):
    images = [image([(CAT, 2)], [(CAT, 0.5, 2)], image_id="000042")]
    assert list(coco_detections(images)) == [
        {"image_id": 42, "category_id": 3, "bbox": [20.0, 10.0, 80.0, 40.0], "score": 0.5}
    ]
    truth = coco_groundtruth(images, NAMES)
    assert truth["annotations"][0]["bbox"] == [20.0, 10.0, 80.0, 40.0]
    assert truth["images"] == [{"id": 42, "file_name": "000042", "height": 100, "width": 200}]
    assert truth["categories"] == [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]
    evaluate_coco(images, NAMES)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [(["139", "285"], [139, 285]), (["a.jpg", "7"], [1, 2]), (["5", "05"], [1, 2]), (["", ""], [1, 2])],
)
def test_images_are_numbered_by_their_ids_where_these_are_distinct_numbers(ids, numbers):
    assert numeric_image_ids([image(image_id=name) for name in ids]) == numbers


def keypoints_of(distance_px, visibility=2, gt_class=0):
    """An object of 3200 pixels with two keypoints in the records, the second of which is found at a distance."""
    one = image([(CAT, gt_class)], [(CAT, 0.9, 0)])
    return one._replace(
        gt_keypoints=np.array([[[50.0, 20.0, 2], [60.0, 30.0, visibility]]]),
        keypoints=np.array([[[0.0, 0.0, 0.5], [60.0, 30.0 + distance_px, 0.8]]]),
    )


def test_keypoints_are_measured_by_their_similarity():
    metric = KeypointMetric("cat", 1, (1,), (0.05,))
    # exp(-d^2 / (2 area (2 sigma)^2)) = exp(-5.5^2 / (2 * 3200 * 0.01)) = 0.623: right at .50, .55 and .60 of ten.
    found = evaluate_keypoints([keypoints_of(5.5)], metric)
    assert tuple(found) == KEYPOINT_METRIC_NAMES
    assert found["keypoint mAP"] == pytest.approx(0.3)
    assert found["keypoint mAP@.50OKS"] == pytest.approx(1.0)
    assert found["keypoint mAP@.75OKS"] == 0.0
    assert evaluate_keypoints([keypoints_of(0.0)], metric)["keypoint mAP"] == pytest.approx(1.0)


def test_objects_without_a_labelled_keypoint_are_not_measured():
    metric = KeypointMetric("cat", 1, (1,), (0.05,))
    assert set(evaluate_keypoints([keypoints_of(0.0, visibility=0)], metric).values()) == {-1.0}


def test_faster_coco_eval_computes_the_same_numbers(monkeypatch):
    pytest.importorskip("faster_coco_eval", reason="the extra fast is not installed")
    generator = np.random.default_rng(5)
    images = []
    for number in range(40):
        num_gt, num_found = generator.integers(0, 6), generator.integers(0, 12)
        corners = generator.uniform(0, 60, (num_gt, 2))
        gt = np.concatenate([corners, corners + generator.uniform(5, 120, (num_gt, 2))], axis=1)
        classes = generator.integers(0, 4, num_gt)  # 1 and 3 have no name
        rows = generator.integers(0, max(num_gt, 1), num_found)
        near = gt[rows] if num_gt else np.zeros([num_found, 4])
        found = near + generator.normal(0, 3, (num_found, 4)) + [0, 0, 6, 6]
        found_classes = np.where(generator.uniform(size=num_found) < 0.8, classes[rows] if num_gt else 0, 2)
        scores = generator.uniform(0, 1, num_found).round(1)  # with equal ones
        one = image(
            list(zip(gt, classes)),
            list(zip(found, scores, found_classes)),
            image_id=str(number),
            crowd={0} if number % 3 == 0 else (),
            shape=(180, 200),
        )
        masks, gt_masks = ([_ellipse(box, (180, 200)) for box in boxes] for boxes in (one.boxes_px, one.gt_boxes_px))
        points = generator.uniform(0, 180, (num_gt, 2, 3))
        points[..., 2] = generator.integers(0, 3, (num_gt, 2))
        near = points[rows] if num_gt else np.zeros([num_found, 2, 3])
        found_points = near + generator.normal(0, 6, (num_found, 2, 3))
        images.append(one._replace(masks=masks, gt_masks=gt_masks, gt_keypoints=points, keypoints=found_points))
    metric = KeypointMetric("cat", 1, (0, 1), (0.05, 0.1))

    def measure():
        by_boxes, by_masks = evaluate_coco(images, NAMES), evaluate_coco(images, NAMES, MASKS)
        return by_boxes, by_masks, evaluate_keypoints(images, metric)

    fast = measure()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 0.05 < fast[0].metrics["mAP"] < fast[0].metrics["mAP@.50IOU"] < 0.9
    assert 0.05 < fast[1].metrics["mask mAP"] < 0.9
    assert 0.05 < fast[2]["keypoint mAP"] < 0.9
    for ours, theirs in zip(fast, measure(), strict=True):
        if isinstance(ours, dict):
            assert ours == pytest.approx(theirs, abs=1e-12)
        else:
            assert ours.metrics == pytest.approx(theirs.metrics, abs=1e-12)
            for name in NAMES.values():
                assert tuple(ours.per_class[name]) == pytest.approx(tuple(theirs.per_class[name]), abs=1e-12)


def _ellipse(box, shape):
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    (ymin, xmin, ymax, xmax) = box
    across, down = (2 * columns - xmin - xmax) / max(xmax - xmin, 1), (2 * rows - ymin - ymax) / max(ymax - ymin, 1)
    return encode_mask((across**2 + down**2 <= 1).astype(np.uint8))
