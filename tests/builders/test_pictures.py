"""Pictures of an evaluation and of the training images: which pixels have which colour."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detzoo.builders.pictures import GAP_PX, PairDrawer, draw_training_image
from detzoo.config import pb
from detzoo.contracts import Batch, Detections, Groundtruth
from detzoo.datasets.drawing import class_colour
from detzoo.evaluate.images import images_of_batch

NAMES = {1: "cat", 2: "dog"}
GRAY = 128
HEIGHT, WIDTH = 512, 480  # of the original image, and of each half of the picture


def one_image(masks=()):
    """An image of 512 x 480, seen as 64 x 60 of a padded input of 64 x 80, and an object on its lower right quarter."""
    pixels = np.full([1, 64, 80, 3], GRAY, np.float32)
    pixels[:, :, 60:] = 0.0  # the padding, which no picture of an evaluation shows
    off = np.array([[False, False]])
    truth = Groundtruth(
        # The box is [0.5, 0.5, 1, 1] of the true image; its right side is at 60 of 80 columns of the input.
        np.array([[[0.5, 0.5 * 60 / 80, 1.0, 60 / 80], [0, 0, 0, 0]]], np.float32),
        np.array([[1, -1]], np.int32),
        np.array([[1.0, 0.0]], np.float32),
        off,
        off,
        np.zeros([1, 2], np.float32),
        np.zeros([1, 2, 0, 0], np.uint8) if not len(masks) else masks,
    )
    shapes = np.int32([[64, 60]]), np.int32([[HEIGHT, WIDTH]])
    return Batch(pixels, *shapes, np.array([b"a/b 1"]), np.array([0]), truth)


def detections(scores, masks=()):
    """Cats on the upper left quarter, and a little to the left and up with each further one."""
    count = len(scores)
    boxes = np.array([[[0.1, 0.1, 0.5 - 0.1 * n, 0.5 - 0.1 * n] for n in range(count)]], np.float32)
    rows, classes = np.array([scores], np.float32), np.zeros([1, count], np.int32)
    return Detections(boxes, rows, classes, np.array([count]), rows, classes, boxes, rows, masks)


def drawn(config="", scores=(0.9,), batch=None, masks=(), proposes_only=False):
    """Left half, right half: uint8 [512, 480, 3] each."""
    from google.protobuf import text_format

    batch, found = batch or one_image(), detections(scores, masks)
    drawer = PairDrawer(text_format.Parse(config, pb.EvalConfig()), NAMES)
    picture = drawer(batch, found, 0, images_of_batch(batch, found)[0], proposes_only)
    assert picture.shape == (HEIGHT, 2 * WIDTH + GAP_PX, 3)
    assert (picture[:, WIDTH : WIDTH + GAP_PX] == 255).all()
    return picture[:, :WIDTH], picture[:, WIDTH + GAP_PX :]


def has_side_at(half, row, colour):
    """Returns True if the column at 0.2 of the width crosses a line of this colour within 4 pixels of ``row``."""
    column = half[max(0, round(row) - 4) : round(row) + 5, round(0.2 * WIDTH)]
    return bool((column == colour).all(-1).any())


def test_detections_are_on_the_left_and_the_truth_is_on_the_right():
    left, right = drawn()
    # The detection covers rows 51 to 256; the true box rows 256 to 511 and columns 240 to 479.
    assert has_side_at(left, 0.5 * (HEIGHT - 1), class_colour("cat"))
    assert (left[270:] == GRAY).all()
    assert (right[:230, :230] == GRAY).all()
    edge = right[384, 236:246]  # the left side of the true box, half way down
    assert (edge == class_colour("dog")).all(-1).any()
    assert not (right == class_colour("cat")).all(-1).any()


def test_the_config_chooses_the_detections():
    low, cat = (0.9, 0.6, 0.4), class_colour("cat")
    ends = [(0.5 - 0.1 * n) * (HEIGHT - 1) for n in range(3)]  # the lower sides
    for config, shown in (
        ("", [True, True, False]),
        ("min_score_threshold: 0.3", [True, True, True]),
        ("min_score_threshold: 0.7", [True, False, False]),
        ("max_num_boxes_to_visualize: 1", [True, False, False]),
        ("max_num_boxes_to_visualize: 0 min_score_threshold: 0", [True, True, True]),
    ):
        left, _ = drawn(config + " skip_labels: true skip_scores: true", low)
        assert [has_side_at(left, end, cat) for end in ends] == shown, config


def test_texts_and_the_outline_of_the_truth():
    def area_of_labels(config):
        return int((drawn(config)[0] == class_colour("cat")).all(-1).sum())

    both, score, name, none = (
        area_of_labels(config)
        for config in ("", "skip_labels: true", "skip_scores: true", "skip_labels: true skip_scores: true")
    )
    assert none < min(score, name) < both
    left, right = drawn("visualize_groundtruth_boxes: true groundtruth_box_visualization_color: 'red'")
    assert (left[384, 238:242] == (255, 0, 0)).all(-1).sum() == 1  # one pixel wide, at 0.5 * 479
    assert not (right == (255, 0, 0)).all(-1).any()
    assert not (drawn()[0] == (255, 0, 0)).all(-1).any()


def test_masks_are_filled_on_both_sides():
    truth = np.zeros([1, 2, 64, 80], np.uint8)
    truth[0, 0, 48:, 45:60] = 1  # the lower right quarter of the box: rows 384 to 511, columns 360 to 479
    left, right = drawn(batch=one_image(truth), masks=np.ones([1, 1, 3, 3], np.float32))
    assert (left[100, 100] != GRAY).any()  # the mask of the detection fills its box
    assert (left[400, 400] == GRAY).all()
    assert (right[450, 420] != GRAY).any()
    assert (right[300, 300] == GRAY).all()


def test_proposals_have_no_class():
    left, _ = drawn(proposes_only=True)
    assert has_side_at(left, 0.5 * (HEIGHT - 1), class_colour("proposal"))


def test_pictures_become_files_if_a_folder_is_named(tmp_path):
    folder, picture = tmp_path / "pictures", np.zeros([8, 8, 3], np.uint8)
    config = pb.EvalConfig(visualization_export_dir=str(folder))
    PairDrawer(config, NAMES).export(picture, 3, "a/b 1")
    config.keep_image_id_for_visualization_export = True
    PairDrawer(config, NAMES).export(picture, 4, "a/b 1")
    assert {file.name for file in folder.iterdir()} == {"export-image-3.png", "export-image-4-a_b_1.png"}
    assert np.asarray(Image.open(folder / "export-image-3.png")).shape == (8, 8, 3)
    PairDrawer(pb.EvalConfig(), NAMES).export(picture, 0, "x")  # writes nothing, or it would fail without a folder


@pytest.mark.parametrize(
    ("config", "count"), [({}, 10), ({"num_visualizations": 3}, 3), ({"retain_original_images": False}, 0)]
)
def test_the_number_of_images(config, count):
    assert PairDrawer(pb.EvalConfig(**config), NAMES).count == count


def test_a_training_image_has_its_padding_and_its_boxes():
    picture = draw_training_image(one_image(), 0, NAMES)
    # 64 x 80 is enlarged six times, to at least 480 pixels; columns from 60 on are padding.
    assert picture.shape == (384, 480, 3)
    assert (picture[100, 380:] == 0).all()
    assert (picture[280, 176:186] == class_colour("dog")).all(-1).any()  # the left side: 0.375 * 479 = 180


def test_keypoints_and_their_edges_are_on_both_sides():
    from google.protobuf import text_format

    batch = one_image()
    # From (0.7, 0.6) to (0.7, 0.9) of the true image, in fractions of the padded input, whose width is 80 / 60.
    points = np.array([[[[0.7, 0.6 * 0.75], [0.7, 0.9 * 0.75]], [[0, 0], [0, 0]]]], np.float32)
    truth = batch.groundtruth._replace(keypoints_norm=points, keypoint_visibility=np.full([1, 2, 2], 2))
    found = detections([0.9])._replace(
        keypoints_norm=np.array([[[[0.2, 0.2], [0.2, 0.4]]]], np.float32), keypoint_scores=np.ones([1, 1, 2])
    )
    batch = batch._replace(groundtruth=truth)
    drawer = PairDrawer(text_format.Parse("keypoint_edge { start: 0 end: 1 }", pb.EvalConfig()), NAMES)
    picture = drawer(batch, found, 0, images_of_batch(batch, found)[0])
    assert tuple(picture[round(0.2 * (HEIGHT - 1)), round(0.3 * WIDTH)]) == class_colour("cat")
    assert tuple(picture[round(0.7 * (HEIGHT - 1)), WIDTH + GAP_PX + round(0.75 * WIDTH)]) == class_colour("dog")
