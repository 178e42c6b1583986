"""Boxes, masks and labels on pictures: where the pixels are, and what cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.datasets.drawing import MASK_OPACITY, class_colour, draw_detections, object_colours

GRAY = np.full((500, 800, 3), 128, np.uint8)  # larger than what is enlarged; a line is 3 pixels wide
BOX = (0.5, 0.25, 0.75, 0.5)
# Corners on the pixel grid of 799 x 499 steps.
TOP, LEFT, BOTTOM, RIGHT = 0.5 * 499, 0.25 * 799, 0.75 * 499, 0.5 * 799


def share(region, colour) -> float:
    return float((np.abs(region.astype(int) - colour) <= 2).all(-1).mean())


def test_the_border_of_a_box_has_the_colour_of_its_class():
    drawn = np.asarray(draw_detections(GRAY, np.array([BOX]), ["cat"]))
    colour = class_colour("cat")
    assert drawn.shape == (500, 800, 3)
    middle_y, middle_x = round((TOP + BOTTOM) / 2), round((LEFT + RIGHT) / 2)
    for line in (
        drawn[middle_y, round(LEFT) : round(LEFT) + 4],
        drawn[middle_y, round(RIGHT) - 4 : round(RIGHT)],
        drawn[round(BOTTOM) - 4 : round(BOTTOM), middle_x],
        drawn[round(TOP) : round(TOP) + 5, middle_x],
    ):
        assert share(line, colour) > 0.4
    assert share(drawn[middle_y, round(LEFT) + 8 : round(RIGHT) - 8], (128, 128, 128)) == 1.0
    assert share(drawn[: round(TOP) - 40], (128, 128, 128)) == 1.0
    label = drawn[round(TOP) - 15 : round(TOP) - 2, round(LEFT) : round(LEFT) + 20]
    assert share(label, colour) > 0.3, "the name stands above the box on the colour of the class"


def test_texts_replace_names_and_an_empty_one_draws_none():
    boxes, plain = np.array([BOX]), np.asarray(draw_detections(GRAY, np.array([BOX]), ["cat"]))
    np.testing.assert_array_equal(np.asarray(draw_detections(GRAY, boxes, ["cat"], texts=["cat"])), plain)
    bare = np.asarray(draw_detections(GRAY, boxes, ["cat"], [0.5], texts=[""]))
    assert share(bare[: round(TOP) - 2], (128, 128, 128)) == 1.0  # where the name would be
    assert share(bare[round(BOTTOM) - 4 : round(BOTTOM), 300], class_colour("cat")) > 0.4


def test_the_image_itself_is_left_alone():
    image = GRAY.copy()
    draw_detections(image, np.array([BOX]), ["cat"], masks=np.ones((1, 500, 800), np.uint8))
    np.testing.assert_array_equal(image, GRAY)


def test_a_mask_is_blended_inside_and_nowhere_else():
    mask = np.zeros((1, 500, 800), np.uint8)
    mask[0, 300:340, 300:350] = 1
    drawn = np.asarray(draw_detections(GRAY, np.array([BOX]), ["cat"], masks=mask))
    blended = 128 + MASK_OPACITY * (np.array(class_colour("cat")) - 128)
    assert share(drawn[300:340, 300:350], blended) == 1.0
    assert share(drawn[345:360, 300:350], (128, 128, 128)) == 1.0


def test_small_images_are_enlarged_by_a_whole_factor():
    picture = draw_detections(np.zeros((24, 40, 3), np.uint8), np.zeros((0, 4)), [])
    assert picture.size == (480, 288)  # 12 times 40 x 24


def test_the_best_score_is_drawn_on_top():
    boxes = np.array([BOX, BOX])
    for scores, top in (([0.2, 0.9], "dog"), ([0.9, 0.2], "cat")):
        drawn = np.asarray(draw_detections(GRAY, boxes, ["cat", "dog"], scores))
        line = drawn[round(TOP) + 30 : round(BOTTOM) - 40, round(LEFT) + 1 : round(LEFT) + 3]
        assert share(line, class_colour(top)) > 0.4


def test_objects_of_one_name_can_have_colours_of_their_own():
    boxes, masks = np.array([BOX, (0.0, 0.5, 0.5, 1.0)]), np.zeros((2, 500, 800), np.uint8)
    masks[0, 300:340, 300:350], masks[1, 100:140, 500:550] = 1, 1
    colours = object_colours(2)
    drawn = np.asarray(draw_detections(GRAY, boxes, ["object"] * 2, [0.5, 0.9], masks, colours=colours))
    for (top, left), colour in zip(((300, 300), (100, 500)), colours, strict=True):
        blended = 128 + MASK_OPACITY * (np.array(colour) - 128.0)
        assert share(drawn[top : top + 40, left : left + 50], blended) == 1.0
    middle_y = round((TOP + BOTTOM) / 2)
    assert share(drawn[middle_y, round(LEFT) : round(LEFT) + 4], colours[0]) > 0.3


def test_colours_of_objects_differ_most_between_neighbours():
    colours = np.array(object_colours(30), float)
    assert len({tuple(colour) for colour in colours}) == 30
    assert np.linalg.norm(colours[1:] - colours[:-1], axis=1).min() > 150.0


@pytest.mark.parametrize("box", [(-1.0, -1.0, 2.0, 2.0), (0.5, 0.5, 0.5, 0.5), (0.9, 0.9, 0.1, 0.1), (3, 3, 4, 4)])
def test_odd_boxes_are_drawn_within_the_picture(box):
    drawn = np.asarray(draw_detections(GRAY, np.array([box]), ["a" * 500]))
    assert drawn.shape == (500, 800, 3)
    assert share(drawn, class_colour("a" * 500)) > 0.001


def test_a_box_that_is_not_finite_is_left_out():
    boxes = np.array([[np.nan, 0, 1, 1], [0, 0, np.inf, 1]])
    np.testing.assert_array_equal(draw_detections(GRAY, boxes, ["a", "b"], [0.5, 0.6]), GRAY)


def test_colours_depend_on_the_name_only_and_differ():
    names = [f"class {number}" for number in range(50)]
    colours = [class_colour(name) for name in names]
    assert colours == [class_colour(name) for name in names]
    assert len(set(colours)) > 45
    assert all(max(colour) >= 190 and max(colour) - min(colour) >= 100 for colour in colours), "vivid"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GRAY.astype(np.float32), [BOX], ["a"]), r"image is float32 \[500, 800, 3\]; uint8 \[H, W, 3\] is needed"),
        ((GRAY[..., 0], [BOX], ["a"]), r"image is uint8 \[500, 800\]"),
        ((GRAY, [BOX], []), "different numbers of objects: boxes_norm 1, labels 0"),
        ((GRAY, [BOX], ["a"], [0.1, 0.2]), "boxes_norm 1, labels 1, scores 2"),
        ((GRAY, [BOX], ["a"], None, np.zeros((1, 5, 8))), r"masks are \[1, 5, 8\]; \[N, 500, 800\] is needed"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_detections(*arguments)


def test_edges_connect_the_keypoints_that_are_drawn():
    image = np.full([501, 501, 3], 128, np.uint8)
    points = np.array([[[0.2, 0.2, 0.9], [0.2, 0.6, 0.9], [0.6, 0.6, 0.1]]])
    box, colour = [[0.1, 0.1, 0.9, 0.9]], class_colour("person")

    def colour_between(edges, y, x):
        picture = draw_detections(image, box, ["person"], texts=[""], keypoints=points, keypoint_edges=edges)
        return tuple(np.asarray(picture)[y, x])

    assert colour_between([(0, 1)], 100, 200) == colour
    assert colour_between([], 100, 200) == (128, 128, 128)
    # The third keypoint was only guessed, and there is no tenth one.
    assert colour_between([(1, 2), (0, 9)], 200, 300) == (128, 128, 128)
