"""The regression against scikit-learn's, its targets against the box coder."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from detzoo.ops.box_coder import FasterRcnnBoxCoder
from detzoo.recipes.spp.box_regression import RidgeSums, box_targets, classes_at_once


def test_targets_by_hand():
    # From a box of 0.2 x 0.4 around (0.3, 0.4) to one of 0.4 x 0.2 around (0.4, 0.3).
    targets = box_targets(np.array([[0.2, 0.2, 0.4, 0.6]]), np.array([[0.2, 0.2, 0.6, 0.4]]))
    np.testing.assert_allclose(targets, [[0.1 / 0.2, -0.1 / 0.4, np.log(2), -np.log(2)]], atol=1e-12)


def test_the_box_coder_decodes_them():
    windows = np.array([[0.1, 0.2, 0.5, 0.4], [0.0, 0.0, 1.0, 0.7]], np.float32)
    true = np.array([[0.2, 0.1, 0.45, 0.5], [0.3, 0.2, 0.9, 0.8]], np.float32)
    decoded = FasterRcnnBoxCoder((1.0, 1.0, 1.0, 1.0)).decode(box_targets(windows, true), windows)
    np.testing.assert_allclose(decoded, true, atol=1e-6)


def test_the_solution_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    features, targets = random.normal(size=[60, 5]) + 1.0, random.normal(size=[60, 4])
    sums = RidgeSums(2, 5)
    for part in range(0, 60, 20):
        sums.add(1, features[part : part + 20], targets[part : part + 20])
    kernel, bias = sums.solve(1, 1000.0)
    scale = 20 / np.linalg.norm(features, axis=1).mean()
    ridge = Ridge(alpha=1000.0).fit(features * scale, targets)
    np.testing.assert_allclose(kernel, ridge.coef_.T * scale, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bias, ridge.intercept_, rtol=1e-4, atol=1e-6)
    assert [sums.count(0), sums.count(1)] == [0, 60]


def test_a_class_without_windows_leaves_boxes_where_they_are():
    kernel, bias = RidgeSums(1, 3).solve(0, 1000.0)
    assert kernel.tolist() == [[0.0] * 4] * 3
    assert bias.tolist() == [0.0] * 4


def test_windows_that_are_all_alike_give_their_mean_target():
    sums = RidgeSums(1, 2)
    sums.add(0, np.ones([2, 2]), np.array([[0, 0, 0, 0], [0.2, 0.4, 0.6, 0.8]]))
    kernel, bias = sums.solve(0, 0.0)
    np.testing.assert_allclose(kernel, np.zeros([2, 4]), atol=1e-9)
    np.testing.assert_allclose(bias, [0.1, 0.2, 0.3, 0.4], atol=1e-6)


def test_sums_are_taken_up_again():
    random = np.random.default_rng(1)
    features, targets = random.normal(size=[30, 3]), random.normal(size=[30, 4])
    whole, first = RidgeSums(1, 3), RidgeSums(1, 3)
    whole.add(0, features, targets)
    first.add(0, features[:10], targets[:10])
    second = RidgeSums(1, 3)
    second.restore(first.state())
    second.add(0, features[10:], targets[10:])
    np.testing.assert_allclose(second.solve(0, 1.0)[0], whole.solve(0, 1.0)[0], rtol=1e-5)


@pytest.mark.parametrize(("depth", "expected"), [(12_800, 3), (100_000, 1), (100, 20)])
def test_classes_that_fit_into_memory_together(depth, expected):
    # 12,800 squared times 8 bytes are 1.31 GB.
    assert classes_at_once(20, depth, 4e9) == expected
