"""Evaluations read from their files: measured again they give the same numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detzoo.errors import DataError, UsageError
from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.masks import encode_mask
from detzoo.evaluate.report import write_results
from detzoo.evaluate.runner import COCO_METRICS, MASK_METRICS, EvaluationResult, measure
from detzoo.evaluate.stored import read_evaluation, with_same_truth

NAMES = {1: "cat", 3: "dog"}


def random_images(seed, count=6, with_masks=False, names=None):
    """Images with three objects, of which some are crowds, and detections near them."""
    generator = np.random.default_rng(seed)
    images = []
    for number in range(count):
        corners = generator.uniform(0, 60, [3, 2])
        boxes = np.concatenate([corners, corners + generator.uniform(10, 40, [3, 2])], axis=1).astype(np.float32)
        classes = generator.choice([0, 2], 3).astype(np.int32)
        found = (boxes + generator.normal(0, 4, boxes.shape)).astype(np.float32)
        masks = [encode_mask(np.eye(100, 120) > 0) for _ in range(3)] if with_masks else None
        images.append(
            EvaluatedImage(
                image_id=names[number] if names else f"image {number}",
                shape=(100, 120),
                gt_boxes_px=boxes,
                gt_classes=classes,
                gt_is_crowd=np.array([False, False, number == 0]),
                gt_is_difficult=np.zeros(3, bool),
                gt_area_px=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
                boxes_px=found,
                scores=np.sort(generator.uniform(0, 1, 3).astype(np.float32))[::-1],
                classes=np.where(generator.uniform(size=3) < 0.8, classes, 2).astype(np.int32),
                gt_masks=masks,
                masks=masks,
            )
        )
    return images


def write(folder, images, names=NAMES, metrics_set=(COCO_METRICS,)):
    metrics, per_class = measure(images, names, metrics_set)
    write_results(EvaluationResult(metrics, per_class, images, names, 1.0), folder, {})
    return metrics


@pytest.mark.parametrize("with_masks", [False, True])
def test_what_is_read_measures_the_same(tmp_path, with_masks):
    metrics_set = [COCO_METRICS, MASK_METRICS] if with_masks else [COCO_METRICS]
    metrics = write(tmp_path, random_images(1, with_masks=with_masks), metrics_set=metrics_set)
    assert 0 < metrics["mAP"] < 1
    stored = read_evaluation(tmp_path)
    assert stored.has_masks == with_masks
    assert stored.class_names == NAMES
    assert [image.image_id for image in stored.images] == [f"image {number}" for number in range(6)]
    assert stored.images[0].gt_is_crowd.tolist() == [False, False, True]
    again, _ = measure(stored.images, stored.class_names, metrics_set)
    assert again == pytest.approx(metrics, abs=1e-6)


def test_nothing_found_is_read(tmp_path):
    empty = [
        image._replace(boxes_px=np.zeros([0, 4], np.float32), scores=np.zeros(0, np.float32), classes=np.zeros(0, int))
        for image in random_images(1)
    ]
    write(tmp_path, empty)
    stored = read_evaluation(tmp_path)
    assert [image.boxes_px.shape for image in stored.images] == [(0, 4)] * 6


def test_images_come_in_the_order_of_the_first(tmp_path):
    images = random_images(1)
    write(tmp_path / "a", images)
    write(tmp_path / "b", images[::-1])
    a, b = with_same_truth([read_evaluation(tmp_path / name) for name in "ab"])
    assert [image.image_id for image in b.images] == [image.image_id for image in a.images]
    np.testing.assert_array_equal(a.images[2].boxes_px, b.images[2].boxes_px)
    # Images without distinct names are distinguished by their positions.
    write(tmp_path / "c", random_images(1, names=[""] * 6))
    assert len(with_same_truth([read_evaluation(tmp_path / "c")] * 2)[1].images) == 6


def changed(images, **fields):
    return [images[0]._replace(**fields), *images[1:]]


@pytest.mark.parametrize(
    ("other", "names", "message"),
    [
        (random_images(1)[:4], NAMES, r"2 of the 6 images of .*a are missing: image 4, image 5"),
        (random_images(1, 7), NAMES, r"1 of the 7 images of .*b are missing: image 6"),
        (random_images(1), {1: "cat", 3: "wolf"}, r"different label maps: 3 'dog', 3 'wolf' is in one of them only"),
        (random_images(2), NAMES, "differ in the size or the objects of image 'image 0'"),
        (changed(random_images(1), shape=(100, 121)), NAMES, "differ in the size or the objects of image 'image 0'"),
    ],
)
def test_evaluations_on_different_data_are_refused(tmp_path, other, names, message):
    write(tmp_path / "a", random_images(1))
    write(tmp_path / "b", other, names)
    with pytest.raises(DataError, match=message):
        with_same_truth([read_evaluation(tmp_path / name) for name in "ab"])


def test_files_that_are_missing_or_spoiled(tmp_path):
    with pytest.raises(UsageError, match=r"groundtruth.json: No such file or directory; `detzoo evaluate` writes it"):
        read_evaluation(tmp_path)
    write(tmp_path, random_images(1))
    detections = tmp_path / "detections.json"
    entries = json.loads(detections.read_text())
    detections.write_text(json.dumps(entries)[:-9])
    with pytest.raises(DataError, match=r"detections.json is not JSON, or was cut short"):
        read_evaluation(tmp_path)
    detections.write_text(json.dumps([{**entries[0], "image_id": 77}]))
    with pytest.raises(DataError, match=r"detections.json: image_id 77 is no image of groundtruth.json"):
        read_evaluation(tmp_path)
    detections.write_text('[{"image_id": 1}]')
    with pytest.raises(DataError, match=r"are not in the formats that `detzoo evaluate` writes .* KeyError 'bbox'"):
        read_evaluation(tmp_path)
