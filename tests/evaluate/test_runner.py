"""The evaluator: coordinates through padding and resizing, smaller last batches, one trace, choice of metrics."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Batch, Detections, Groundtruth
from detzoo.errors import ConfigError, DataError
from detzoo.evaluate.images import images_of_batch
from detzoo.evaluate.runner import Evaluator


def batch(num_images=2, ids=("7", "9"), gt_boxes=((0.0, 0.0, 0.5, 0.5),), area_px=0.0):
    """Images of 32 x 48 whose true part is 32 x 24, of originals 64 x 48; one padding row each."""
    boxes = np.zeros([num_images, len(gt_boxes) + 1, 4], np.float32)
    boxes[:, : len(gt_boxes)] = gt_boxes
    classes = np.full(boxes.shape[:2], -1, np.int32)
    classes[:, : len(gt_boxes)] = 1
    off = np.zeros(classes.shape, bool)
    generator = np.random.default_rng(1)
    return Batch(
        images=generator.uniform(0, 255, [num_images, 32, 48, 3]).astype(np.float32),
        true_shapes=np.tile(np.int32([[32, 24]]), [num_images, 1]),
        original_shapes=np.tile(np.int32([[64, 48]]), [num_images, 1]),
        image_ids=np.array([name.encode() for name in ids[:num_images]]),
        record_index=np.arange(num_images),
        groundtruth=Groundtruth(
            boxes,
            classes,
            (classes >= 0).astype(np.float32),
            off,
            off,
            np.full(classes.shape, area_px, np.float32),
            np.zeros([num_images, boxes.shape[1], 0, 0], np.uint8),
        ),
    )


class PerfectDetector:
    """Always detects class 1 on the top left quarter of the padded input, and counts how often it is traced."""

    traces = 0

    def preprocess(self, images):
        return images

    def predict(self, inputs, training=False, **context):
        assert not training
        self.traces += 1
        return tf.reduce_mean(inputs)

    def postprocess(self, predictions, true_shapes, padded_shape):
        del predictions
        num_images = tf.shape(true_shapes)[0]
        ratio = tf.constant(padded_shape, tf.float32) / tf.cast(true_shapes[0], tf.float32)
        box = tf.constant([0.0, 0.0, 0.5, 0.5]) * tf.tile(ratio, [2])
        boxes = tf.tile(tf.stack([box, tf.zeros(4)])[tf.newaxis], [num_images, 1, 1])
        rows = tf.ones([num_images, 2])
        classes = tf.cast(rows, tf.int32)
        return Detections(boxes, rows * 0.9, classes, classes[:, 0], rows, classes, boxes, rows)


def test_boxes_come_to_pixels_of_the_original_image():
    # A quarter of the padded 32 x 48 input is 16 x 24: half of the true height, all of the true width. The original
    # is 64 x 48, so the box covers 32 x 48 pixels of it. Detections are fractions of the true image already.
    detector = PerfectDetector()
    one = batch()
    detections = detector.postprocess(None, tf.constant(one.true_shapes), (32, 48))
    images = images_of_batch(one, detections)
    np.testing.assert_allclose(images[0].gt_boxes_px, [[0, 0, 32, 48]])
    np.testing.assert_allclose(images[0].boxes_px, [[0, 0, 32, 48]])
    assert images[0].shape == (64, 48)
    assert images[1].image_id == "9"
    assert images[0].gt_area_px == pytest.approx([32 * 48])
    assert len(images[0].scores) == 1  # the padding row is gone
    recorded = images_of_batch(batch(area_px=100.0), detections)
    assert recorded[0].gt_area_px == pytest.approx([100.0])


def dataset_of(*batches):
    spec = tf.nest.map_structure(lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), batches[0])
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)


def test_a_perfect_detector_scores_one_with_one_trace_for_batches_of_two_sizes():
    detector = PerfectDetector()
    data = dataset_of(batch(), batch(1, ids=("12",)))
    evaluator = Evaluator(data, {1: "cat", 2: "dog"}, show_progress=False)
    assert evaluator(detector)["mAP"] == pytest.approx(1.0)
    result = evaluator.evaluate(detector)
    assert detector.traces == 1
    assert len(result.images) == 3
    assert result.per_class["dog"] == {"AP": 1.0, "AP@.50IOU": 1.0, "objects": 3}
    assert result.per_class["cat"]["AP"] == -1.0


def test_metrics_sets_are_chosen_by_name():
    data = dataset_of(batch())
    both = Evaluator(
        data,
        {1: "cat", 2: "dog"},
        ["pascal_voc_detection_metrics", "pascal_voc_2007_detection_metrics"],
        show_progress=False,
    )
    assert both(PerfectDetector()) == {"VOC mAP@.50IOU": pytest.approx(1.0), "VOC2007 mAP@.50IOU": pytest.approx(1.0)}
    with pytest.raises(ConfigError, match=r"metrics_set: coco_metrics; accepted: coco_detection_metrics"):
        Evaluator(data, {1: "cat"}, ["coco_metrics"])


def test_an_empty_data_set_is_an_error():
    empty = dataset_of(batch()).take(0)
    with pytest.raises(DataError, match="no image"):
        Evaluator(empty, {1: "cat"}, show_progress=False)(PerfectDetector())


def test_a_class_without_a_name_is_reported(caplog):
    result = Evaluator(dataset_of(batch()), {1: "cat"}, show_progress=False).evaluate(PerfectDetector())
    assert result.metrics["mAP"] == -1.0
    assert "2 ground-truth objects bear a class id without a name" in caplog.text


def test_a_network_runs_in_a_batch_as_alone(toy):
    detector = toy.toy_detector()
    together = Evaluator(dataset_of(batch()), {1: "a", 2: "b", 3: "c"}, show_progress=False).detect(detector)
    whole = batch()
    halves = [tf.nest.map_structure(lambda a, row=row: a[row : row + 1], whole) for row in range(2)]
    apart = Evaluator(dataset_of(*halves), {1: "a", 2: "b", 3: "c"}, show_progress=False).detect(detector)
    for one, other in zip(together, apart):
        assert len(one.scores) == 5
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5)
        np.testing.assert_allclose(one.boxes_px, other.boxes_px, rtol=1e-4, atol=1e-3)
