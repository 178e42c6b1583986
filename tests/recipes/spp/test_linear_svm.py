"""SVMs whose solution is known, and mining on windows worked by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from detzoo.errors import DataError
from detzoo.recipes.spp.linear_svm import INTERCEPT_SCALING, LinearSvms, SvmOptions, fit_svm
from detzoo.recipes.spp.windows import label_windows


def test_the_widest_margin():
    # One point on each side, 20 long as features are; errors cost a lot. w1 20 + b = 1 and w2 20 + b = -1, and for
    # reasons of symmetry b = 0.
    kernel, bias = fit_svm(np.array([[20.0, 0.0], [0.0, 20.0]]), np.array([1, -1]), c=1e4, positive_weight=1.0)
    np.testing.assert_allclose(kernel, [0.05, -0.05], rtol=1e-3)
    assert bias == pytest.approx(0.0, abs=1e-3)


def test_errors_of_positives_weigh_more():
    # With such a small c both multipliers are at their bounds, 2 c and c: w = 2 c * 1 - c * (-1) = 3 c. The bias is a
    # separate feature of length 10: 10 * 10 * (2 c - c).
    kernel, bias = fit_svm(np.array([[1.0], [-1.0]]), np.array([1, -1]), c=0.001, positive_weight=2.0)
    np.testing.assert_allclose(kernel, [0.003], rtol=1e-4)
    assert bias == pytest.approx(INTERCEPT_SCALING**2 * 0.001, rel=1e-4)


def test_packages_that_the_command_line_hides_are_found(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "pandas", None)
    kernel, _ = fit_svm(np.array([[2.0], [0.0]]), np.array([1, -1]), c=1e4, positive_weight=1.0)
    assert kernel.shape == (1,)


def boxes(*lefts):
    """Windows of 0.2 x 0.2 at these places."""
    return np.array([[0.0, left, 0.2, left + 0.2] for left in lefts], np.float32).reshape(-1, 4)


def image_windows(lefts, true_left=0.0, true_class=0, num_classes=2):
    return label_windows(boxes(*lefts), boxes(true_left), np.array([true_class]), np.array([False]), num_classes)


@pytest.fixture
def svms():
    """Two classes, whose objects are at features (1, 0) and (0, 1); a background at (-1, -1)."""
    svms = LinearSvms(["cat", "dog"], 2, SvmOptions(c=10.0, positive_weight=1.0))
    for image, true_class in enumerate((0, 1)):
        # The true box, one window that overlaps it by 0.1 / 0.3 = 1/3, one far away.
        windows = image_windows([0.1, 0.6], true_class=true_class)
        features = np.array([np.eye(2)[true_class], [0.5, 0.5], [-1, -1]], np.float32)
        svms.add_initial(image, windows, np.arange(3), features)
    return svms


def test_first_positives_and_negatives(svms):
    assert svms.positives == [[(0, 0)], [(1, 0)]]
    # A window that overlaps a cat by 1/3 is no negative of cats, but one of dogs; so is the cat itself: but only
    # mining adds true boxes of other classes.
    assert svms.negatives == [[(0, 2), (1, 1), (1, 2)], [(0, 1), (0, 2), (1, 2)]]


def test_training_separates_and_folds_the_scale(svms):
    svms.set_scale()
    # Lengths: 1, sqrt(1/2), sqrt(2) in each image.
    assert svms.scale == pytest.approx(20 / np.mean([1, np.sqrt(0.5), np.sqrt(2)]))
    assert svms.fit_stale(lambda: False)
    scores = svms.scores(np.array([[1, 0], [0, 1], [-1, -1]], np.float32))
    assert scores[0, 0] > 0.9
    assert scores[1, 1] > 0.9
    assert (scores[2] < -0.9).all()
    assert not svms.stale.any()


def test_mining_adds_what_is_inside_the_margin(svms):
    svms.kernels, svms.biases = np.array([[1, 0], [0, 1]], np.float32), np.zeros(2, np.float32)
    svms.stale[:] = False
    # The windows are the true cat, a near one, and far ones with the scores -2, -0.5, 0.4 and 0.3 as cats. The last two
    # are duplicates of each other (IoU 0.19 / 0.21 > 0.7).
    windows = image_windows([0.05, 0.5, 0.75, 0.3, 0.31])
    features = np.array([[1, 0], [0.9, 0], [-2, -2], [-0.5, -2], [0.3, -2], [0.4, -2]], np.float32)
    before = [list(group) for group in svms.negatives]
    assert svms.mine(7, windows, features) == 4
    # Best first: 0.4, then its duplicate is left out, then -0.5. Dogs: the true cat and its neighbour, IoU 0.15 / 0.25
    # = 0.6: both are negatives of dogs that score 0.
    assert svms.negatives[0] == [*before[0], (7, 5), (7, 3)]
    assert svms.negatives[1] == [*before[1], (7, 0), (7, 1)]
    assert svms.stale.tolist() == [True, True]
    # The same image again adds nothing.
    assert svms.mine(7, windows, features) == 0


def test_easy_negatives_are_dropped_after_training(svms):
    svms.set_scale()
    # A window on a dog, a negative of cats alone, is as unlike a cat as can be.
    svms.add_initial(5, image_windows([0.1], true_class=1), np.array([1]), np.array([[-50, 0]], np.float32))
    assert (5, 1) in svms.negatives[0]
    svms.fit_stale(lambda: False)
    # The three others hold the margin, w = (2, -2) and b = -1 but for the scale: (1, 0) at 1, (0.5, 0.5) and (-1, -1)
    # at -1, and (-50, 0) at -101.
    np.testing.assert_allclose(svms.kernels[0], [2, -2], rtol=1e-3)
    assert svms.biases[0] == pytest.approx(-1, rel=1e-3)
    assert svms.negatives[0] == [(0, 2), (1, 1), (1, 2)]
    assert svms.missing_rows() == {}


def test_what_was_done_is_taken_up_again(svms):
    svms.set_scale()
    svms.fit_stale(lambda: False)
    state = svms.state()
    other = LinearSvms(["cat", "dog"], 2, svms.options)
    other.restore(state)
    assert other.positives == svms.positives
    assert other.negatives == svms.negatives
    wanted = {reference for group in (*svms.positives, *svms.negatives) for reference in group}
    missing = {(image, row) for image, rows in other.missing_rows().items() for row in rows.tolist()}
    assert missing == wanted
    np.testing.assert_array_equal(other.kernels, svms.kernels)
    other.keep(0, np.array([0]), np.zeros([1, 2], np.float32))
    assert (0, 0) not in {(image, row) for image, rows in other.missing_rows().items() for row in rows.tolist()}


def test_a_stop_leaves_the_rest_stale(svms):
    svms.set_scale()
    answers = iter([False, True])
    assert not svms.fit_stale(lambda: next(answers))
    assert svms.stale.tolist() == [False, True]


def test_only_classes_with_enough_new_windows_are_trained(svms):
    svms.set_scale()
    assert svms.fit_stale(lambda: False, at_least=1)  # nothing has been mined
    assert svms.stale.all()


def test_a_class_without_negatives_is_named():
    svms = LinearSvms(["cat"], 2, SvmOptions())
    svms.add_initial(0, image_windows([], num_classes=1), np.array([0]), np.ones([1, 2], np.float32))
    svms.set_scale()
    with pytest.raises(DataError, match="'cat' has no negatives"):
        svms.fit_stale(lambda: False)


def test_features_of_zeros_are_told():
    svms = LinearSvms(["cat"], 2, SvmOptions())
    svms.add_initial(0, image_windows([0.6], num_classes=1), np.arange(2), np.zeros([2, 2], np.float32))
    with pytest.raises(DataError, match="mean length of 0"):
        svms.set_scale()
