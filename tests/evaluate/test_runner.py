"""The evaluator: coordinates through padding and resizing, smaller last batches, one trace, choice of metrics."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from pycocotools import mask as coco_mask

from detzoo.config import pb
from detzoo.contracts import Batch, Detections, Groundtruth, Proposals
from detzoo.data.proposals import read_proposals
from detzoo.errors import ConfigError, DataError
from detzoo.evaluate.images import images_of_batch
from detzoo.evaluate.proposals import MASK_PROPOSAL_METRIC_NAMES
from detzoo.evaluate.report import format_table, write_results
from detzoo.evaluate.runner import Evaluator, asked_metrics


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

    wants_proposals = proposes_only = proposes_masks = False
    input_shape_px = (32, 48)
    traces = 0

    def preprocess(self, images):
        return images

    def forward(self, inputs, training=False, **context):
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


class Proposer(PerfectDetector):
    """The same box, as a proposal: its class is 0, the objects' is 1."""

    proposes_only = True

    def postprocess(self, predictions, true_shapes, padded_shape):
        found = super().postprocess(predictions, true_shapes, padded_shape)
        return found._replace(classes=tf.zeros_like(found.classes))


def test_proposals_are_measured_by_recall_and_written_for_the_reader(tmp_path):
    evaluator = Evaluator(dataset_of(batch()), {1: "cat", 2: "dog"}, show_progress=False)
    result = evaluator.evaluate(Proposer())
    # The objects' area is 32 x 48 pixels: medium.
    assert result.metrics == {
        "AR@10": 1.0,
        "AR@100": 1.0,
        "AR@1000": 1.0,
        "AR@1000 (small)": -1.0,
        "AR@1000 (medium)": 1.0,
        "AR@1000 (large)": -1.0,
    }
    assert result.per_class == {}
    assert format_table(result).splitlines()[0].split()[:4] == ["AR@10", "1.000", "average", "recall"]
    write_results(result, tmp_path, {"step": 3})
    written = {"metrics.json", "detections.json", "groundtruth.json", "proposals.npz"}
    assert {file.name for file in tmp_path.iterdir()} == written
    assert json.loads((tmp_path / "metrics.json").read_text())["AR@1000"] == 1.0
    assert [entry["bbox"] for entry in json.loads((tmp_path / "detections.json").read_text())] == [[0, 0, 48, 32]] * 2
    boxes, scores, found = read_proposals(str(tmp_path / "proposals.npz")).lookup(b"9")
    np.testing.assert_allclose(boxes, [[0, 0, 0.5, 1]])  # fractions of the true image
    np.testing.assert_allclose(scores, [0.9])
    assert found


class MaskProposer(Proposer):
    """The left five sixths of that box as its mask."""

    proposes_masks = True

    def postprocess(self, predictions, true_shapes, padded_shape):
        found = super().postprocess(predictions, true_shapes, padded_shape)
        left = tf.constant([[1.0, 1.0, 1.0, 0.0]] * 4)  # one half is crossed between columns 2/3 and 1
        return found._replace(masks=tf.tile(left[tf.newaxis, tf.newaxis], [tf.shape(found.scores)[0], 2, 1, 1]))


def test_masks_of_proposals_are_measured_whatever_the_metrics_set(tmp_path):
    plain = batch()
    evaluator = Evaluator(dataset_of(plain), {1: "cat", 2: "dog"}, show_progress=False)
    with pytest.raises(ConfigError, match=r"proposals are measured by the masks of the records. Set eval_input_reader"):
        evaluator.evaluate(MaskProposer())
    # The object fills its box, 48 pixels wide, of which the mask has 40: an IoU of .83, found at 7 of 10 thresholds.
    size = plain.images.shape[1:3]
    rows = plain.groundtruth.classes.shape
    masks = np.zeros([*rows, *size], np.uint8)
    for image, row in np.argwhere(np.asarray(plain.groundtruth.classes) >= 0):
        ymin, xmin, ymax, xmax = np.round(plain.groundtruth.boxes_norm[image, row] * np.tile(size, 2)).astype(int)
        masks[image, row, ymin:ymax, xmin:xmax] = 1
    masked = plain._replace(groundtruth=plain.groundtruth._replace(masks=tf.constant(masks)))
    result = Evaluator(dataset_of(masked), {1: "cat", 2: "dog"}, show_progress=False).evaluate(MaskProposer())
    assert set(result.metrics) == set(MASK_PROPOSAL_METRIC_NAMES)
    assert result.metrics["mask AR@100"] == pytest.approx(0.7)
    assert "by masks: with 100" in format_table(result)
    write_results(result, tmp_path, {"step": 3})
    assert (tmp_path / "proposals.npz").is_file()
    assert all("segmentation" in entry for entry in json.loads((tmp_path / "detections.json").read_text()))


class RegionDetector(PerfectDetector):
    """Detects class 1 on every region that it is given."""

    wants_proposals = True

    def forward(self, inputs, training=False, true_shapes=None, groundtruth=None, proposals=None):
        self.traces += 1
        return proposals

    def postprocess(self, predictions, true_shapes, padded_shape):
        scores, classes = predictions.scores, tf.ones_like(predictions.scores, tf.int32)
        boxes = predictions.boxes_norm * tf.constant([1.0, 2.0, 1.0, 2.0])  # half of the padded width is image
        return Detections(boxes, scores, classes, predictions.num_valid, scores, classes, boxes, scores)


def with_proposals(one):
    """Both images with the object's box, worth less than a row that does not count."""
    boxes = np.tile(np.float32([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.9, 0.1]]), [len(one.images), 1, 1])
    scores = np.tile(np.float32([0.5, 0.9]), [len(one.images), 1])
    return one._replace(proposals=Proposals(boxes, scores, np.ones([len(one.images)], np.int32)))


def test_a_detector_without_a_first_stage_gets_the_readers_proposals():
    detector = RegionDetector()
    data = dataset_of(with_proposals(batch()), with_proposals(batch(1, ids=("12",))))
    assert Evaluator(data, {1: "cat", 2: "dog"}, show_progress=False)(detector)["mAP"] == pytest.approx(1.0)
    assert detector.traces == 1
    # One that has a first stage is not given any.
    assert Evaluator(data, {1: "cat", 2: "dog"}, show_progress=False)(PerfectDetector())["mAP"] == pytest.approx(1.0)


def test_a_detector_without_a_first_stage_needs_proposals():
    evaluator = Evaluator(dataset_of(batch()), {1: "cat"}, show_progress=False)
    with pytest.raises(ConfigError, match=r"the reader has none: set eval_input_reader\[0\].proposals_path"):
        evaluator(RegionDetector())


def with_masks(one):
    """The object is the left half of its box: 12 of the 24 columns of the image, rows 0 to 15 of the padded input."""
    masks = np.zeros([len(one.images), 2, 32, 48], np.uint8)
    masks[:, 0, :16, :12] = 1
    return one._replace(groundtruth=one.groundtruth._replace(masks=masks))


class MaskDetector(PerfectDetector):
    """The right box, with a mask of ones."""

    def postprocess(self, predictions, true_shapes, padded_shape):
        found = super().postprocess(predictions, true_shapes, padded_shape)
        return found._replace(masks=tf.ones([tf.shape(found.scores)[0], 2, 7, 7]))


def test_masks_come_to_pixels_of_the_original_image(tmp_path):
    data = dataset_of(with_masks(batch()))
    evaluator = Evaluator(data, {1: "cat", 2: "dog"}, ["coco_mask_metrics"], show_progress=False)
    result = evaluator.evaluate(MaskDetector())
    one = result.images[0]
    # The image of 32 x 24 was 64 x 48. The object is rows 0 to 31 and columns 0 to 23; the box extends to column 47.
    expected = np.zeros((64, 48), np.uint8)
    expected[:32] = 1
    np.testing.assert_array_equal(coco_mask.decode(one.masks[0]), expected)
    expected[:, 24:] = 0
    np.testing.assert_array_equal(coco_mask.decode(one.gt_masks[0]), expected)
    assert one.gt_area_px == pytest.approx([32 * 24])  # the mask's: the record has none
    assert len(one.masks) == len(one.gt_masks) == 1
    assert result.metrics["mAP"] == pytest.approx(1.0)
    assert result.metrics["mask mAP"] == pytest.approx(0.1)  # IoU 1/2
    assert result.per_class["dog"]["mask AP@.50IOU"] == pytest.approx(1.0)
    table = format_table(result)
    assert "mask mAP" in table
    assert "mask AP@.50IOU" in table
    write_results(result, tmp_path, {})
    entry = json.loads((tmp_path / "detections.json").read_text())[0]
    np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]).sum(), 32 * 48)
    assert "segmentation" in json.loads((tmp_path / "groundtruth.json").read_text())["annotations"][0]


def test_masks_are_not_pasted_where_nobody_measures_them():
    evaluator = Evaluator(dataset_of(with_masks(batch())), {1: "cat", 2: "dog"}, show_progress=False)
    result = evaluator.evaluate(MaskDetector())
    assert result.images[0].masks is None
    assert "mask mAP" not in result.metrics


def test_mask_metrics_need_masks_of_reader_and_detector():
    metrics = ["coco_mask_metrics"]
    with pytest.raises(ConfigError, match=r"needs the masks of the records. Set .*load_instance_masks: true"):
        Evaluator(dataset_of(batch()), {1: "cat"}, metrics)
    evaluator = Evaluator(dataset_of(with_masks(batch())), {1: "cat"}, metrics, show_progress=False)
    with pytest.raises(ConfigError, match="coco_mask_metrics needs a detector with a mask head"):
        evaluator(PerfectDetector())


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


def test_open_images_metrics_have_three_names_and_the_challenge_one():
    for name in ("open_images_metrics", "open_images_V2_detection_metrics", "oid_V2_detection_metrics"):
        evaluator = Evaluator(dataset_of(batch()), {1: "cat", 2: "dog"}, [name], show_progress=False)
        assert evaluator(PerfectDetector()) == {"OpenImages mAP@.50IOU": pytest.approx(1.0)}


@pytest.mark.parametrize(("unlabeled_are_complete", "expected"), [(True, 0.5), (False, 1.0)])
def test_labels_of_whole_images_reach_the_challenges_metrics(unlabeled_are_complete, expected):
    # Class 1 is detected in both images, and is in the first. The second is labelled with nothing: either all classes
    # are verified there, the detection is wrong, and being of an equal score it comes first here; or none is.
    full = batch(ids=("9", "7"))
    classes = full.groundtruth.classes.copy()
    classes[0] = -1
    full = full._replace(
        groundtruth=full.groundtruth._replace(classes=classes), labeled_classes=np.array([[False] * 2, [True, False]])
    )
    evaluator = Evaluator(
        dataset_of(full),
        {1: "cat", 2: "dog"},
        ["oid_challenge_detection_metrics"],
        show_progress=False,
        unlabeled_are_complete=unlabeled_are_complete,
    )
    result = evaluator.evaluate(PerfectDetector())
    assert result.metrics == {"OpenImagesChallenge mAP@.50IOU": pytest.approx(expected)}
    assert result.per_class["dog"] == {"OpenImagesChallenge mAP@.50IOU": pytest.approx(expected)}
    assert result.images[1].verified_classes.tolist() == [0]


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


def test_eval_instance_masks_asks_for_the_metrics_by_masks():
    def asked(text):
        return asked_metrics(text_format.Parse(text, pb.EvalConfig()))

    assert asked("") == []
    assert asked("eval_instance_masks: true") == ["coco_mask_metrics"]
    both = ["coco_mask_metrics", "coco_detection_metrics"]
    assert asked(f"metrics_set: {both} eval_instance_masks: true") == both
    assert asked("metrics_set: 'pascal_voc_detection_metrics' eval_instance_masks: true")[1] == "coco_mask_metrics"


def test_an_empty_data_set_is_an_error():
    empty = dataset_of(batch()).take(0)
    with pytest.raises(DataError, match="no image"):
        Evaluator(empty, {1: "cat"}, show_progress=False)(PerfectDetector())


def test_a_class_without_a_name_is_reported(caplog):
    result = Evaluator(dataset_of(batch()), {1: "cat"}, show_progress=False).evaluate(PerfectDetector())
    assert result.metrics["mAP"] == -1.0
    assert "2 ground-truth objects have a class id without a name" in caplog.text


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


def test_shards_of_the_records_give_the_metrics_of_the_whole():
    names, whole = {1: "a", 2: "b", 3: "c"}, batch()
    halves = [tf.nest.map_structure(lambda a, row=row: a[row : row + 1], whole) for row in range(2)]
    shards = [Evaluator(dataset_of(half), names, show_progress=False) for half in halves]
    numbered = [pair for shard in shards for pair in shard.detect_shard(PerfectDetector())]
    assert [number for number, _ in numbered] == whole.record_index.tolist()
    joined = shards[0].measured(PerfectDetector(), [image for _, image in numbered], 0.0)
    expected = Evaluator(dataset_of(whole), names, show_progress=False).evaluate(PerfectDetector())
    assert joined.metrics == expected.metrics
    assert len(joined.images) == 2
