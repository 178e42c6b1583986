"""Classification of images by SVMs: labels, metrics in closed form, the separable case, random splits."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.errors import DataError
from detzoo.recipes.spp.image_svms import ImageFeatures, measure, random_split, train_and_test

NAMES = ("cat", "dog")


def made(features, labels):
    return ImageFeatures(np.array(features, np.float32), np.array(labels, np.int8), NAMES[: len(labels[0])])


def test_precision_at_eleven_recalls_leaves_uncertain_images_out():
    # Class cat, best margin first: present, uncertain (left out), absent, present. Recall 1/2 at precision 1, then 1/2
    # at 1/2, then 1 at 2/3. Recalls 0 to .5 have precision 1, .6 to 1 have 2/3: (6 + 5 * 2/3) / 11.
    labels = [[1, -1], [0, 1], [-1, 1], [1, -1]]
    scores = np.array([[4.0, 0.0], [3.0, 1.0], [2.0, 1.0], [1.0, 0.0]])
    result = measure(scores, made(np.zeros([4, 1]), labels))
    assert result.per_class["cat"] == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert result.per_class["dog"] == pytest.approx(1.0)
    assert result.mean_average_precision == pytest.approx(((6 + 5 * 2 / 3) / 11 + 1.0) / 2)
    assert result.accuracy == pytest.approx(0.5)  # both cats are right, and no dog


def test_accuracy_is_the_mean_over_the_classes_of_images_with_one_label():
    # Three cats, of which one is right, and one dog, which is right: (1/3 + 1) / 2.
    labels = [[1, -1], [1, -1], [1, -1], [-1, 1]]
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert measure(scores, made(np.zeros([4, 1]), labels)).accuracy == pytest.approx(2 / 3)
    assert measure(scores[:2], made(np.zeros([2, 1]), [[1, 1], [1, -1]])).accuracy is None


def test_classes_in_different_directions_are_separated_for_any_length():
    random = np.random.default_rng(0)
    angles = np.concatenate([random.uniform(0.1, 0.6, 40), random.uniform(1.0, 1.5, 40)])
    features = random.uniform(0.1, 50.0, (80, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = [[1, -1]] * 40 + [[-1, 1]] * 40
    train = made(features[::2], labels[::2])
    result = train_and_test(train, made(features[1::2], labels[1::2]), c=10.0)
    assert (result.accuracy, result.mean_average_precision) == (1.0, 1.0)
    with pytest.raises(DataError, match="no training image is without class 'cat'"):
        train_and_test(made(features[:4], labels[:4]), train, c=1.0)


def test_a_random_split_takes_so_many_images_per_class():
    labels = np.array([[1, -1]] * 7 + [[-1, 1]] * 5, np.int8)
    train, test = random_split(labels, 3, 3, np.random.default_rng(1))
    assert not set(train) & set(test)
    assert [(labels[rows, number] == 1).sum() for rows in (train, test) for number in (0, 1)] == [3, 3, 3, 2]
    with pytest.raises(DataError, match="class 2 has 5 images"):
        random_split(labels, 5, 1, np.random.default_rng(1))
    with pytest.raises(DataError, match="images with one label each"):
        random_split(np.ones([3, 2], np.int8), 1, 1, np.random.default_rng(1))
