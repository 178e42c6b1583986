"""TensorBoard events of evaluations, read back with TensorBoard's own reader."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detzoo.evaluate.coco import MASKS
from detzoo.evaluate.events import Events, tag_of
from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.masks import encode_mask
from detzoo.evaluate.runner import EvaluationResult
from detzoo.evaluate.threshold_curves import NUM_THRESHOLDS, count_by_threshold

NAMES = {1: "cat", 2: "dog", 3: "cow"}
# Boxes of 10 x 10 pixels, and one that overlaps the first one by half: IoU 1/3.
FIRST, SECOND, THIRD, HALF = (np.float32([y, x, y + 10, x + 10]) for y, x in ((0, 0), (0, 40), (40, 0), (0, 5)))


def image(objects, found, crowds=(), **masks):
    """An image of 60 x 80: objects are (box, class index), found are (box, class index, score)."""
    boxes, classes = [box for box, _ in objects], [index for _, index in objects]
    found = sorted(found, key=lambda each: -each[2])
    return EvaluatedImage(
        "1",
        (60, 80),
        np.reshape(np.float32(boxes), (-1, 4)),
        np.int32(classes),
        np.isin(np.arange(len(boxes)), crowds),
        np.zeros(len(boxes), bool),
        np.full(len(boxes), 100.0, np.float32),
        np.reshape(np.float32([box for box, _, _ in found]), (-1, 4)),
        np.float32([score for _, _, score in found]),
        np.int32([index for _, index, _ in found]),
        **masks,
    )


def two_images():
    """Three cats and a dog to find, and a crowd of cats.

    By score: 0.9 finds the first cat; 0.8 is on the crowd and does not count; 0.625 finds the first cat again, wrong;
    0.55 overlaps it by a third, wrong; 0.3 finds the second cat. The third cat is missed. A dog is found at 0.7.
    """
    return [
        image(
            [(FIRST, 0), (THIRD, 0)],
            [(FIRST, 0, 0.9), (FIRST, 0, 0.625), (HALF, 0, 0.55), (THIRD, 0, 0.8)],
            crowds=[1],
        ),
        image([(FIRST, 0), (SECOND, 0), (THIRD, 1)], [(SECOND, 0, 0.3), (THIRD, 1, 0.7)])._replace(image_id="2"),
    ]


def at(counts, threshold):
    index = round(threshold * (NUM_THRESHOLDS - 1))
    return int(counts.true_positives[index]), int(counts.false_positives[index])


def test_counts_by_threshold_are_those_of_a_worked_case():
    counts = count_by_threshold(two_images(), NAMES)
    assert counts.keys() == {"cat", "dog", ""}  # there is no cow
    cat = counts["cat"]
    assert (cat.num_objects, counts["dog"].num_objects, counts[""].num_objects) == (3, 1, 4)
    assert [at(cat, t) for t in (0.0, 0.3, 0.305, 0.55, 0.555, 0.625, 0.63, 0.9, 0.905, 1.0)] == [
        *((2, 2), (2, 2), (1, 2), (1, 2), (1, 1), (1, 1), (1, 0), (1, 0), (0, 0), (0, 0))
    ]
    assert cat.precision[[0, -1]].tolist() == [0.5, 0.0]
    assert cat.recall[0] == pytest.approx(2 / 3)
    assert [at(counts[""], t) for t in (0.0, 0.65, 0.8)] == [(3, 2), (2, 0), (1, 0)]
    assert count_by_threshold([image([], [(FIRST, 0, 0.9)])], NAMES) == {}


def test_masks_are_matched_by_their_own_overlap():
    box, half = np.zeros([60, 80], np.uint8), np.zeros([60, 80], np.uint8)
    box[:10, :10], half[:10, :4] = 1, 1  # IoU 0.4
    masked = image([(FIRST, 0)], [(FIRST, 0, 0.9)], gt_masks=[encode_mask(box)], masks=[encode_mask(half)])
    assert at(count_by_threshold([masked], NAMES)["cat"], 0.5) == (1, 0)
    assert at(count_by_threshold([masked], NAMES, MASKS)["cat"], 0.5) == (0, 1)


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def test_events_have_metrics_pictures_and_curves(tmp_path):
    picture = np.zeros([40, 64, 3], np.uint8)
    picture[:, 32:] = (250, 10, 10)
    result = EvaluationResult(
        {"mAP": 0.25, "AR@100": 0.5, "VOC": 0.75}, {}, two_images(), NAMES, 1.0, False, (picture,)
    )
    events = Events(tmp_path)
    for step in (10, 20):
        events.metrics("eval", step, result.metrics)
        events.details("eval", step, result)
    events.close()
    found = read(tmp_path / "eval")
    curves = {f"precision_recall@.50IOU/{name}/pr_curves" for name in ("all classes", "cat", "dog")}
    scalars = {"DetectionBoxes_Precision/mAP": 0.25, "DetectionBoxes_Recall/AR@100": 0.5, "VOC": 0.75}
    assert set(found.Tags()["tensors"]) == {*scalars, *curves, "eval_side_by_side_0_0"}
    for tag, value in scalars.items():
        assert [(each.step, float(tf.make_ndarray(each.tensor_proto))) for each in found.Tensors(tag)] == [
            (10, value),
            (20, value),
        ]
    width, height, encoded = tf.make_ndarray(found.Tensors("eval_side_by_side_0_0")[1].tensor_proto)
    assert (int(width), int(height)) == (64, 40)
    np.testing.assert_allclose(tf.io.decode_jpeg(encoded).numpy()[20, [10, 50]], [[0, 0, 0], [250, 10, 10]], atol=8)
    description = found.SummaryMetadata("eval_side_by_side_0_0").summary_description
    assert description.endswith("ground truth (right) of image 1")
    # The plugin's rows are true and false positives, true and false negatives, precision and recall.
    tensor = tf.make_ndarray(found.Tensors("precision_recall@.50IOU/cat/pr_curves")[0].tensor_proto)
    assert tensor.shape == (6, NUM_THRESHOLDS)
    np.testing.assert_allclose(tensor[:, 110], [1, 2, 0, 2, 1 / 3, 1 / 3], rtol=1e-6)  # threshold 0.55
    assert found.SummaryMetadata("precision_recall@.50IOU/cat/pr_curves").plugin_data.plugin_name == "pr_curves"


def test_proposals_have_no_curves_and_another_result_has_metrics_only(tmp_path):
    result = EvaluationResult({}, {}, two_images(), NAMES, 1.0, True, (np.zeros([4, 4, 3], np.uint8),))
    events = Events(tmp_path)
    events.details("a", 1, result)
    events.details("b", 1, object())
    events.close()
    assert read(tmp_path / "a").Tags()["tensors"] == ["eval_side_by_side_0_0"]
    assert not (tmp_path / "b").exists()


def test_a_writer_that_may_not_write_leaves_nothing(tmp_path):
    events = Events(tmp_path, writable=False)
    events.metrics("eval", 1, {"mAP": 0.5})
    events.close()
    assert list(tmp_path.iterdir()) == []


def test_the_tags_are_those_of_the_object_detection_api():
    assert tag_of("mAP@.50IOU") == "DetectionBoxes_Precision/mAP@.50IOU"
    assert tag_of("AR@100 (small)") == "DetectionBoxes_Recall/AR@100 (small)"
    assert tag_of("top-1 error") == "top-1 error"
