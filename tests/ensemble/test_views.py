"""Crops and mirror images, and the way back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from detzoo.ensemble.views import View, ViewPlan, are_cut, check_views, parse_crops
from detzoo.errors import UsageError

SHAPE = (97, 150)  # not square, not divisible


def test_the_views_of_a_plan():
    assert [view.window_px for view in ViewPlan().views(SHAPE)] == [(0, 0, 97, 150)]
    # Two crops that overlap by a quarter of their side s cover 1.75 s: s = ceil(97 / 1.75) = 56, ceil(150 / 1.75) = 86.
    plan = ViewPlan(((2, 2),), flip=True)
    views = plan.views(SHAPE)
    expected = [(0, 0, 97, 150), (0, 0, 56, 86), (0, 64, 56, 150), (41, 0, 97, 86), (41, 64, 97, 150)]
    assert [view.window_px for view in views] == expected * 2
    assert [view.is_mirrored for view in views] == [False] * 5 + [True] * 5
    assert plan.num_views == len(views) == 10


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.75])
@pytest.mark.parametrize("grid", [(1, 3), (4, 2)])
def test_crops_cover_the_image_and_overlap_as_asked(grid, overlap):
    views = ViewPlan((grid,), overlap).views(SHAPE)[1:]
    assert len(views) == grid[0] * grid[1]
    covered = np.zeros(SHAPE, bool)
    for view in views:
        ymin, xmin, ymax, xmax = view.window_px
        assert 0 <= ymin < ymax <= SHAPE[0]
        assert 0 <= xmin < xmax <= SHAPE[1]
        covered[ymin:ymax, xmin:xmax] = True
    assert covered.all()
    lefts = sorted({view.window_px[1] for view in views})
    width = views[0].window_px[3] - views[0].window_px[1]
    assert all(left + width - after >= overlap * width - 1 for left, after in itertools.pairwise(lefts))


@pytest.mark.parametrize("view", ViewPlan(((2, 3),), flip=True).views(SHAPE), ids=str)
def test_a_box_painted_on_the_image_is_found_where_it_was(view):
    ymin, xmin, ymax, xmax = view.window_px
    painted = np.array([ymin + 5, xmin + 7, ymax - 9, xmax - 20])
    image = np.zeros([*SHAPE, 3], np.uint8)
    image[painted[0] : painted[2], painted[1] : painted[3]] = 255
    seen = view.of(image)
    assert seen.shape == (ymax - ymin, xmax - xmin, 3)
    rows, columns = np.flatnonzero(seen[..., 0].any(axis=1)), np.flatnonzero(seen[..., 0].any(axis=0))
    found = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]) / np.tile(seen.shape[:2], 2)
    back = view.boxes_in_image(found[np.newaxis])[0] * np.tile(SHAPE, 2)
    np.testing.assert_allclose(back, painted, atol=1e-3)


def test_masks_are_mirrored_with_their_boxes():
    mask = np.arange(6.0).reshape(1, 2, 3)
    mirrored, plain = View((0, 0, 10, 10), (10, 10), True), View((0, 0, 10, 10), (10, 10))
    np.testing.assert_array_equal(mirrored.masks_in_image(mask), [[[2, 1, 0], [5, 4, 3]]])
    np.testing.assert_array_equal(plain.masks_in_image(mask), mask)


def test_a_box_at_an_inner_side_is_cut_and_one_at_the_images_side_is_not():
    window = (0.0, 0.5, 0.5, 1.0)  # the upper right quarter: its left and its lower side are inner ones
    boxes = [
        [0.0, 0.6, 0.4, 1.0],  # ends with the image above and to the right
        [0.1, 0.505, 0.4, 0.8],  # within 2 % of the left side: 0.5 + 0.02 * 0.5 = 0.51
        [0.1, 0.515, 0.4, 0.8],
        [0.1, 0.6, 0.495, 0.8],  # within 2 % of the lower side: 0.49
        [0.1, 0.6, 0.485, 0.8],
        [0.1, 0.2, 0.4, 0.3],  # not in the window at all
    ]
    np.testing.assert_array_equal(are_cut(np.array(boxes), window), [False, True, False, True, False, True])
    assert not are_cut(np.array([[0.0, 0.0, 1.0, 1.0]]), (0.0, 0.0, 1.0, 1.0)).any()
    assert are_cut(np.zeros([0, 4]), window).shape == (0,)


def test_an_image_too_small_for_a_grid_is_seen_without_it():
    views = ViewPlan(((2, 2), (4, 4))).views((30, 60))
    # 30 / 1.75 = 17.1 pixels are enough, 30 / 3.25 = 9.2 are not.
    assert len(views) == 1 + 4


def test_grids_are_read():
    assert parse_crops("2x2, 3x1") == ((2, 2), (3, 1))
    assert parse_crops("") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", "'2', which is not a grid of crops; accepted: ROWSxCOLUMNS"),
        ("1x1", r"1x1 \(the whole image is always a view\)"),
        ("0x2", "--crops has 0x2; accepted: ROWSxCOLUMNS with 1 to 16"),
        ("2x17", "--crops has 2x17"),
        ("2x2,2x2", "--crops has 2x2 twice"),
    ],
)
def test_grids_that_make_no_sense_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_crops(text)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ViewPlan(overlap=0.8), "overlap of crops is 0.8; accepted: 0 to 0.75"),
        (ViewPlan(overlap=-0.1), "overlap of crops is -0.1"),
        (ViewPlan(flip="yes"), "flip is 'yes'; accepted: true, false"),  # type: ignore[arg-type]
    ],
)
def test_plans_that_make_no_sense_are_refused(plan, message):
    with pytest.raises(UsageError, match=message):
        check_views(plan)
