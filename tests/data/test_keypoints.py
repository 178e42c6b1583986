"""Keypoints from COCO files to batches: import, records, decoding, and augmentations that move them with the image."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from detzoo.builders.augment import build_augmentations
from detzoo.builders.inputs import build_dataset
from detzoo.config import pb
from detzoo.config.check.readers import check_readers
from detzoo.config.label_map import load_keypoints
from detzoo.config.problems import Findings
from detzoo.data.augment import geometry
from detzoo.data.sample import Sample
from detzoo.datasets.conversion import convert
from detzoo.datasets.import_coco import read_coco
from detzoo.errors import ConfigError
from detzoo.files.issues import IssueLog

HEIGHT, WIDTH = 40, 80


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A card with three keypoints, of which the last is not labelled, and a box of a class without any."""
    folder = tmp_path_factory.mktemp("keypoints")
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "1.png")
    card = {
        "id": 1,
        "image_id": 1,
        "category_id": 2,
        "bbox": [8, 4, 40, 20],
        "keypoints": [8, 4, 2, 48, 24, 1, 0, 0, 0],
    }
    other = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 10, 20, 20]}
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "card", "keypoints": ["left", "right", "foot"]}]
    images = [{"id": 1, "file_name": "1.png", "height": HEIGHT, "width": WIDTH}]
    content = {"images": images, "annotations": [card, other], "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    log = IssueLog()
    read = read_coco(str(folder), str(folder / "instances.json"), log)
    convert(read, str(folder / "all"), num_shards=1, log=log)
    return folder


def test_the_label_map_names_the_keypoints(records):
    keypoints = load_keypoints(records / "label_map.pbtxt")
    assert {name: (each.class_id, each.labels) for name, each in keypoints.items()} == {
        "card": (2, {0: "left", 1: "right", 2: "foot"})
    }
    (records / "bare.pbtxt").write_text("item { id: 1 name: 'cup' }")
    with pytest.raises(ConfigError, match="no class has keypoints; its classes are cup"):
        load_keypoints(records / "bare.pbtxt")


def test_batches_have_keypoints_as_fractions_of_the_padded_input(records):
    reader = text_format.Parse(
        f"""label_map_path: '{records}/label_map.pbtxt' num_keypoints: 3 shuffle: false max_number_of_boxes: 3
        tf_record_input_reader {{ input_path: '{records}/all-00000-of-00001.tfrecord' }}""",
        pb.InputReader(),
    )
    resizer = text_format.Parse(
        "keep_aspect_ratio_resizer { min_dimension: 80 max_dimension: 80 pad_to_max_dimension: true }",
        pb.ImageResizer(),
    )
    [batch] = build_dataset(reader, resizer, None, training=False, batch_size=1, seed=0)
    truth = batch.groundtruth
    assert truth.keypoints_norm.shape == (1, 3, 3, 2)
    # The padded input has 80 rows: y halves.
    np.testing.assert_allclose(truth.keypoints_norm[0, 0, :2], [[4 / 80, 8 / 80], [24 / 80, 48 / 80]], rtol=1e-6)
    np.testing.assert_array_equal(truth.keypoint_visibility[0], [[2, 1, 0], [0, 0, 0], [0, 0, 0]])


def sample():
    return Sample(
        image=tf.zeros([HEIGHT, WIDTH, 3], tf.uint8),
        boxes_norm=tf.constant([[0.1, 0.1, 0.6, 0.6]]),
        classes=tf.constant([1]),
        weights=tf.ones([1]),
        is_crowd=tf.zeros([1], tf.bool),
        is_difficult=tf.zeros([1], tf.bool),
        area_px=tf.zeros([1]),
        masks=None,
        keypoints_norm=tf.constant([[[0.1, 0.2], [0.6, 0.5], [0.3, 0.3]]]),
        keypoint_visibility=tf.constant([[2, 1, 0]]),
    )


def test_a_flip_exchanges_left_and_right_keypoints():
    step = text_format.Parse(
        "random_horizontal_flip { keypoint_flip_permutation: [1, 0, 2] probability: 1 }", pb.PreprocessingStep()
    )
    [flip] = build_augmentations([step])
    flipped = flip(sample(), tf.constant([1, 2]))
    np.testing.assert_allclose(flipped.keypoints_norm, [[[0.6, 0.5], [0.1, 0.8], [0.3, 0.7]]], rtol=1e-6)
    np.testing.assert_array_equal(flipped.keypoint_visibility, [[1, 2, 0]])


def test_a_rotation_moves_keypoints_as_boxes():
    turned = geometry.rotate_90(sample())
    # Counter-clockwise: (y, x) becomes (1 - x, y).
    np.testing.assert_allclose(turned.keypoints_norm[0, 0], [0.8, 0.1], rtol=1e-6)


def test_keypoints_that_a_crop_cuts_off_stay_unlabelled():
    # Rows 0 to 19 of 40: y doubles, and the second keypoint is at 1.2.
    cut = geometry.view_window(sample(), tf.constant([0, 0]), tf.constant([20, WIDTH]))
    np.testing.assert_allclose(cut.keypoints_norm[0, 0], [0.2, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(cut.keypoint_visibility, [[2, 0, 0]])
    padded = geometry.view_window(cut, tf.constant([0, 0]), tf.constant([HEIGHT, WIDTH]))
    np.testing.assert_array_equal(padded.keypoint_visibility, [[2, 0, 0]])


@pytest.mark.parametrize(
    ("reader", "permutation", "message"),
    [
        ("", "0 1 2", "is 0, but model.center_net learns keypoints"),
        ("num_keypoints: 3", "", "is missing; accepted with num_keypoints 3: each number of 0 to 2 once"),
        ("num_keypoints: 3", "1 0", "has 2 values; accepted with num_keypoints 3"),
    ],
)
def test_readers_and_flips_fit_the_keypoints(reader, permutation, message):
    numbers = " ".join(f"keypoint_flip_permutation: {number}" for number in permutation.split())
    config = text_format.Parse(
        f"""model {{ center_net {{ keypoint_estimation_task {{ task_name: 'pose' }} }} }}
        train_config {{ data_augmentation_options {{ random_horizontal_flip {{ {numbers} }} }} }}
        train_input_reader {{ {reader} label_map_path: 'x' tf_record_input_reader {{ input_path: 'y' }} }}""",
        pb.TrainEvalPipelineConfig(),
    )
    findings = Findings(files=False)
    check_readers(config, findings)
    assert any(message in problem.message for problem in findings.problems), findings.problems
