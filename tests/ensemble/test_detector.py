"""Several models on several views as one detector, with models that find bright rectangles."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.ensemble.description import MergeOptions
from detzoo.ensemble.detector import EnsembleDetector, Member
from detzoo.ensemble.views import ViewPlan
from detzoo.errors import UsageError
from detzoo.serving.image_detector import ImageDetections

SHAPE = (100, 200)


def image_of(*boxes_px):
    """An image where object n shines with brightness n + 1."""
    image = np.zeros([*SHAPE, 3], np.uint8)
    for number, (ymin, xmin, ymax, xmax) in enumerate(boxes_px, start=1):
        image[ymin:ymax, xmin:xmax] = number
    return image


def finder(score, brightness=None, min_share=0.0, mask=None, calls=None):
    """A model that finds each object exactly, its brightness as id, unless it is too small a share of what it sees."""

    def detect(image):
        if calls is not None:
            calls.append(image.shape)
        boxes, ids = [], []
        for number in np.unique(image[image > 0]) if brightness is None else brightness:
            seen = image[..., 0] == number
            if seen.mean() > min_share:
                rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
                boxes.append([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1] / np.tile(image.shape[:2], 2))
                ids.append(number)
        masks = None if mask is None else np.tile(mask, [len(ids), 1, 1])
        array = np.array(boxes, np.float32).reshape(-1, 4)
        return ImageDetections(array, np.full(len(ids), score, np.float32), np.array(ids, np.int32), masks)

    return detect


def in_px(detections):
    return detections.boxes_norm * np.tile(SHAPE, 2)


def test_models_find_together_what_each_finds():
    members = [Member("one", finder(0.6, [1])), Member("both", finder(0.9, [1, 2]), 0.5)]
    image = image_of([10, 20, 40, 60], [50, 100, 90, 180])
    found = EnsembleDetector(members, ViewPlan(), MergeOptions())(image)
    np.testing.assert_array_equal(found.class_ids, [1, 2])
    np.testing.assert_allclose(found.scores, [0.6, 0.45], atol=1e-6)
    np.testing.assert_allclose(in_px(found), [[10, 20, 40, 60], [50, 100, 90, 180]], atol=1e-3)
    assert found.masks is None


def test_crops_find_what_is_too_small_in_the_whole_image():
    # The object is 20 x 20 of 100 x 200 pixels: 2 %, of a crop of 58 x 115 pixels 6 %.
    detect = finder(0.8, min_share=0.04)
    image = image_of([10, 20, 30, 40])
    assert not len(EnsembleDetector([Member("m", detect)], ViewPlan(), MergeOptions())(image).scores)
    found = EnsembleDetector([Member("m", detect)], ViewPlan(((2, 2),)), MergeOptions())(image)
    np.testing.assert_allclose(in_px(found), [[10, 20, 30, 40]], atol=1e-3)


def test_parts_of_an_object_that_crops_cut_off_are_dropped():
    # The whole image shows the object; each crop shows a part, whose box would overlap the object by less than 0.6.
    found = EnsembleDetector([Member("m", finder(0.8))], ViewPlan(((2, 2),), flip=True), MergeOptions())(
        image_of([20, 30, 80, 170])
    )
    np.testing.assert_allclose(in_px(found), [[20, 30, 80, 170]], atol=1e-3)


def test_every_view_is_shown_once_to_every_model():
    calls = []
    members = [Member("a", finder(0.8, calls=calls)), Member("b", finder(0.8, calls=calls))]
    EnsembleDetector(members, ViewPlan(((1, 2),), flip=True), MergeOptions())(image_of())
    # 200 / 1.75 = 114.3 columns.
    assert calls == [(100, 200, 3)] * 2 + [(100, 115, 3)] * 4 + [(100, 200, 3)] * 2 + [(100, 115, 3)] * 4


def test_masks_come_with_the_box_that_is_kept():
    left, right = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    image = image_of([10, 20, 40, 60])
    members = [Member("low", finder(0.5, mask=right)), Member("high", finder(0.9, mask=left))]
    found = EnsembleDetector(members, ViewPlan(), MergeOptions(), has_masks=True)(image)
    np.testing.assert_array_equal(found.masks, [left])
    empty = EnsembleDetector(members, ViewPlan(), MergeOptions(), has_masks=True)(image_of())
    assert empty.masks.shape == (0, 1, 2)


def test_what_is_found_in_a_mirror_image_is_mirrored_back_with_its_mask():
    detect = finder(0.5, mask=np.array([[0.0, 1.0]]))  # the right half of each object, as the model sees it

    def detect_on_the_left(image):
        found = detect(image)
        return found.rows(found.boxes_norm[:, 3] < 0.5)

    image = image_of([10, 120, 40, 190])
    members = [Member("left", detect_on_the_left)]
    assert not len(EnsembleDetector(members, ViewPlan(), MergeOptions(), has_masks=True)(image).scores)
    found = EnsembleDetector(members, ViewPlan(flip=True), MergeOptions(), has_masks=True)(image)
    np.testing.assert_allclose(in_px(found), [[10, 120, 40, 190]], atol=1e-3)
    np.testing.assert_array_equal(found.masks, [[[1.0, 0.0]]])


def test_masks_of_two_sizes_cannot_be_merged():
    members = [Member("a", finder(0.5, mask=np.ones([2, 2]))), Member("b", finder(0.9, mask=np.ones([3, 3])))]
    with pytest.raises(UsageError, match="the masks of a, b cannot be merged: they measure 2 x 2 and 3 x 3"):
        EnsembleDetector(members, ViewPlan(), MergeOptions(), has_masks=True)(image_of([10, 20, 40, 60]))


def with_corners(detect, scores=(0.5, 0.7)):
    """A model whose keypoints are the upper left and the lower right corner of each box."""

    def detect_corners(image):
        found = detect(image)
        points = found.boxes_norm.reshape(-1, 2, 2)
        rows = np.tile(np.array(scores, np.float32), [len(points), 1])
        return found._replace(keypoints_norm=points, keypoint_scores=rows)

    return detect_corners


def test_keypoints_follow_their_boxes_from_every_view():
    # The whole image has a better score for object 1 only; object 2 is 8 x 10 pixels, found in crops alone.
    members = [Member("model", with_corners(finder(0.9, min_share=0.005)))]
    image = image_of([10, 20, 40, 60], [70, 150, 78, 160])
    found = EnsembleDetector(members, ViewPlan(crops=((2, 2),)), MergeOptions())(image)
    assert sorted(found.class_ids) == [1, 2]
    np.testing.assert_allclose(found.keypoints_norm.reshape(-1, 4), found.boxes_norm, atol=1e-6)
    np.testing.assert_allclose(found.keypoint_scores, [[0.5, 0.7]] * 2)


def test_keypoints_that_cannot_be_merged_are_reported(caplog):
    image = image_of([10, 20, 40, 60])
    pair = [Member("with", with_corners(finder(0.9))), Member("without", finder(0.8))]
    assert EnsembleDetector(pair, ViewPlan(), MergeOptions())(image).keypoints_norm is None
    assert "keypoints are left out: without has none" in caplog.text
    with pytest.raises(UsageError, match="mirror images are not supported for models with keypoints"):
        EnsembleDetector(pair[:1], ViewPlan(flip=True), MergeOptions())(image)

    def one_point(image):
        found = pair[0].detect(image)
        return found._replace(keypoints_norm=found.keypoints_norm[:, :1], keypoint_scores=found.keypoint_scores[:, :1])

    with pytest.raises(UsageError, match="keypoints of with, one cannot be merged: there are 1 and 2"):
        EnsembleDetector([pair[0], Member("one", one_point)], ViewPlan(), MergeOptions())(image)
